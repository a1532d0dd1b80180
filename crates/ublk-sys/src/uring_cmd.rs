//! What ublk servers need of `linux/io_uring.h` and `linux/blkdev.h` and the io-uring crate does
//! not offer.

use crate::ioctl::io;

constants! {
    /// `sqe->uring_cmd_flags`: the command uses the fixed buffer `sqe->buf_index`.
    pub const IORING_URING_CMD_FIXED: u32 = 1 << 0;
    /// `sqe->uring_cmd_flags`: one completion after another, each with a buffer of the SQE's
    /// group. Not together with FIXED.
    pub const IORING_URING_CMD_MULTISHOT: u32 = 1 << 1;
    /// All flags of `sqe->uring_cmd_flags` that are open to user space.
    pub const IORING_URING_CMD_MASK: u32 = IORING_URING_CMD_FIXED | IORING_URING_CMD_MULTISHOT;

    /// `IORING_OP_URING_CMD` on a block device: discard `sqe->addr3` bytes (the first 8 bytes
    /// of `sqe->cmd`) at byte `sqe->addr`, both multiples of the logical block size. `EOPNOTSUPP`
    /// where the device cannot. Since 6.12.
    pub const BLOCK_URING_CMD_DISCARD: u32 = io(0x12, 0);
    /// `IORING_OP_URING_CMD` on a zoned block device: empty all zones. Newer than
    /// DISCARD; Linux 7.3 has it.
    pub const BLOCK_URING_CMD_ZONE_RESET_ALL: u32 = io(0x12, 1);
}
