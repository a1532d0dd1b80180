//! One block request, as the kernel described it.

use ublk_sys::{
    UBLK_IO_F_FUA, UBLK_IO_F_NEED_REG_BUF, UBLK_IO_F_NOUNMAP, UBLK_IO_OP_DISCARD, UBLK_IO_OP_FLUSH,
    UBLK_IO_OP_READ, UBLK_IO_OP_WRITE, UBLK_IO_OP_WRITE_ZEROES, ublksrv_io_desc,
};

use super::Errno;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Fill the buffer from the device.
    Read,
    /// Store the buffer on the device.
    Write,
    /// Put everything written before on stable storage.
    Flush,
    /// The range's contents are no longer needed.
    Discard,
    /// The range must read as zeros from now on.
    WriteZeroes,
}

impl Op {
    /// The one that `UBLK_IO_OP_*` means, if we know it.
    #[inline(always)]
    pub fn of(number: u8) -> Option<Self> {
        match number {
            UBLK_IO_OP_READ => Some(Self::Read),
            UBLK_IO_OP_WRITE => Some(Self::Write),
            UBLK_IO_OP_FLUSH => Some(Self::Flush),
            UBLK_IO_OP_DISCARD => Some(Self::Discard),
            UBLK_IO_OP_WRITE_ZEROES => Some(Self::WriteZeroes),
            _ => None,
        }
    }

    /// Its `UBLK_IO_OP_*`.
    #[inline]
    pub fn number(self) -> u8 {
        match self {
            Self::Read => UBLK_IO_OP_READ,
            Self::Write => UBLK_IO_OP_WRITE,
            Self::Flush => UBLK_IO_OP_FLUSH,
            Self::Discard => UBLK_IO_OP_DISCARD,
            Self::WriteZeroes => UBLK_IO_OP_WRITE_ZEROES,
        }
    }

    /// Whether requests of this kind come with a buffer.
    pub fn has_data(self) -> bool {
        matches!(self, Self::Read | Self::Write)
    }
}

/// A request's flags, `UBLK_IO_F_*`. They are tested on the whole `op_flags` word: shifting it
/// first, as the UAPI's own `ublksrv_get_flags()` does, tests the wrong bits (trap 25).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestFlags(pub u32);

impl RequestFlags {
    /// The write must be on stable storage before it completes.
    pub fn fua(self) -> bool {
        self.0 & UBLK_IO_F_FUA != 0
    }

    /// Zeros must be written without giving the range's space back.
    pub fn no_unmap(self) -> bool {
        self.0 & UBLK_IO_F_NOUNMAP != 0
    }

    /// Automatic buffer registration failed; the server must register by hand.
    pub fn needs_registration(self) -> bool {
        self.0 & UBLK_IO_F_NEED_REG_BUF != 0
    }
}

/// One block request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What it asks for.
    pub op: Op,
    /// How.
    pub flags: RequestFlags,
    /// Where it starts, in bytes.
    pub offset: u64,
    /// How long it is, in bytes; 0 for a flush.
    pub length: u32,
}

const SECTOR_SHIFT: u32 = 9;

impl Request {
    /// Reads a descriptor.
    ///
    /// # Errors
    /// `EOPNOTSUPP` for an operation that no target of ours advertises.
    #[inline]
    pub fn parse(descriptor: &ublksrv_io_desc) -> Result<Self, Errno> {
        let op = Op::of(ublk_sys::op(descriptor.op_flags)).ok_or(Errno(libc::EOPNOTSUPP))?;
        Ok(Self {
            op,
            flags: RequestFlags(descriptor.op_flags),
            offset: descriptor.start_sector << SECTOR_SHIFT,
            // Fits: no limit that we give the kernel reaches 4 GiB.
            length: descriptor.nr_sectors << SECTOR_SHIFT,
        })
    }
}
