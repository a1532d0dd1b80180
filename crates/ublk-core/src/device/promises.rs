//! The promises to the clients of a device, which the device's next server must keep.

use ublk_sys::{
    UBLK_ATTR_FUA, UBLK_ATTR_READ_ONLY, UBLK_ATTR_VOLATILE_CACHE, UBLK_PARAM_TYPE_DMA_ALIGN,
    UBLK_PARAM_TYPE_INTEGRITY, UBLK_PARAM_TYPE_ZONED, ublk_param_integrity, ublk_param_zoned,
    ublk_params,
};

use crate::error::{Code, Error, Result};

/// Refuses a target that breaks a promise to the clients, or that looks for their data in other places.
pub(super) fn refuse(id: u32, differences: &[String]) -> Result<()> {
    if differences.is_empty() {
        return Ok(());
    }
    let message = format!(
        "the target is not what ublk device {id} was created with: {}",
        differences.join("; ")
    );
    Err(Error::new(Code::BadBackend, message).hint("recover it with the target that it had"))
}

/// The promises of the device that the target breaks. A larger target and smaller blocks are fine: the
/// device keeps its size and its blocks. A target that discards less answers so, and clients write zeros
/// instead.
pub(super) fn differences(device: &ublk_params, target: &ublk_params) -> Vec<String> {
    let mut found = Vec::new();
    let mut differ = |differ: bool, what: &str, device: u64, target: u64| {
        if differ {
            found.push(format!("{what} was {device} and is {target}"));
        }
    };
    let has = |params: &ublk_params, kind: u32| params.types & kind != 0;
    let size = |params: &ublk_params| params.basic.dev_sectors << 9;
    let (before, now) = (size(device), size(target));
    let zoned = has(device, UBLK_PARAM_TYPE_ZONED);
    differ(now < before || zoned && now != before, "size", before, now);
    let (before, now) = (block(device).into(), block(target).into());
    differ(now > before, "logical block", before, now);
    for (what, before, now) in placement(device).into_iter().zip(placement(target)).map(pair) {
        differ(before != now, what, before, now);
    }
    let attr = |params: &ublk_params, attr: u32| params.basic.attrs & attr != 0;
    let read_only = |params| u64::from(attr(params, UBLK_ATTR_READ_ONLY));
    let (before, now) = (read_only(device), read_only(target));
    differ(before != now, "read-only", before, now);

    let mut lost = |gone: bool, what: &str| {
        if gone {
            found.push(what.to_owned());
        }
    };
    let only =
        |one: &ublk_params, other: &ublk_params, bit: u32| attr(one, bit) && !attr(other, bit);
    lost(
        only(target, device, UBLK_ATTR_VOLATILE_CACHE),
        "it has a cache now, and the kernel would never flush it",
    );
    lost(only(device, target, UBLK_ATTR_FUA), "it cannot make single writes durable (FUA)");
    let alignment = |params: &ublk_params| match has(params, UBLK_PARAM_TYPE_DMA_ALIGN) {
        true => params.dma.alignment,
        false => 0,
    };
    lost(alignment(target) > alignment(device), "it needs memory that is aligned more");
    found
}

pub(super) fn block(params: &ublk_params) -> u32 {
    1 << params.basic.logical_bs_shift.min(31)
}

/// The kernel's parameters about the places of bytes, by name.
fn placement(params: &ublk_params) -> [(&'static str, u64); 11] {
    let has = |kind: u32| params.types & kind != 0;
    let zoned = if has(UBLK_PARAM_TYPE_ZONED) { params.zoned } else { ublk_param_zoned::default() };
    let integrity = match has(UBLK_PARAM_TYPE_INTEGRITY) {
        true => params.integrity,
        false => ublk_param_integrity::default(),
    };
    [
        ("zoned", has(UBLK_PARAM_TYPE_ZONED).into()),
        ("integrity", has(UBLK_PARAM_TYPE_INTEGRITY).into()),
        ("chunk", u64::from(params.basic.chunk_sectors) << 9),
        ("most open zones", zoned.max_open_zones.into()),
        ("most active zones", zoned.max_active_zones.into()),
        ("flags of integrity", integrity.flags.into()),
        ("interval of integrity (its logarithm)", integrity.interval_exp.into()),
        ("metadata of each interval", integrity.metadata_size.into()),
        ("place of protection information", integrity.pi_offset.into()),
        ("kind of checksum", integrity.csum_type.into()),
        ("application tag", integrity.tag_size.into()),
    ]
}

fn pair(
    ((what, before), (_, now)): ((&'static str, u64), (&'static str, u64)),
) -> (&'static str, u64, u64) {
    (what, before, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::params;
    use crate::device::{BufferMode, Buffering};
    use crate::targets::{DiscardLimits, Geometry};

    fn of(geometry: &Geometry) -> ublk_params {
        let buffers = Buffering { mode: BufferMode::Auto, user_copy: false, shared: false };
        params::of(geometry, buffers, 1 << 20)
    }

    #[test]
    fn a_target_must_keep_what_the_device_has_promised() {
        let discard = DiscardLimits { granularity: 512, max_discard: 4096, max_write_zeroes: 4096 };
        let had = Geometry {
            volatile_cache: true,
            fua: true,
            discard: Some(discard),
            ..Geometry::new(1 << 20)
        };
        let device = of(&had);
        assert_eq!(differences(&device, &device), [""; 0]);
        type Change = fn(&mut Geometry);
        let changes: [(Change, &str); 10] = [
            (|g| g.size = 1 << 19, "size was 1048576 and is 524288"),
            (|g| g.size = 1 << 21, ""),
            (|g| g.chunk = 8192, "chunk was 0 and is 8192"),
            (|g| g.physical_block = 8192, ""),
            (|g| g.logical_block = 4096, "logical block was 512 and is 4096"),
            (|g| g.read_only = true, "read-only was 0 and is 1"),
            (|g| g.fua = false, "it cannot make single writes durable (FUA)"),
            (|g| g.discard = None, ""),
            (|g| g.dma_alignment = 4095, "it needs memory that is aligned more"),
            (|g| g.dma_alignment = 3, ""),
        ];
        for (change, said) in changes {
            let mut geometry = had;
            change(&mut geometry);
            assert_eq!(differences(&device, &of(&geometry)).join("; "), said);
        }
        let larger = of(&Geometry { logical_block: 4096, ..had });
        assert_eq!(differences(&larger, &device), [""; 0], "smaller blocks serve larger ones");
        let without = of(&Geometry { volatile_cache: false, fua: false, ..had });
        assert_eq!(differences(&without, &device).len(), 1);
    }

    #[test]
    fn the_form_of_metadata_and_of_zones_is_compared() {
        use crate::targets::ZonedLimits;
        use crate::targets::integrity::{Checksum, IntegrityFormat};
        let format = IntegrityFormat {
            interval: 512,
            metadata_size: 16,
            checksum: Checksum::Crc16,
            ..IntegrityFormat::default()
        };
        let limits = ZonedLimits { max_open: 3, max_active: 4 };
        let plain = Geometry::new(1 << 20);
        let with = |format| of(&Geometry { integrity: Some(format), ..plain });
        let zones = |limits| of(&Geometry { chunk: 65536, zoned: Some(limits), ..plain });
        type Change = fn(&mut IntegrityFormat);
        let changes: [(Change, &str); 6] = [
            (|f| f.interval = 4096, "interval of integrity (its logarithm) was 9 and is 12"),
            (|f| f.metadata_size = 32, "metadata of each interval was 16 and is 32"),
            (|f| f.checksum = Checksum::Ip, "kind of checksum"),
            (|f| f.pi_offset = 8, "place of protection information was 0 and is 8"),
            (|f| f.tag_size = 2, "application tag was 0 and is 2"),
            (|f| f.reference_tags = true, "flags of integrity"),
        ];
        for (change, said) in changes {
            let mut other = format;
            change(&mut other);
            let found = differences(&with(format), &with(other));
            assert!(found.len() == 1 && found[0].starts_with(said), "{found:?}");
        }
        let more = ZonedLimits { max_open: 4, max_active: 4 };
        let found = differences(&zones(limits), &zones(more));
        assert_eq!(found, ["most open zones was 3 and is 4"]);
        let grown = of(&Geometry { size: 1 << 21, chunk: 65536, zoned: Some(limits), ..plain });
        assert_eq!(differences(&zones(limits), &grown).len(), 1, "zones are counted once");
    }
}
