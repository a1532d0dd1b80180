//! Integrity data: [`UBLK_F_INTEGRITY`](crate::UBLK_F_INTEGRITY). Since 7.0. The `LBMD_*` come from
//! `linux/fs.h`.

constants! {
    /// [`ublk_param_integrity::flags`]: the device checks integrity data.
    pub const LBMD_PI_CAP_INTEGRITY: u32 = 1 << 0;
    /// [`ublk_param_integrity::flags`]: the device checks reference tags. Not with
    /// [`LBMD_PI_CSUM_NONE`].
    pub const LBMD_PI_CAP_REFTAG: u32 = 1 << 1;

    /// [`ublk_param_integrity::csum_type`]: no checksum.
    pub const LBMD_PI_CSUM_NONE: u8 = 0;
    /// [`ublk_param_integrity::csum_type`]: the IP checksum.
    pub const LBMD_PI_CSUM_IP: u8 = 1;
    /// [`ublk_param_integrity::csum_type`]: the CRC-16 of T10 DIF.
    pub const LBMD_PI_CSUM_CRC16_T10DIF: u8 = 2;
    /// [`ublk_param_integrity::csum_type`]: the CRC-64 of NVMe.
    pub const LBMD_PI_CSUM_CRC64_NVME: u8 = 4;
}

/// Integrity data of a device.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub struct ublk_param_integrity {
    /// `LBMD_PI_CAP_*`.
    pub flags: u32,
    /// Most segments of a request's integrity data; 0 for no limit.
    pub max_integrity_segments: u16,
    /// Data per piece of metadata as a power of two: 9 to the logical block size.
    pub interval_exp: u8,
    /// Bytes of metadata per interval; not 0.
    pub metadata_size: u8,
    /// Where in the metadata the protection information begins, in bytes; it must fit.
    pub pi_offset: u8,
    /// One of `LBMD_PI_CSUM_*`.
    pub csum_type: u8,
    /// Bytes of the application tag.
    pub tag_size: u8,
    /// Zero.
    pub pad: [u8; 5],
}

layout!(ublk_param_integrity, size 16, padding 0, {
    flags: 0, max_integrity_segments: 4, interval_exp: 6, metadata_size: 7, pi_offset: 8,
    csum_type: 9, tag_size: 10, pad: 11,
});
