//! Parameters of a device, for [`UBLK_U_CMD_SET_PARAMS`](crate::UBLK_U_CMD_SET_PARAMS). What the
//! kernel refuses, it refuses with `EINVAL` and keeps nothing of the set.

use crate::ublk_param_integrity;

constants! {
    /// [`ublk_param_basic::attrs`]: nobody may write. Since 6.0, as all of these.
    pub const UBLK_ATTR_READ_ONLY: u32 = 1 << 0;
    /// [`ublk_param_basic::attrs`]: seeks cost time.
    pub const UBLK_ATTR_ROTATIONAL: u32 = 1 << 1;
    /// [`ublk_param_basic::attrs`]: acknowledged writes may be lost until a FLUSH. Without it the
    /// kernel never sends one.
    pub const UBLK_ATTR_VOLATILE_CACHE: u32 = 1 << 2;
    /// [`ublk_param_basic::attrs`]: the server honours
    /// [`UBLK_IO_F_FUA`](crate::UBLK_IO_F_FUA). Only with VOLATILE_CACHE.
    pub const UBLK_ATTR_FUA: u32 = 1 << 3;

    /// [`ublk_params::types`]: `basic` is set. It must be.
    pub const UBLK_PARAM_TYPE_BASIC: u32 = 1 << 0;
    /// [`ublk_params::types`]: `discard` is set.
    pub const UBLK_PARAM_TYPE_DISCARD: u32 = 1 << 1;
    /// [`ublk_params::types`]: `devt` is filled; read-only. Since 6.3.
    pub const UBLK_PARAM_TYPE_DEVT: u32 = 1 << 2;
    /// [`ublk_params::types`]: `zoned` is set. A zoned device must, no other may. Since 6.6.
    pub const UBLK_PARAM_TYPE_ZONED: u32 = 1 << 3;
    /// [`ublk_params::types`]: `dma` is set. Since 6.15.
    pub const UBLK_PARAM_TYPE_DMA_ALIGN: u32 = 1 << 4;
    /// [`ublk_params::types`]: `seg` is set. Since 6.15.
    pub const UBLK_PARAM_TYPE_SEGMENT: u32 = 1 << 5;
    /// [`ublk_params::types`]: `integrity` is set. Needs
    /// [`UBLK_F_INTEGRITY`](crate::UBLK_F_INTEGRITY). Since 7.0.
    pub const UBLK_PARAM_TYPE_INTEGRITY: u32 = 1 << 6;

    /// Least [`max_segment_size`](ublk_param_segment::max_segment_size), in bytes, and least
    /// boundary.
    pub const UBLK_MIN_SEGMENT_SIZE: u32 = 4096;
}

/// What every device has.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub struct ublk_param_basic {
    /// `UBLK_ATTR_*`.
    pub attrs: u32,
    /// Logical block size as a power of two: 9 to the shift of the machine's page size.
    pub logical_bs_shift: u8,
    /// Physical block size as a power of two: at least the logical one, at most 28.
    pub physical_bs_shift: u8,
    /// Preferred size of I/O as a power of two, at most 28; 0 for none.
    pub io_opt_shift: u8,
    /// Least size of I/O without penalty as a power of two, at most 28.
    pub io_min_shift: u8,
    /// Longest request in sectors: at least a page, at most
    /// [`max_io_buf_bytes`](crate::ublksrv_ctrl_dev_info::max_io_buf_bytes).
    pub max_sectors: u32,
    /// No request crosses a multiple of this many sectors; 0 for none. On a zoned device the size
    /// of a zone, a power of two.
    pub chunk_sectors: u32,
    /// Capacity in sectors.
    pub dev_sectors: u64,
    /// Segments of a request meet at multiples of this mask + 1 bytes; 0 for no such rule.
    pub virt_boundary_mask: u64,
}

layout!(ublk_param_basic, size 32, padding 0, {
    attrs: 0, logical_bs_shift: 4, physical_bs_shift: 5, io_opt_shift: 6, io_min_shift: 7,
    max_sectors: 8, chunk_sectors: 12, dev_sectors: 16, virt_boundary_mask: 24,
});

/// DISCARD and WRITE_ZEROES.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub struct ublk_param_discard {
    /// Offset of the first granule, in bytes.
    pub discard_alignment: u32,
    /// Granule of DISCARD in bytes; not 0.
    pub discard_granularity: u32,
    /// Longest DISCARD in sectors; 0 for no DISCARD.
    pub max_discard_sectors: u32,
    /// Longest WRITE_ZEROES in sectors; 0 for no WRITE_ZEROES.
    pub max_write_zeroes_sectors: u32,
    /// Ranges of one DISCARD: 1, unless there is no DISCARD.
    pub max_discard_segments: u16,
    /// Zero.
    pub reserved0: u16,
}

layout!(ublk_param_discard, size 20, padding 0, {
    discard_alignment: 0, discard_granularity: 4, max_discard_sectors: 8,
    max_write_zeroes_sectors: 12, max_discard_segments: 16, reserved0: 18,
});

/// Device numbers, told by GET_PARAMS. Since 6.3.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub struct ublk_param_devt {
    /// Major number of `/dev/ublkcN`.
    pub char_major: u32,
    /// Minor number of `/dev/ublkcN`.
    pub char_minor: u32,
    /// Major number of `/dev/ublkbN`; 0 before START_DEV.
    pub disk_major: u32,
    /// Minor number of `/dev/ublkbN`; 0 before START_DEV.
    pub disk_minor: u32,
}

layout!(ublk_param_devt, size 16, padding 0, {
    char_major: 0, char_minor: 4, disk_major: 8, disk_minor: 12,
});

/// Zones. Since 6.6.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub struct ublk_param_zoned {
    /// Most zones open at once, at most all; 0 for no limit.
    pub max_open_zones: u32,
    /// Most zones active at once, at most all; 0 for no limit.
    pub max_active_zones: u32,
    /// Longest zone append in sectors; not 0.
    pub max_zone_append_sectors: u32,
    /// Zero.
    pub reserved: [u8; 20],
}

layout!(ublk_param_zoned, size 32, padding 0, {
    max_open_zones: 0, max_active_zones: 4, max_zone_append_sectors: 8, reserved: 12,
});

/// Alignment of request memory: zero copy hands the client's pages to the backend as they are.
/// Since 6.15.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub struct ublk_param_dma_align {
    /// A mask: 511 for memory aligned to 512 bytes. Below the page size.
    pub alignment: u32,
    /// Zero.
    pub pad: [u8; 4],
}

layout!(ublk_param_dma_align, size 8, padding 0, { alignment: 0, pad: 4 });

/// Segments of a request, for backends that have limits of their own. All three must be set: with
/// a 0 among them the behaviour is undefined. Since 6.15.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub struct ublk_param_segment {
    /// No segment crosses a multiple of this mask + 1 bytes, a power of two of at least
    /// [`UBLK_MIN_SEGMENT_SIZE`].
    pub seg_boundary_mask: u64,
    /// Longest segment in bytes, at least [`UBLK_MIN_SEGMENT_SIZE`]. `virt_boundary_mask` can
    /// overrule it.
    pub max_segment_size: u32,
    /// Most segments of a request.
    pub max_segments: u16,
    /// Zero.
    pub pad: [u8; 2],
}

layout!(ublk_param_segment, size 16, padding 0, {
    seg_boundary_mask: 0, max_segment_size: 8, max_segments: 12, pad: 14,
});

/// All parameters. Older kernels know a shorter struct: they take and give as much as they know.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub struct ublk_params {
    /// Size of the struct in bytes; to be set for SET_PARAMS and for GET_PARAMS.
    pub len: u32,
    /// Which of the following count: `UBLK_PARAM_TYPE_*`. The kernel clears what it does not know.
    pub types: u32,
    /// With [`UBLK_PARAM_TYPE_BASIC`].
    pub basic: ublk_param_basic,
    /// With [`UBLK_PARAM_TYPE_DISCARD`].
    pub discard: ublk_param_discard,
    /// With [`UBLK_PARAM_TYPE_DEVT`].
    pub devt: ublk_param_devt,
    /// With [`UBLK_PARAM_TYPE_ZONED`].
    pub zoned: ublk_param_zoned,
    /// With [`UBLK_PARAM_TYPE_DMA_ALIGN`].
    pub dma: ublk_param_dma_align,
    /// With [`UBLK_PARAM_TYPE_SEGMENT`].
    pub seg: ublk_param_segment,
    /// With [`UBLK_PARAM_TYPE_INTEGRITY`].
    pub integrity: ublk_param_integrity,
}

// Fails to compile for i386, on purpose: a u64 is aligned to 4 bytes there, and a 64-bit kernel
// would read `seg` elsewhere.
layout!(ublk_params, size 152, padding 4, {
    len: 0, types: 4, basic: 8, discard: 40, devt: 60, zoned: 76, dma: 108, seg: 120,
    integrity: 136,
});
