//! A target's geometry as the kernel's parameters.

use ublk_sys::{
    LBMD_PI_CAP_INTEGRITY, LBMD_PI_CAP_REFTAG, LBMD_PI_CSUM_CRC16_T10DIF, LBMD_PI_CSUM_CRC64_NVME,
    LBMD_PI_CSUM_IP, LBMD_PI_CSUM_NONE, UBLK_ATTR_FUA, UBLK_ATTR_READ_ONLY, UBLK_ATTR_ROTATIONAL,
    UBLK_ATTR_VOLATILE_CACHE, UBLK_PARAM_TYPE_BASIC, UBLK_PARAM_TYPE_DISCARD,
    UBLK_PARAM_TYPE_DMA_ALIGN, UBLK_PARAM_TYPE_INTEGRITY, UBLK_PARAM_TYPE_SEGMENT,
    UBLK_PARAM_TYPE_ZONED, ublk_param_basic, ublk_param_discard, ublk_param_dma_align,
    ublk_param_integrity, ublk_param_segment, ublk_param_zoned, ublk_params,
};

use super::options::Buffering;
use crate::targets::integrity::{Checksum, IntegrityFormat};
use crate::targets::{Geometry, ZonedLimits};

const SECTOR_SHIFT: u32 = 9;

pub(super) fn of(geometry: &Geometry, buffers: Buffering, max_io_bytes: u32) -> ublk_params {
    let mut params = ublk_params {
        len: u32::try_from(size_of::<ublk_params>()).unwrap_or_default(),
        types: UBLK_PARAM_TYPE_BASIC,
        basic: basic(geometry, max_io_bytes),
        ..Default::default()
    };
    if let Some(limits) = geometry.discard {
        params.types |= UBLK_PARAM_TYPE_DISCARD;
        params.discard = ublk_param_discard {
            discard_alignment: 0,
            discard_granularity: limits.granularity,
            max_discard_sectors: limits.max_discard >> SECTOR_SHIFT,
            max_write_zeroes_sectors: limits.max_write_zeroes >> SECTOR_SHIFT,
            max_discard_segments: 1,
            reserved0: 0,
        };
    }
    if let Some(limits) = geometry.zoned {
        params.types |= UBLK_PARAM_TYPE_ZONED;
        params.zoned = zoned(limits, &params.basic);
    }
    if let Some(format) = geometry.integrity {
        params.types |= UBLK_PARAM_TYPE_INTEGRITY;
        params.integrity = integrity(&format);
    }
    // Copied data lies in our own memory, whatever the client's looked like.
    if !buffers.mode.is_zero_copy() && !buffers.shared {
        params.basic.virt_boundary_mask = 0;
        return params;
    }
    params.types |= UBLK_PARAM_TYPE_DMA_ALIGN;
    params.dma = ublk_param_dma_align { alignment: geometry.dma_alignment, pad: [0; 4] };
    if let Some(limits) = geometry.segments {
        params.types |= UBLK_PARAM_TYPE_SEGMENT;
        params.seg = ublk_param_segment {
            seg_boundary_mask: limits.boundary_mask,
            max_segment_size: limits.max_size,
            // The backend splits what has too many for it, and measured over null_blk that is
            // 3 % cheaper for 1 MiB reads than requests split before they come to us.
            max_segments: u16::MAX,
            pad: [0; 2],
        };
    }
    params
}

fn basic(geometry: &Geometry, max_io_bytes: u32) -> ublk_param_basic {
    let attrs = [
        (geometry.read_only, UBLK_ATTR_READ_ONLY),
        (geometry.rotational, UBLK_ATTR_ROTATIONAL),
        (geometry.volatile_cache, UBLK_ATTR_VOLATILE_CACHE),
        (geometry.volatile_cache && geometry.fua, UBLK_ATTR_FUA),
    ];
    ublk_param_basic {
        attrs: attrs.into_iter().filter(|(on, _)| *on).map(|(_, attr)| attr).sum(),
        logical_bs_shift: shift(geometry.logical_block),
        physical_bs_shift: shift(geometry.physical_block),
        io_opt_shift: shift(geometry.io_opt),
        io_min_shift: shift(geometry.io_min),
        max_sectors: max_io_bytes >> SECTOR_SHIFT,
        // Fits: below 2 TiB.
        chunk_sectors: u32::try_from(geometry.chunk >> SECTOR_SHIFT).unwrap_or(0),
        dev_sectors: geometry.size >> SECTOR_SHIFT,
        virt_boundary_mask: geometry.virt_boundary,
    }
}

fn zoned(limits: ZonedLimits, basic: &ublk_param_basic) -> ublk_param_zoned {
    ublk_param_zoned {
        max_open_zones: limits.max_open,
        max_active_zones: limits.max_active,
        max_zone_append_sectors: basic.max_sectors.min(basic.chunk_sectors),
        ..Default::default()
    }
}

fn integrity(format: &IntegrityFormat) -> ublk_param_integrity {
    let flags =
        [(format.capable, LBMD_PI_CAP_INTEGRITY), (format.reference_tags, LBMD_PI_CAP_REFTAG)];
    ublk_param_integrity {
        flags: flags.into_iter().filter(|(on, _)| *on).map(|(_, flag)| flag).sum(),
        max_integrity_segments: 0,
        interval_exp: shift(format.interval),
        metadata_size: format.metadata_size,
        pi_offset: format.pi_offset,
        csum_type: match format.checksum {
            Checksum::None => LBMD_PI_CSUM_NONE,
            Checksum::Ip => LBMD_PI_CSUM_IP,
            Checksum::Crc16 => LBMD_PI_CSUM_CRC16_T10DIF,
            Checksum::Crc64 => LBMD_PI_CSUM_CRC64_NVME,
        },
        tag_size: format.tag_size,
        ..Default::default()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "at most 32")]
fn shift(power_of_two: u32) -> u8 {
    power_of_two.trailing_zeros() as u8
}
