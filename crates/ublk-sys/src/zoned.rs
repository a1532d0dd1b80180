//! Zone reports: the part of `linux/blkzoned.h` that answers
//! [`UBLK_IO_OP_REPORT_ZONES`](crate::UBLK_IO_OP_REPORT_ZONES). Since 6.6.

constants! {
    /// [`blk_zone::type_`]: no write pointer, written anywhere.
    pub const BLK_ZONE_TYPE_CONVENTIONAL: u8 = 1;
    /// [`blk_zone::type_`]: written at the write pointer only.
    pub const BLK_ZONE_TYPE_SEQWRITE_REQ: u8 = 2;
    /// [`blk_zone::type_`]: best written at the write pointer.
    pub const BLK_ZONE_TYPE_SEQWRITE_PREF: u8 = 3;

    /// [`blk_zone::cond`]: no write pointer.
    pub const BLK_ZONE_COND_NOT_WP: u8 = 0;
    /// [`blk_zone::cond`]: empty.
    pub const BLK_ZONE_COND_EMPTY: u8 = 1;
    /// [`blk_zone::cond`]: opened by a write.
    pub const BLK_ZONE_COND_IMP_OPEN: u8 = 2;
    /// [`blk_zone::cond`]: opened by ZONE_OPEN.
    pub const BLK_ZONE_COND_EXP_OPEN: u8 = 3;
    /// [`blk_zone::cond`]: closed, partly written.
    pub const BLK_ZONE_COND_CLOSED: u8 = 4;
    /// [`blk_zone::cond`]: can only be read.
    pub const BLK_ZONE_COND_READONLY: u8 = 13;
    /// [`blk_zone::cond`]: full.
    pub const BLK_ZONE_COND_FULL: u8 = 14;
    /// [`blk_zone::cond`]: can be neither read nor written.
    pub const BLK_ZONE_COND_OFFLINE: u8 = 15;
    /// [`blk_zone::cond`]: open or closed, in the kernel's cached reports only; a server never
    /// answers it. Since 6.19.
    pub const BLK_ZONE_COND_ACTIVE: u8 = 255;
}

/// One zone of a report. All positions and lengths are in sectors.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub struct blk_zone {
    /// First sector.
    pub start: u64,
    /// Length.
    pub len: u64,
    /// The write pointer.
    pub wp: u64,
    /// One of `BLK_ZONE_TYPE_*`; C calls it `type`.
    pub type_: u8,
    /// One of `BLK_ZONE_COND_*`.
    pub cond: u8,
    /// Whether the zone uses resources for non-sequential writes.
    pub non_seq: u8,
    /// Whether a reset is recommended.
    pub reset: u8,
    /// Zero.
    pub resv: [u8; 4],
    /// How much of the zone can be used.
    pub capacity: u64,
    /// Zero.
    pub reserved: [u8; 24],
}

layout!(blk_zone, size 64, padding 0, {
    start: 0, len: 8, wp: 16, type_: 24, cond: 25, non_seq: 26, reset: 27, resv: 28, capacity: 32,
    reserved: 40,
});
to_bytes!(blk_zone);
