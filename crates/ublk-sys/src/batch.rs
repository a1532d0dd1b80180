//! Commands for many tags at once: [`UBLK_F_BATCH_IO`](crate::UBLK_F_BATCH_IO). Since 7.0.
//!
//! `sqe->cmd` holds a [`ublk_batch_io`]. PREP and COMMIT find their elements at `sqe->addr`; FETCH
//! delivers tags, each a `u16`, into buffers of the SQE's buffer group.

use crate::ioctl::iowr;

const fn batch(number: u8) -> u32 {
    iowr::<ublk_batch_io>(b'u', number)
}

constants! {
    /// Arms tags for the first time. All or nothing: 0, or an error and no tag armed. `E2BIG`:
    /// more elements than the queue has tags.
    pub const UBLK_U_IO_PREP_IO_CMDS: u32 = batch(0x25);
    /// Answers requests and arms their tags again. Completes with the bytes of the buffer that
    /// were handled, which can be fewer than all; an error means none.
    pub const UBLK_U_IO_COMMIT_IO_CMDS: u32 = batch(0x26);
    /// Delivers the tags of new requests, multishot: needs
    /// [`IORING_URING_CMD_MULTISHOT`](crate::IORING_URING_CMD_MULTISHOT) and a buffer group, with
    /// `elem_bytes` 2 and `flags` 0. After `ENOBUFS` it must be issued again.
    pub const UBLK_U_IO_FETCH_IO_CMDS: u32 = batch(0x27);

    /// Each element carries the sector of its zone append, 8 bytes. Zoned devices only.
    pub const UBLK_BATCH_F_HAS_ZONE_LBA: u16 = 1 << 0;
    /// Each element carries the address of its buffer, 8 bytes. Copy mode only.
    pub const UBLK_BATCH_F_HAS_BUF_ADDR: u16 = 1 << 1;
    /// [`UBLK_AUTO_BUF_REG_FALLBACK`](crate::UBLK_AUTO_BUF_REG_FALLBACK) for every element.
    pub const UBLK_BATCH_F_AUTO_BUF_REG_FALLBACK: u16 = 1 << 2;
}

/// The fixed part of an element. After it, as the batch's flags say, the buffer's address and then
/// the sector of the zone append, a `u64` each.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub struct ublk_elem_header {
    /// The tag.
    pub tag: u16,
    /// Where the tag's next request goes in the buffer table; with
    /// [`UBLK_F_AUTO_BUF_REG`](crate::UBLK_F_AUTO_BUF_REG) only.
    pub buf_index: u16,
    /// COMMIT only: bytes done, or a negative errno.
    pub result: i32,
}

layout!(ublk_elem_header, size 8, padding 0, { tag: 0, buf_index: 2, result: 4 });

/// The argument of the batch commands, in `sqe->cmd`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub struct ublk_batch_io {
    /// The queue.
    pub q_id: u16,
    /// `UBLK_BATCH_F_*`.
    pub flags: u16,
    /// Number of elements, at most the queue's depth.
    pub nr_elem: u16,
    /// Bytes of each element: 8, and 8 more for each of HAS_ZONE_LBA and HAS_BUF_ADDR; 2 for
    /// FETCH. `EINVAL` otherwise.
    pub elem_bytes: u8,
    /// Zero.
    pub reserved: u8,
    /// Zero.
    pub reserved2: u64,
}

layout!(ublk_batch_io, size 16, padding 0, {
    q_id: 0, flags: 2, nr_elem: 4, elem_bytes: 6, reserved: 7, reserved2: 8,
});
to_bytes!(ublk_elem_header, ublk_batch_io);
