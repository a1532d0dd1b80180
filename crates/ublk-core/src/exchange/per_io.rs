//! One command per request: `FETCH_REQ` asks for the first, `COMMIT_AND_FETCH_REQ` answers it
//! and asks for the next on the same tag.

use std::io;

use io_uring::opcode;
use io_uring::squeue::Entry;
use io_uring::types::Fixed;
use ublk_sys::{
    UBLK_AUTO_BUF_REG_FALLBACK, UBLK_F_CMD_IOCTL_ENCODE, UBLK_IO_COMMIT_AND_FETCH_REQ,
    UBLK_IO_FETCH_REQ, UBLK_IO_NEED_GET_DATA, UBLK_IO_RES_ABORT, UBLK_IO_RES_OK,
    UBLK_U_IO_COMMIT_AND_FETCH_REQ, UBLK_U_IO_FETCH_REQ, UBLK_U_IO_NEED_GET_DATA,
    ublk_auto_buf_reg, ublk_auto_buf_reg_to_sqe_addr, ublksrv_io_cmd,
};

use super::{Arrival, MAX_REFUSALS};
use crate::buffers::Buffers;
use crate::driver::Ring;
use crate::file_table::CHAR_DEVICE;
use crate::pass::Pass;
use crate::tag::Tag;
use crate::token::{Kind, Token};

/// What one tag's commands carry, and the commit to repeat if the kernel could not take it.
#[derive(Clone, Copy, Debug, Default)]
struct Commands {
    /// `sqe->addr`: where to register the next request's buffer.
    registration: u64,
    /// `ublksrv_io_cmd.addr`: where to copy the next request's data.
    memory: u64,
    committed: Option<i32>,
    refusals: u8,
}

#[derive(Debug)]
pub(crate) struct PerIo {
    queue: u16,
    tags: Box<[Commands]>,
    /// The numbers of FETCH_REQ, COMMIT_AND_FETCH_REQ and NEED_GET_DATA.
    fetch: u32,
    commit: u32,
    get_data: u32,
    /// Tags that the kernel has not ended.
    alive: usize,
}

impl PerIo {
    pub(super) fn new(queue: u16, depth: u16, buffers: &Buffers, features: u64) -> Self {
        let tags = Tag::all(depth).map(|tag| Commands::new(tag, buffers)).collect();
        let [fetch, commit, get_data] = match features & UBLK_F_CMD_IOCTL_ENCODE {
            // Before Linux 6.4.
            0 => [UBLK_IO_FETCH_REQ, UBLK_IO_COMMIT_AND_FETCH_REQ, UBLK_IO_NEED_GET_DATA]
                .map(u32::from),
            _ => [UBLK_U_IO_FETCH_REQ, UBLK_U_IO_COMMIT_AND_FETCH_REQ, UBLK_U_IO_NEED_GET_DATA],
        };
        Self { queue, tags, fetch, commit, get_data, alive: 0 }
    }

    pub(super) fn arm<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tags: impl Iterator<Item = Tag>,
    ) -> io::Result<()> {
        for tag in tags {
            pass.reserve(1)?;
            self.push(pass, self.fetch, tag, 0);
            self.alive += 1;
        }
        Ok(())
    }

    pub(super) fn is_open(&self) -> bool {
        self.alive > 0
    }

    #[inline(always)]
    pub(super) fn commit<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        result: i32,
    ) -> io::Result<()> {
        pass.reserve(1)?;
        self.push_commit(pass, tag, result);
        Ok(())
    }

    #[inline(always)]
    pub(super) fn push_commit<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag, result: i32) {
        self.tags[tag.index()].committed = Some(result);
        self.push(pass, self.commit, tag, result);
    }

    /// What the tag's next command says of memory, or of where an append went.
    pub(super) fn set_memory(&mut self, tag: Tag, word: u64) {
        self.tags[tag.index()].memory = word;
    }

    /// Where the tag's next request is to be registered.
    pub(super) fn set_slot(&mut self, tag: Tag, slot: u16) {
        self.tags[tag.index()].registration = registration(slot);
    }

    /// Asks for the data of a write.
    pub(super) fn ask_data<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag) -> io::Result<()> {
        pass.reserve(1)?;
        self.push(pass, self.get_data, tag, 0);
        Ok(())
    }

    /// Sends the tag's last commit again.
    pub(super) fn commit_again<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
    ) -> io::Result<()> {
        let result = self.tags[tag.index()].committed.unwrap_or(-libc::EIO);
        self.commit(pass, tag, result)
    }

    /// A tag is given up.
    pub(super) fn ended(&mut self) {
        self.alive -= 1;
    }

    #[inline(always)]
    pub(super) fn completed<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        result: i32,
    ) -> io::Result<Arrival> {
        if result == UBLK_IO_RES_OK {
            self.tags[tag.index()].refusals = 0;
            return Ok(Arrival::Request(tag));
        }
        self.not_delivered(pass, tag, result)
    }

    /// A fetch that is refused was wrong; a commit may have met a kernel short of memory.
    #[cold]
    fn not_delivered<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        result: i32,
    ) -> io::Result<Arrival> {
        let state = &mut self.tags[tag.index()];
        match (result, state.committed) {
            (UBLK_IO_RES_ABORT, _) => {
                self.alive -= 1;
                Ok(Arrival::Closing)
            }
            (_, Some(committed)) if state.refusals < MAX_REFUSALS => {
                state.refusals += 1;
                self.commit(pass, tag, committed)?;
                Ok(Arrival::Nothing)
            }
            _ => {
                self.alive -= 1;
                Ok(Arrival::Refused(-result))
            }
        }
    }

    #[inline(always)]
    fn push<R: Ring>(&mut self, pass: &mut Pass<'_, R>, operation: u32, tag: Tag, result: i32) {
        let entry = self.entry(pass.file(CHAR_DEVICE), operation, tag, result);
        // SAFETY: the memory it may name is the tag's buffer in the queue's pool, which outlives
        // the ring's last completion (see `Reactor`).
        unsafe { pass.push(entry, Token::new(Kind::Fetch, tag)) };
    }

    #[inline(always)]
    fn entry(&self, file: Fixed, operation: u32, tag: Tag, result: i32) -> Entry {
        let state = &self.tags[tag.index()];
        let command =
            ublksrv_io_cmd { q_id: self.queue, tag: tag.number(), result, addr: state.memory };
        opcode::UringCmd16::new(file, operation)
            .cmd(command.to_bytes())
            .addr(Some(state.registration))
            .build()
    }
}

/// What `sqe->addr` says of a slot.
pub(crate) fn registration(slot: u16) -> u64 {
    ublk_auto_buf_reg_to_sqe_addr(&ublk_auto_buf_reg {
        index: slot,
        // Without it a failed registration fails the client's request behind our back (trap 11).
        flags: UBLK_AUTO_BUF_REG_FALLBACK,
        ..Default::default()
    })
}

impl Commands {
    fn new(tag: Tag, buffers: &Buffers) -> Self {
        let none = Self::default();
        match buffers {
            Buffers::Auto { slots } => {
                Self { registration: registration(slots[tag.index()].get()), ..none }
            }
            Buffers::Register { .. } | Buffers::GetData | Buffers::UserCopy => none,
            Buffers::Copy(pool) => Self { memory: pool.at(tag.index(), 0) as u64, ..none },
        }
    }
}
