//! What can be asked of `/dev/ublkbN`.

use ublk_sys::{
    UBLK_IO_F_FUA, UBLK_IO_F_NOUNMAP, UBLK_IO_OP_DISCARD, UBLK_IO_OP_FLUSH, UBLK_IO_OP_READ,
    UBLK_IO_OP_REPORT_ZONES, UBLK_IO_OP_WRITE, UBLK_IO_OP_WRITE_ZEROES, UBLK_IO_OP_ZONE_APPEND,
    UBLK_IO_OP_ZONE_CLOSE, UBLK_IO_OP_ZONE_FINISH, UBLK_IO_OP_ZONE_OPEN, UBLK_IO_OP_ZONE_RESET,
    UBLK_IO_OP_ZONE_RESET_ALL, blk_zone, ublk_params,
};

use crate::driver::sim::block::layer::{BlockRequest, POISON};

/// A block request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientOp {
    /// Reads this many bytes.
    Read {
        /// Where, in bytes.
        offset: u64,
        /// How many bytes.
        length: u32,
    },
    /// Writes these bytes.
    Write {
        /// Where, in bytes.
        offset: u64,
        /// What.
        data: Vec<u8>,
        /// Durable before it completes.
        fua: bool,
    },
    /// Makes everything that has completed durable.
    Flush,
    /// Gives a range up.
    Discard {
        /// Where, in bytes.
        offset: u64,
        /// How many bytes.
        length: u32,
    },
    /// Makes a range read as zeros.
    WriteZeroes {
        /// Where, in bytes.
        offset: u64,
        /// How many bytes.
        length: u32,
        /// The range must keep its space.
        no_unmap: bool,
    },
    /// Writes these bytes wherever the write pointer of a zone is.
    Append {
        /// The start of the zone, in bytes.
        zone: u64,
        /// What.
        data: Vec<u8>,
    },
    /// Reads the state of zones: a `struct blk_zone` each.
    ReportZones {
        /// The start of the first, in bytes.
        first: u64,
        /// How many.
        count: u32,
    },
    /// Changes the state of a zone.
    Zone {
        /// How.
        action: ZoneAction,
        /// Its start, in bytes; 0 for all.
        zone: u64,
    },
}

/// What can be done to a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneAction {
    /// It stays open until told otherwise.
    Open,
    /// It is not written for a while.
    Close,
    /// It is full from now on.
    Finish,
    /// It is emptied.
    Reset,
    /// All are emptied.
    ResetAll,
}

impl ZoneAction {
    fn op(self) -> u8 {
        match self {
            Self::Open => UBLK_IO_OP_ZONE_OPEN,
            Self::Close => UBLK_IO_OP_ZONE_CLOSE,
            Self::Finish => UBLK_IO_OP_ZONE_FINISH,
            Self::Reset => UBLK_IO_OP_ZONE_RESET,
            Self::ResetAll => UBLK_IO_OP_ZONE_RESET_ALL,
        }
    }
}

impl ClientOp {
    pub(crate) fn to_request(&self, device: usize, queue: u16) -> BlockRequest {
        let length_of = |data: &[u8]| u32::try_from(data.len()).expect("within the limits");
        let (op, flags, offset, left, data) = match self {
            Self::Read { offset, length } => {
                (UBLK_IO_OP_READ, 0, *offset, *length, vec![POISON; *length as usize])
            }
            Self::Write { offset, data, fua } => {
                let flags = if *fua { UBLK_IO_F_FUA } else { 0 };
                (UBLK_IO_OP_WRITE, flags, *offset, length_of(data), data.clone())
            }
            Self::Flush => (UBLK_IO_OP_FLUSH, 0, 0, 0, Vec::new()),
            Self::Discard { offset, length } => {
                (UBLK_IO_OP_DISCARD, 0, *offset, *length, Vec::new())
            }
            Self::WriteZeroes { offset, length, no_unmap } => {
                let flags = if *no_unmap { UBLK_IO_F_NOUNMAP } else { 0 };
                (UBLK_IO_OP_WRITE_ZEROES, flags, *offset, *length, Vec::new())
            }
            Self::Append { zone, data } => {
                (UBLK_IO_OP_ZONE_APPEND, 0, *zone, length_of(data), data.clone())
            }
            Self::ReportZones { first, count } => {
                // The kernel hands zeros over: a zone without a length is the end.
                let data = vec![0; *count as usize * size_of::<blk_zone>()];
                (UBLK_IO_OP_REPORT_ZONES, 0, *first, length_of(&data), data)
            }
            Self::Zone { action, zone } => (action.op(), 0, *zone, 0, Vec::new()),
        };
        BlockRequest {
            device,
            queue,
            tag: None,
            op,
            flags,
            offset,
            left,
            done: 0,
            data,
            metadata: Vec::new(),
            landed: None,
            lost: 0,
            memory: None,
            place: None,
            started: false,
            counted: false,
            since: None,
            flush_after: false,
            outcome: None,
            unasked: false,
        }
    }

    /// The longest that the device takes in one request, in sectors; none for what has no length.
    pub(crate) fn limit(&self, params: &ublk_params) -> Option<u32> {
        match self {
            Self::Discard { .. } => Some(params.discard.max_discard_sectors),
            Self::WriteZeroes { .. } => Some(params.discard.max_write_zeroes_sectors),
            Self::Append { .. } => Some(params.zoned.max_zone_append_sectors),
            Self::Zone { .. } => None,
            _ => Some(params.basic.max_sectors),
        }
    }

    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Write { offset, data, fua } => {
                format!("Write {{ offset: {offset}, {} bytes, fua: {fua} }}", data.len())
            }
            Self::Append { zone, data } => {
                format!("Append {{ zone: {zone}, {} bytes }}", data.len())
            }
            other => format!("{other:?}"),
        }
    }
}
