//! What sysfs tells about devices, without a command and without waiting.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::str::FromStr;
use std::sync::LazyLock;

use crate::driver::{DiskFacts, Identity};

const DEVICES: &str = "/sys/class/ublk-char";

/// The numbers of all devices, in their order.
pub(super) fn devices() -> Vec<u32> {
    let entries = fs::read_dir(DEVICES).into_iter().flatten().flatten();
    let mut ids: Vec<u32> = entries
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("ublkc")?.parse().ok())
        .collect();
    ids.sort_unstable();
    ids
}

/// The inode of the directory that `ADD_DEV` makes and `DEL_DEV` removes. The kernel numbers these
/// inodes one after another (`idr_alloc_cyclic` and a generation in `kernfs_new_node`), so that no
/// other device has the same.
pub(super) fn identity(id: u32) -> Option<Identity> {
    let number = fs::metadata(format!("{DEVICES}/ublkc{id}")).ok()?.ino();
    Some(Identity { boot: boot(), number })
}

/// The kernel's random number for this boot.
fn boot() -> u128 {
    static BOOT: LazyLock<u128> = LazyLock::new(|| {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        u128::from_str_radix(&text.trim_end().replace('-', ""), 16).unwrap_or_default()
    });
    *BOOT
}

/// The disk of a device, which is there from `START_DEV` on until it is stopped.
pub(super) fn disk(id: u32) -> Option<DiskFacts> {
    let sectors: u64 = attribute(id, "size")?;
    let read_only = attribute::<u8>(id, "ro")? != 0;
    let logical_block = attribute(id, "queue/logical_block_size")?;
    Some(DiskFacts { size: sectors << 9, logical_block, read_only })
}

fn attribute<T: FromStr>(id: u32, name: &str) -> Option<T> {
    fs::read_to_string(format!("/sys/block/ublkb{id}/{name}")).ok()?.trim().parse().ok()
}

/// The requests of a device that have not ended; 0 where the kernel does not count.
pub(super) fn requests_in_flight(id: u32) -> u32 {
    let counts = std::fs::read_to_string(format!("/sys/block/ublkb{id}/inflight"));
    let counts = counts.unwrap_or_default();
    counts.split_whitespace().filter_map(|count| count.parse::<u32>().ok()).sum()
}
