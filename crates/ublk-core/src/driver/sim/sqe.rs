//! A submission entry, as the kernel reads it.

use io_uring::squeue::Entry;
use ublk_sys::{ublk_batch_io, ublksrv_io_cmd};

pub(super) const OP_NOP: u8 = 0;
pub(super) const OP_FSYNC: u8 = 3;
pub(super) const OP_READ_FIXED: u8 = 4;
pub(super) const OP_WRITE_FIXED: u8 = 5;
pub(super) const OP_POLL_ADD: u8 = 6;
pub(super) const OP_SENDMSG: u8 = 9;
pub(super) const OP_TIMEOUT: u8 = 11;
pub(super) const OP_ASYNC_CANCEL: u8 = 14;
pub(super) const OP_FALLOCATE: u8 = 17;
pub(super) const OP_READ: u8 = 22;
pub(super) const OP_WRITE: u8 = 23;
pub(super) const OP_SEND: u8 = 26;
pub(super) const OP_RECV: u8 = 27;
pub(super) const OP_URING_CMD: u8 = 46;

pub(super) const FIXED_FILE: u8 = 1 << 0;
pub(super) const LINK: u8 = 1 << 2;
pub(super) const HARDLINK: u8 = 1 << 3;
pub(super) const ASYNC: u8 = 1 << 4;
pub(super) const BUFFER_SELECT: u8 = 1 << 5;
pub(super) const SKIP_SUCCESS: u8 = 1 << 6;
pub(super) const KNOWN_FLAGS: u8 =
    FIXED_FILE | LINK | HARDLINK | ASYNC | BUFFER_SELECT | SKIP_SUCCESS;

/// `struct io_uring_sqe`, with the names of the unions' members that we use.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Sqe {
    pub(super) opcode: u8,
    pub(super) flags: u8,
    pub(super) ioprio: u16,
    pub(super) fd: i32,
    pub(super) off: u64,
    pub(super) addr: u64,
    pub(super) len: u32,
    pub(super) op_flags: u32,
    pub(super) user_data: u64,
    pub(super) buf_index: u16,
    pub(super) personality: u16,
    pub(super) file_index: u32,
    pub(super) addr3: u64,
    pub(super) pad: u64,
}

const _: () = assert!(size_of::<Sqe>() == size_of::<Entry>());

impl Sqe {
    pub(super) fn new(entry: &Entry) -> Self {
        // SAFETY: `Entry` is a transparent-sized `repr(C)` wrapper of `struct io_uring_sqe`; both
        // are 64 bytes of integers, valid for every bit pattern.
        unsafe { std::ptr::from_ref(entry).cast::<Self>().read_unaligned() }
    }

    /// URING_CMD: which command, and the padding beside it.
    pub(super) fn cmd_op(&self) -> (u32, u32) {
        let bytes = self.off.to_ne_bytes();
        let half = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|i| bytes[at + i]));
        (half(0), half(4))
    }

    /// URING_CMD on `/dev/ublkcN`: its 16 bytes of argument.
    pub(super) fn io_cmd(&self) -> ublksrv_io_cmd {
        let head = self.addr3.to_ne_bytes();
        ublksrv_io_cmd {
            q_id: u16::from_ne_bytes([head[0], head[1]]),
            tag: u16::from_ne_bytes([head[2], head[3]]),
            result: i32::from_ne_bytes([head[4], head[5], head[6], head[7]]),
            addr: self.pad,
        }
    }

    /// A batch command: what stands in the place of [`io_cmd`](Self::io_cmd).
    pub(super) fn batch_io(&self) -> ublk_batch_io {
        let head = self.addr3.to_ne_bytes();
        ublk_batch_io {
            q_id: u16::from_ne_bytes([head[0], head[1]]),
            flags: u16::from_ne_bytes([head[2], head[3]]),
            nr_elem: u16::from_ne_bytes([head[4], head[5]]),
            elem_bytes: head[6],
            reserved: head[7],
            reserved2: self.pad,
        }
    }

    pub(super) fn links(&self) -> bool {
        self.flags & (LINK | HARDLINK) != 0
    }

    pub(super) fn is_read(&self) -> bool {
        matches!(self.opcode, OP_READ | OP_READ_FIXED)
    }

    pub(super) fn is_fixed(&self) -> bool {
        matches!(self.opcode, OP_READ_FIXED | OP_WRITE_FIXED)
    }

    pub(super) fn moves_data(&self) -> bool {
        matches!(self.opcode, OP_READ | OP_WRITE | OP_READ_FIXED | OP_WRITE_FIXED)
    }

    /// Whether the operation is one of sockets.
    pub(super) fn is_of_socket(&self) -> bool {
        matches!(self.opcode, OP_SEND | OP_SENDMSG | OP_RECV)
    }

    pub(super) fn is_known(&self) -> bool {
        const OTHERS: [u8; 10] = [
            OP_SEND,
            OP_SENDMSG,
            OP_RECV,
            OP_NOP,
            OP_FSYNC,
            OP_POLL_ADD,
            OP_TIMEOUT,
            OP_ASYNC_CANCEL,
            OP_FALLOCATE,
            OP_URING_CMD,
        ];
        self.moves_data() || OTHERS.contains(&self.opcode)
    }

    /// For traces.
    pub(super) fn describe(&self) -> String {
        let name = match self.opcode {
            OP_READ => "READ",
            OP_WRITE => "WRITE",
            OP_READ_FIXED => "READ_FIXED",
            OP_WRITE_FIXED => "WRITE_FIXED",
            OP_FSYNC => return format!("FSYNC of {}", self.fd),
            OP_FALLOCATE => {
                let (mode, offset, length) = (self.len, self.off, self.addr);
                return format!("FALLOCATE {mode:#x} of {}: {offset} + {length}", self.fd);
            }
            OP_URING_CMD => return format!("command {:#x} {:?}", self.cmd_op().0, self.io_cmd()),
            _ => return format!("{self:?}"),
        };
        let Self { fd, off, addr, len, buf_index, .. } = self;
        format!("{name} of {fd}: {off} + {len}, memory {addr:#x}, slot {buf_index}")
    }
}
