//! A submission entry, as the kernel reads it.

use io_uring::squeue::Entry;
use ublk_sys::{ublk_batch_io, ublksrv_io_cmd};

pub(crate) const OP_NOP: u8 = 0;
pub(crate) const OP_FSYNC: u8 = 3;
pub(crate) const OP_READ_FIXED: u8 = 4;
pub(crate) const OP_WRITE_FIXED: u8 = 5;
pub(crate) const OP_POLL_ADD: u8 = 6;
pub(crate) const OP_SENDMSG: u8 = 9;
pub(crate) const OP_TIMEOUT: u8 = 11;
pub(crate) const OP_ASYNC_CANCEL: u8 = 14;
pub(crate) const OP_FALLOCATE: u8 = 17;
pub(crate) const OP_READ: u8 = 22;
pub(crate) const OP_WRITE: u8 = 23;
pub(crate) const OP_SEND: u8 = 26;
pub(crate) const OP_RECV: u8 = 27;
pub(crate) const OP_URING_CMD: u8 = 46;

pub(crate) const FIXED_FILE: u8 = 1 << 0;
pub(crate) const LINK: u8 = 1 << 2;
pub(crate) const HARDLINK: u8 = 1 << 3;
pub(crate) const ASYNC: u8 = 1 << 4;
pub(crate) const BUFFER_SELECT: u8 = 1 << 5;
pub(crate) const SKIP_SUCCESS: u8 = 1 << 6;
pub(crate) const KNOWN_FLAGS: u8 =
    FIXED_FILE | LINK | HARDLINK | ASYNC | BUFFER_SELECT | SKIP_SUCCESS;

/// `struct io_uring_sqe`, with the names of the unions' members that we use.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sqe {
    pub(crate) opcode: u8,
    pub(crate) flags: u8,
    pub(crate) ioprio: u16,
    pub(crate) fd: i32,
    pub(crate) off: u64,
    pub(crate) addr: u64,
    pub(crate) len: u32,
    pub(crate) op_flags: u32,
    pub(crate) user_data: u64,
    pub(crate) buf_index: u16,
    pub(crate) personality: u16,
    pub(crate) file_index: u32,
    pub(crate) addr3: u64,
    pub(crate) pad: u64,
}

const _: () = assert!(size_of::<Sqe>() == size_of::<Entry>());

impl Sqe {
    pub(crate) fn new(entry: &Entry) -> Self {
        // SAFETY: `Entry` is a transparent-sized `repr(C)` wrapper of `struct io_uring_sqe`; both
        // are 64 bytes of integers, valid for every bit pattern.
        unsafe { std::ptr::from_ref(entry).cast::<Self>().read_unaligned() }
    }

    /// URING_CMD: which command, and the padding beside it.
    pub(crate) fn cmd_op(&self) -> (u32, u32) {
        let bytes = self.off.to_ne_bytes();
        let half = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|i| bytes[at + i]));
        (half(0), half(4))
    }

    /// URING_CMD on `/dev/ublkcN`: its 16 bytes of argument.
    pub(crate) fn io_cmd(&self) -> ublksrv_io_cmd {
        let head = self.addr3.to_ne_bytes();
        ublksrv_io_cmd {
            q_id: u16::from_ne_bytes([head[0], head[1]]),
            tag: u16::from_ne_bytes([head[2], head[3]]),
            result: i32::from_ne_bytes([head[4], head[5], head[6], head[7]]),
            addr: self.pad,
        }
    }

    /// A batch command: what stands in the place of [`io_cmd`](Self::io_cmd).
    pub(crate) fn batch_io(&self) -> ublk_batch_io {
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

    pub(crate) fn links(&self) -> bool {
        self.flags & (LINK | HARDLINK) != 0
    }

    pub(crate) fn is_read(&self) -> bool {
        matches!(self.opcode, OP_READ | OP_READ_FIXED)
    }

    pub(crate) fn is_fixed(&self) -> bool {
        matches!(self.opcode, OP_READ_FIXED | OP_WRITE_FIXED)
    }

    pub(crate) fn moves_data(&self) -> bool {
        matches!(self.opcode, OP_READ | OP_WRITE | OP_READ_FIXED | OP_WRITE_FIXED)
    }

    /// Whether the operation is one of sockets.
    pub(crate) fn is_of_socket(&self) -> bool {
        matches!(self.opcode, OP_SEND | OP_SENDMSG | OP_RECV)
    }

    pub(crate) fn is_known(&self) -> bool {
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
    pub(crate) fn describe(&self) -> String {
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
