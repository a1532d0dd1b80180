//! One block request, as the kernel described it.

use ublk_sys::{
    UBLK_IO_F_FAILFAST_DEV, UBLK_IO_F_FAILFAST_DRIVER, UBLK_IO_F_FAILFAST_TRANSPORT, UBLK_IO_F_FUA,
    UBLK_IO_F_INTEGRITY, UBLK_IO_F_META, UBLK_IO_F_NEED_REG_BUF, UBLK_IO_F_NOUNMAP,
    UBLK_IO_F_SHMEM_ZC, UBLK_IO_F_SWAP, UBLK_IO_OP_DISCARD, UBLK_IO_OP_FLUSH, UBLK_IO_OP_READ,
    UBLK_IO_OP_REPORT_ZONES, UBLK_IO_OP_WRITE, UBLK_IO_OP_WRITE_ZEROES, UBLK_IO_OP_ZONE_APPEND,
    UBLK_IO_OP_ZONE_CLOSE, UBLK_IO_OP_ZONE_FINISH, UBLK_IO_OP_ZONE_OPEN, UBLK_IO_OP_ZONE_RESET,
    UBLK_IO_OP_ZONE_RESET_ALL, blk_zone, ublksrv_io_desc,
};

use super::Errno;

/// What a request asks for.
// With a tag of its own, which takes one comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
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
    /// Something that only zoned devices are asked for.
    Zone(ZoneOp),
}

/// What only zoned devices are asked for. All but the first two concern the zone that begins where
/// the request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneOp {
    /// Fill the buffer with one `struct blk_zone` after another, from the zone at the request's
    /// offset on.
    Report,
    /// Empty all zones.
    ResetAll,
    /// Empty the zone.
    Reset,
    /// Keep the zone open until told otherwise.
    Open,
    /// The zone is not written for a while.
    Close,
    /// The zone is full from now on.
    Finish,
    /// Store the buffer at the zone's write pointer, and say where that was: see
    /// [`Target::plan`](super::Target::plan).
    Append,
}

impl ZoneOp {
    #[cold]
    fn of(number: u8) -> Option<Self> {
        match number {
            UBLK_IO_OP_REPORT_ZONES => Some(Self::Report),
            UBLK_IO_OP_ZONE_RESET_ALL => Some(Self::ResetAll),
            UBLK_IO_OP_ZONE_RESET => Some(Self::Reset),
            UBLK_IO_OP_ZONE_OPEN => Some(Self::Open),
            UBLK_IO_OP_ZONE_CLOSE => Some(Self::Close),
            UBLK_IO_OP_ZONE_FINISH => Some(Self::Finish),
            UBLK_IO_OP_ZONE_APPEND => Some(Self::Append),
            _ => None,
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Report => UBLK_IO_OP_REPORT_ZONES,
            Self::ResetAll => UBLK_IO_OP_ZONE_RESET_ALL,
            Self::Reset => UBLK_IO_OP_ZONE_RESET,
            Self::Open => UBLK_IO_OP_ZONE_OPEN,
            Self::Close => UBLK_IO_OP_ZONE_CLOSE,
            Self::Finish => UBLK_IO_OP_ZONE_FINISH,
            Self::Append => UBLK_IO_OP_ZONE_APPEND,
        }
    }
}

impl Op {
    /// The one that `UBLK_IO_OP_*` means, if we know it.
    #[inline(always)]
    pub fn of(number: u8) -> Option<Self> {
        // By itself, since two comparisons are less than a table of all.
        match number {
            UBLK_IO_OP_READ => Some(Self::Read),
            UBLK_IO_OP_WRITE => Some(Self::Write),
            other => Self::of_no_transfer(other),
        }
    }

    #[inline(never)]
    fn of_no_transfer(number: u8) -> Option<Self> {
        match number {
            UBLK_IO_OP_FLUSH => Some(Self::Flush),
            UBLK_IO_OP_DISCARD => Some(Self::Discard),
            UBLK_IO_OP_WRITE_ZEROES => Some(Self::WriteZeroes),
            other => ZoneOp::of(other).map(Self::Zone),
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
            Self::Zone(op) => op.number(),
        }
    }

    /// Whether requests of this kind come with a buffer.
    #[inline]
    pub fn has_data(self) -> bool {
        matches!(self, Self::Read | Self::Write | Self::Zone(ZoneOp::Report | ZoneOp::Append))
    }

    /// Whether the request's buffer is to be filled.
    #[inline]
    pub fn fills(self) -> bool {
        matches!(self, Self::Read | Self::Zone(ZoneOp::Report))
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

    /// The data lies in memory that clients have registered with the device.
    pub fn is_shared(self) -> bool {
        self.0 & UBLK_IO_F_SHMEM_ZC != 0
    }

    /// The request has metadata.
    pub fn has_metadata(self) -> bool {
        self.0 & UBLK_IO_F_INTEGRITY != 0
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
    /// How long it is, in bytes; 0 for a flush. Of a report, how long its buffer is.
    pub length: u32,
}

const SECTOR_SHIFT: u32 = 9;

const READ_OR_WRITE: u32 = (UBLK_IO_OP_READ | UBLK_IO_OP_WRITE) as u32;

#[inline(always)]
fn is_plain(op_flags: u32) -> bool {
    /// What changes nothing for whoever answers.
    const NEUTRAL: u32 = UBLK_IO_F_FAILFAST_DEV
        | UBLK_IO_F_FAILFAST_TRANSPORT
        | UBLK_IO_F_FAILFAST_DRIVER
        | UBLK_IO_F_META
        | UBLK_IO_F_SWAP;
    op_flags & !(NEUTRAL | READ_OR_WRITE) == 0
}

impl Request {
    /// Reads a descriptor.
    ///
    /// # Errors
    /// `EOPNOTSUPP` for an operation that no target of ours advertises.
    #[inline]
    pub fn parse(descriptor: &ublksrv_io_desc) -> Result<Self, Errno> {
        let op = Op::of(ublk_sys::op(descriptor.op_flags)).ok_or(Errno(libc::EOPNOTSUPP))?;
        if op == Op::Zone(ZoneOp::Report) {
            return Self::parse_report(descriptor);
        }
        Ok(Self::new(op, descriptor))
    }

    /// Reads a descriptor if its request [is plain](Self::is_plain).
    #[inline(always)]
    pub fn plain(descriptor: &ublksrv_io_desc) -> Option<Self> {
        if !is_plain(descriptor.op_flags) {
            return None;
        }
        let op = if descriptor.op_flags & READ_OR_WRITE == 0 { Op::Read } else { Op::Write };
        Some(Self::new(op, descriptor))
    }

    /// Whether it is a read or write that nothing more is said of: not that it must be durable, nor
    /// where its bytes are, nor that it has metadata.
    #[inline(always)]
    pub fn is_plain(&self) -> bool {
        is_plain(self.flags.0)
    }

    /// Its descriptor counts zones, not sectors.
    #[cold]
    fn parse_report(descriptor: &ublksrv_io_desc) -> Result<Self, Errno> {
        let length = u64::from(descriptor.nr_zones()) * size_of::<blk_zone>() as u64;
        let length = u32::try_from(length).map_err(|_| Errno(libc::EINVAL))?;
        Ok(Self { length, ..Self::new(Op::Zone(ZoneOp::Report), descriptor) })
    }

    #[inline]
    fn new(op: Op, descriptor: &ublksrv_io_desc) -> Self {
        Self {
            op,
            flags: RequestFlags(descriptor.op_flags),
            offset: descriptor.start_sector << SECTOR_SHIFT,
            // Fits: no limit that we give the kernel reaches 4 GiB.
            length: descriptor.nr_sectors << SECTOR_SHIFT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_as_long_as_its_zones_take() {
        let report = ublksrv_io_desc {
            op_flags: UBLK_IO_OP_REPORT_ZONES.into(),
            nr_sectors: 3,
            start_sector: 256,
            ..Default::default()
        };
        let request = Request::parse(&report).unwrap();
        assert_eq!((request.op, request.offset), (Op::Zone(ZoneOp::Report), 131_072));
        assert_eq!(request.length, 192);
        assert!(request.op.has_data() && request.op.fills());
    }

    #[test]
    fn plain_is_what_nothing_more_is_said_of() {
        let described = |op: u8, flags: u32| ublksrv_io_desc {
            op_flags: u32::from(op) | flags,
            nr_sectors: 8,
            start_sector: 16,
            ..Default::default()
        };
        for op in [UBLK_IO_OP_READ, UBLK_IO_OP_WRITE] {
            for harmless in [0, UBLK_IO_F_META, UBLK_IO_F_SWAP | UBLK_IO_F_FAILFAST_DEV] {
                let descriptor = described(op, harmless);
                let parsed = Request::parse(&descriptor).unwrap();
                assert_eq!(Request::plain(&descriptor), Some(parsed));
                assert!(parsed.is_plain());
            }
            for telling in [
                UBLK_IO_F_FUA,
                UBLK_IO_F_NEED_REG_BUF,
                UBLK_IO_F_SHMEM_ZC,
                UBLK_IO_F_INTEGRITY,
                // Unknown to us.
                1 << 31,
            ] {
                let descriptor = described(op, telling);
                assert_eq!(Request::plain(&descriptor), None);
                assert!(!Request::parse(&descriptor).unwrap().is_plain());
            }
        }
        for op in [UBLK_IO_OP_FLUSH, UBLK_IO_OP_DISCARD, UBLK_IO_OP_ZONE_APPEND] {
            assert_eq!(Request::plain(&described(op, 0)), None);
        }
    }

    #[test]
    fn what_nobody_advertises_is_refused() {
        let unknown = ublksrv_io_desc { op_flags: 9, ..Default::default() };
        assert_eq!(Request::parse(&unknown), Err(Errno(libc::EOPNOTSUPP)));
    }
}
