//! One command per request: `FETCH_REQ` asks for the first, `COMMIT_AND_FETCH_REQ` answers it
//! and asks for the next on the same tag.

use io_uring::opcode;
use io_uring::squeue::Entry;
use io_uring::types::Fixed;
use ublk_sys::{
    UBLK_AUTO_BUF_REG_FALLBACK, UBLK_IO_RES_ABORT, UBLK_IO_RES_OK, UBLK_U_IO_COMMIT_AND_FETCH_REQ,
    UBLK_U_IO_FETCH_REQ, ublk_auto_buf_reg, ublk_auto_buf_reg_to_sqe_addr, ublksrv_io_cmd,
};

use crate::buffers::Buffers;
use crate::driver::Ring;
use crate::file_table::CHAR_DEVICE;
use crate::token::{Kind, Token};

/// How often a commit that the kernel could not take is sent again.
const MAX_COMMIT_FAILURES: u8 = 16;

/// What a completion of the exchange means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// The tag carries a request.
    Request,
    /// The tag is over: the device stops.
    Aborted,
    /// The kernel could not take the tag's commit: it must be sent again with this result.
    Again(i32),
    /// The kernel refused the command for good, with this positive errno; the tag is over.
    Refused(i32),
}

/// What one tag's commands carry, and the commit to repeat if the kernel could not take it.
#[derive(Clone, Copy, Debug, Default)]
struct Tag {
    /// `sqe->addr`: where to register the next request's buffer.
    registration: u64,
    /// `ublksrv_io_cmd.addr`: where to copy the next request's data.
    memory: u64,
    committed: Option<i32>,
    failures: u8,
}

/// The exchange of one queue.
#[derive(Debug)]
pub(crate) struct PerIo {
    queue: u16,
    tags: Box<[Tag]>,
}

impl PerIo {
    pub(crate) fn new(queue: u16, depth: u16, buffers: &Buffers) -> Self {
        let tags = (0..depth).map(|tag| Tag::new(tag, buffers)).collect();
        Self { queue, tags }
    }

    /// Asks for the first request of `tag`. The caller has made room for one entry.
    pub(crate) fn fetch<R: Ring>(&mut self, ring: &mut R, tag: u16) {
        self.push(ring, UBLK_U_IO_FETCH_REQ, tag, 0);
    }

    /// Answers the request of `tag` and asks for the next. The caller has made room for one entry.
    #[inline]
    pub(crate) fn commit<R: Ring>(&mut self, ring: &mut R, tag: u16, result: i32) {
        self.tags[usize::from(tag)].committed = Some(result);
        self.push(ring, UBLK_U_IO_COMMIT_AND_FETCH_REQ, tag, result);
    }

    /// Takes the completion of a fetch or commit.
    #[inline]
    pub(crate) fn delivered(&mut self, tag: u16, result: i32) -> Delivery {
        let state = &mut self.tags[usize::from(tag)];
        match result {
            UBLK_IO_RES_OK => {
                state.failures = 0;
                Delivery::Request
            }
            UBLK_IO_RES_ABORT => Delivery::Aborted,
            _ => state.refused(-result),
        }
    }

    #[inline]
    fn push<R: Ring>(&mut self, ring: &mut R, operation: u32, tag: u16, result: i32) {
        let entry = self.entry(operation, tag, result);
        // SAFETY: the memory it may name is the tag's buffer in the queue's pool, which outlives
        // the ring's last completion (see `Reactor`).
        unsafe { ring.push(&entry) };
    }

    #[inline]
    fn entry(&self, operation: u32, tag: u16, result: i32) -> Entry {
        let state = &self.tags[usize::from(tag)];
        let command = ublksrv_io_cmd { q_id: self.queue, tag, result, addr: state.memory };
        opcode::UringCmd16::new(Fixed(CHAR_DEVICE), operation)
            .cmd(command.to_bytes())
            .addr(Some(state.registration))
            .build()
            .user_data(Token::new(Kind::Fetch, tag).pack())
    }
}

impl Tag {
    fn new(tag: u16, buffers: &Buffers) -> Self {
        let none = Self::default();
        match buffers {
            Buffers::Auto { slots } => {
                let registration = ublk_auto_buf_reg {
                    index: slots[usize::from(tag)],
                    // Without it a failed registration fails the client's request behind our
                    // back (trap 11).
                    flags: UBLK_AUTO_BUF_REG_FALLBACK,
                    ..Default::default()
                };
                Self { registration: ublk_auto_buf_reg_to_sqe_addr(&registration), ..none }
            }
            Buffers::Register { .. } => none,
            Buffers::Copy(pool) => Self { memory: pool.at(tag, 0) as u64, ..none },
        }
    }

    /// A fetch that is refused was wrong; a commit may have met a kernel short of memory.
    #[cold]
    fn refused(&mut self, errno: i32) -> Delivery {
        self.failures = self.failures.saturating_add(1);
        match self.committed {
            Some(result) if self.failures <= MAX_COMMIT_FAILURES => Delivery::Again(result),
            _ => Delivery::Refused(errno),
        }
    }
}
