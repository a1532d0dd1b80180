//! ublk_validate_params, and structs as the bytes that commands carry.

use ublk_sys::{
    LBMD_PI_CAP_REFTAG, LBMD_PI_CSUM_CRC64_NVME, LBMD_PI_CSUM_NONE, UBLK_F_INTEGRITY, UBLK_F_ZONED,
    UBLK_MIN_SEGMENT_SIZE, UBLK_PARAM_TYPE_BASIC, UBLK_PARAM_TYPE_DEVT, UBLK_PARAM_TYPE_DISCARD,
    UBLK_PARAM_TYPE_DMA_ALIGN, UBLK_PARAM_TYPE_INTEGRITY, UBLK_PARAM_TYPE_SEGMENT,
    UBLK_PARAM_TYPE_ZONED, ublk_param_basic, ublk_params, ublk_shmem_buf_reg,
    ublksrv_ctrl_dev_info,
};

const PAGE: u32 = 4096;
const PAGE_SECTORS: u32 = PAGE >> 9;
/// ilog2(SZ_256M).
const MAX_SHIFT: u8 = 28;

/// The parameters that `bytes` holds; what is missing at the end is zero.
pub(crate) fn parse_params(bytes: &[u8]) -> ublk_params {
    parse(bytes)
}

/// The device information that `bytes` holds.
pub(crate) fn parse_info(bytes: &[u8]) -> ublksrv_ctrl_dev_info {
    parse(bytes)
}

/// The memory that REG_BUF asks for.
pub(crate) fn parse_shared(bytes: &[u8]) -> ublk_shmem_buf_reg {
    parse(bytes)
}

fn parse<T: Copy>(bytes: &[u8]) -> T {
    let mut whole = [0_u8; 256];
    assert!(size_of::<T>() <= whole.len());
    let length = bytes.len().min(size_of::<T>());
    whole[..length].copy_from_slice(&bytes[..length]);
    // SAFETY: `whole` is long enough; all callers want structs of integers, for which every bit
    // pattern is valid.
    unsafe { whole.as_ptr().cast::<T>().read_unaligned() }
}

/// The bytes of a device's information.
pub(crate) fn info_bytes(info: &ublksrv_ctrl_dev_info) -> &[u8] {
    // SAFETY: a struct of integers without padding (asserted in ublk-sys), so all its bytes are
    // initialised; they live as long as `info`.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(info).cast::<u8>(), size_of_val(info)) }
}

pub(crate) fn validate(params: &ublk_params, info: &ublksrv_ctrl_dev_info) -> Result<(), i32> {
    let has = |kind: u32| params.types & kind != 0;
    let (discard, segment) = (&params.discard, &params.seg);
    let boundary = segment.seg_boundary_mask.wrapping_add(1);
    let valid = has(UBLK_PARAM_TYPE_BASIC)
        && valid_basic(&params.basic, info)
        && !(has(UBLK_PARAM_TYPE_DISCARD)
            && (discard.discard_granularity == 0
                || discard.max_discard_sectors != 0 && discard.max_discard_segments != 1))
        && !has(UBLK_PARAM_TYPE_DEVT)
        && has(UBLK_PARAM_TYPE_ZONED) == (info.flags & UBLK_F_ZONED != 0)
        && (!has(UBLK_PARAM_TYPE_ZONED) || valid_zones(params))
        && (!has(UBLK_PARAM_TYPE_INTEGRITY)
            || info.flags & UBLK_F_INTEGRITY != 0 && params.integrity.metadata_size > 0)
        && !(has(UBLK_PARAM_TYPE_DMA_ALIGN)
            && (params.dma.alignment >= PAGE || !(params.dma.alignment + 1).is_power_of_two()))
        && !(has(UBLK_PARAM_TYPE_SEGMENT)
            && (!boundary.is_power_of_two()
                || boundary < u64::from(UBLK_MIN_SEGMENT_SIZE)
                || segment.max_segment_size < UBLK_MIN_SEGMENT_SIZE));
    if valid { Ok(()) } else { Err(libc::EINVAL) }
}

fn valid_basic(basic: &ublk_param_basic, info: &ublksrv_ctrl_dev_info) -> bool {
    (9..=12).contains(&basic.logical_bs_shift)
        && (basic.logical_bs_shift..=MAX_SHIFT).contains(&basic.physical_bs_shift)
        && basic.io_min_shift <= MAX_SHIFT
        && basic.io_opt_shift <= MAX_SHIFT
        && (PAGE_SECTORS..=info.max_io_buf_bytes >> 9).contains(&basic.max_sectors)
}

fn valid_zones(params: &ublk_params) -> bool {
    let (basic, zoned) = (&params.basic, &params.zoned);
    let zones = basic.dev_sectors.checked_div(basic.chunk_sectors.into()).unwrap_or(0);
    basic.chunk_sectors.is_power_of_two()
        && zoned.max_zone_append_sectors > 0
        && u64::from(zoned.max_active_zones) <= zones
        && u64::from(zoned.max_open_zones) <= zones
}

/// `blk_validate_limits`, as START_DEV meets it: limits that SET_PARAMS accepts and the block layer
/// refuses.
pub(crate) fn validate_limits(params: &ublk_params) -> Result<(), i32> {
    let has = |kind: u32| params.types & kind != 0;
    let (basic, zoned, integrity) = (&params.basic, &params.zoned, &params.integrity);
    let tuple = match integrity.csum_type {
        LBMD_PI_CSUM_NONE => 0,
        LBMD_PI_CSUM_CRC64_NVME => 16,
        _ => 8,
    };
    let interval = integrity.interval_exp;
    // blk_validate_integrity_limits.
    let valid_integrity = u16::from(integrity.pi_offset) + tuple <= integrity.metadata_size.into()
        && (interval == 0 || (9..=basic.logical_bs_shift).contains(&interval))
        && (tuple > 0 || integrity.flags & LBMD_PI_CAP_REFTAG == 0);
    // blk_validate_zoned_limits.
    let valid_zones = zoned.max_active_zones == 0 || zoned.max_open_zones <= zoned.max_active_zones;
    let valid = (!has(UBLK_PARAM_TYPE_INTEGRITY) || valid_integrity)
        && (!has(UBLK_PARAM_TYPE_ZONED) || valid_zones);
    if valid { Ok(()) } else { Err(libc::EINVAL) }
}

/// The bytes of parameters, with zeros for padding.
pub(crate) fn params_bytes(params: &ublk_params) -> [u8; size_of::<ublk_params>()] {
    let mut bytes = [0; size_of::<ublk_params>()];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    macro_rules! put {
        ($($group:ident . $field:ident),* $(,)?) => {$(
            put(
                std::mem::offset_of!(ublk_params, $group.$field),
                &params.$group.$field.to_ne_bytes(),
            );
        )*};
    }
    put(0, &params.len.to_ne_bytes());
    put(4, &params.types.to_ne_bytes());
    put!(
        basic.attrs,
        basic.logical_bs_shift,
        basic.physical_bs_shift,
        basic.io_opt_shift,
        basic.io_min_shift,
        basic.max_sectors,
        basic.chunk_sectors,
        basic.dev_sectors,
        basic.virt_boundary_mask,
        discard.discard_alignment,
        discard.discard_granularity,
        discard.max_discard_sectors,
        discard.max_write_zeroes_sectors,
        discard.max_discard_segments,
        devt.char_major,
        devt.char_minor,
        devt.disk_major,
        devt.disk_minor,
        zoned.max_open_zones,
        zoned.max_active_zones,
        zoned.max_zone_append_sectors,
        dma.alignment,
        integrity.flags,
        integrity.max_integrity_segments,
        integrity.interval_exp,
        integrity.metadata_size,
        integrity.pi_offset,
        integrity.csum_type,
        integrity.tag_size,
        seg.seg_boundary_mask,
        seg.max_segment_size,
        seg.max_segments,
    );
    bytes
}

#[cfg(test)]
mod tests {
    use crate::driver::sim::ublk_drv::params::*;

    #[test]
    fn the_block_layer_refuses_what_the_driver_has_let_pass() {
        let info = ublksrv_ctrl_dev_info {
            flags: UBLK_F_INTEGRITY | UBLK_F_ZONED,
            max_io_buf_bytes: 1 << 20,
            ..Default::default()
        };
        let mut good = ublk_params {
            types: UBLK_PARAM_TYPE_BASIC | UBLK_PARAM_TYPE_INTEGRITY | UBLK_PARAM_TYPE_ZONED,
            ..Default::default()
        };
        (good.basic.logical_bs_shift, good.basic.physical_bs_shift) = (9, 12);
        (good.basic.max_sectors, good.basic.chunk_sectors) = (128, 128);
        good.basic.dev_sectors = 1024;
        good.zoned.max_zone_append_sectors = 128;
        (good.integrity.metadata_size, good.integrity.interval_exp) = (8, 9);
        good.integrity.csum_type = LBMD_PI_CSUM_NONE;
        assert_eq!((validate(&good, &info), validate_limits(&good)), (Ok(()), Ok(())));
        type Change = fn(&mut ublk_params);
        let changes: [Change; 5] = [
            |p| p.integrity.interval_exp = 12,
            |p| p.integrity.csum_type = LBMD_PI_CSUM_CRC64_NVME,
            |p| (p.integrity.csum_type, p.integrity.pi_offset) = (2, 1),
            |p| p.integrity.flags = LBMD_PI_CAP_REFTAG,
            |p| (p.zoned.max_open_zones, p.zoned.max_active_zones) = (3, 2),
        ];
        for (at, change) in changes.iter().enumerate() {
            let mut params = good;
            change(&mut params);
            assert_eq!(validate(&params, &info), Ok(()), "change {at}");
            assert_eq!(validate_limits(&params), Err(libc::EINVAL), "change {at}");
        }
    }
}
