//! Submission entries: what steps and registrations look like to io_uring.

use io_uring::opcode;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::Fixed;
use ublk_sys::{
    BLOCK_URING_CMD_DISCARD, UBLK_U_IO_REGISTER_IO_BUF, UBLK_U_IO_UNREGISTER_IO_BUF, ublksrv_io_cmd,
};

use super::flight::Progress;
use crate::file_table::{FIRST_OF_TARGET, ZEROS};
use crate::pass::Seat;
use crate::tag::Tag;
use crate::targets::{Place, Step, StepKind};

/// Where a request's bytes are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bytes {
    /// In the buffer registered at this index.
    Slot(u16),
    /// In our own memory, at the request's start.
    Memory(*mut u8),
}

/// The entry that does what is left of `step`; none for one that is special.
#[inline(always)]
pub(super) fn step(step: &Step, progress: &Progress, bytes: Bytes, seat: Seat) -> Option<Entry> {
    let file = Fixed(seat.files + FIRST_OF_TARGET + u32::from(step.file));
    if step.place != Place::Request {
        return None;
    }
    Some(match step.kind {
        StepKind::Read | StepKind::Write { .. } => {
            let zeros = Fixed(seat.files + ZEROS);
            transfer(step, progress, bytes, if progress.zeroing { zeros } else { file })
        }
        StepKind::Zeros => transfer(step, progress, bytes, Fixed(seat.files + ZEROS)),
        StepKind::Allocate => fallocate(step, file, 0),
        StepKind::Sync => {
            opcode::Fsync::new(file).flags(io_uring::types::FsyncFlags::DATASYNC).build()
        }
        StepKind::PunchHole => {
            fallocate(step, file, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE)
        }
        StepKind::ZeroRange => {
            fallocate(step, file, libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE)
        }
        StepKind::Discard => discard(step, file),
        StepKind::Wait | StepKind::FetchMetadata | StepKind::StoreMetadata => return None,
    })
}

#[inline]
fn transfer(step: &Step, progress: &Progress, bytes: Bytes, file: Fixed) -> Entry {
    let length = step.length - progress.from;
    let at = step.at + progress.from;
    let zeros = progress.zeroing || step.kind == StepKind::Zeros;
    let offset = if zeros { 0 } else { step.offset + u64::from(progress.from) };
    let dsync = if step.kind == (StepKind::Write { dsync: true }) { libc::RWF_DSYNC } else { 0 };
    match (bytes, step.kind) {
        // In a buffer that the kernel lent, addresses are offsets from the request's start.
        (Bytes::Slot(slot), StepKind::Read | StepKind::Zeros) => {
            let address = std::ptr::without_provenance_mut(at as usize);
            opcode::ReadFixed::new(file, address, length, slot).offset(offset).build()
        }
        (Bytes::Slot(slot), _) => {
            let address = std::ptr::without_provenance(at as usize);
            opcode::WriteFixed::new(file, address, length, slot)
                .offset(offset)
                .rw_flags(dsync)
                .build()
        }
        (Bytes::Memory(base), StepKind::Read | StepKind::Zeros) => {
            opcode::Read::new(file, base.wrapping_add(at as usize), length).offset(offset).build()
        }
        (Bytes::Memory(base), _) => {
            opcode::Write::new(file, base.wrapping_add(at as usize), length)
                .offset(offset)
                .rw_flags(dsync)
                .build()
        }
    }
}

fn fallocate(step: &Step, file: Fixed, mode: i32) -> Entry {
    opcode::Fallocate::new(file, u64::from(step.length)).offset(step.offset).mode(mode).build()
}

/// The kernel reads the length from `addr3`, the first half of the command's inline data.
fn discard(step: &Step, file: Fixed) -> Entry {
    let mut command = [0_u8; 16];
    command[..8].copy_from_slice(&u64::from(step.length).to_ne_bytes());
    opcode::UringCmd16::new(file, BLOCK_URING_CMD_DISCARD)
        .addr(Some(step.offset))
        .cmd(command)
        .build()
}

/// Copies between memory (where, how many bytes) and a request's pages: into them with `out`.
pub(super) fn user_copy(
    file: Fixed,
    (memory, length): (*mut u8, u32),
    position: u64,
    out: bool,
) -> Entry {
    match out {
        true => opcode::Write::new(file, memory, length).offset(position).build(),
        false => opcode::Read::new(file, memory, length).offset(position).build(),
    }
}

/// Puts the pages of request (`queue`, `tag`) into `slot`. Answers only when it fails, unless
/// `answer`.
pub(super) fn register(file: Fixed, queue: u16, tag: Tag, slot: u16, answer: bool) -> Entry {
    let flags = if answer { Flags::empty() } else { Flags::SKIP_SUCCESS };
    buffer_command(file, UBLK_U_IO_REGISTER_IO_BUF, queue, tag, slot).flags(flags)
}

/// Empties `slot`. Always answers: the slot is free only then.
pub(super) fn unregister(file: Fixed, queue: u16, tag: Tag, slot: u16) -> Entry {
    buffer_command(file, UBLK_U_IO_UNREGISTER_IO_BUF, queue, tag, slot)
}

#[inline]
fn buffer_command(file: Fixed, operation: u32, queue: u16, tag: Tag, slot: u16) -> Entry {
    let command =
        ublksrv_io_cmd { q_id: queue, tag: tag.number(), result: 0, addr: u64::from(slot) };
    opcode::UringCmd16::new(file, operation).cmd(command.to_bytes()).build()
}
