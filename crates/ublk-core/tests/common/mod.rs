//! What tests of devices on the simulated kernel have in common.

use std::time::Duration;

use ublk_core::control::Control;
use ublk_core::device::DeviceOptions;
use ublk_core::driver::sim::{Client, ClientOp, Sim, SimDisk};
use ublk_core::error::Code;
use ublk_core::targets::Geometry;
use ublk_core::targets::file::File;

/// Of the disks, and of the devices on them, in bytes.
pub(crate) const SIZE: usize = 1 << 20;

/// Small enough that requests get into each other's way.
pub(crate) fn options() -> DeviceOptions {
    DeviceOptions {
        queues: 2,
        depth: 8,
        max_io_bytes: 64 << 10,
        limit: Duration::from_secs(20),
        ..DeviceOptions::default()
    }
}

/// A target that serves `disk`, which has a cache.
pub(crate) fn file(disk: &SimDisk) -> File {
    let geometry = Geometry { volatile_cache: true, fua: true, ..Geometry::new(SIZE as u64) };
    File::borrowed(disk.fd(), geometry)
}

/// Writes to the first 160 KiB and reads what it wrote: in each 8 KiB the number of its turn,
/// counted from 1. Every other write has FUA.
pub(crate) fn assert_serves(client: &Client) {
    for number in 0..20_u8 {
        let offset = u64::from(number) * 8192;
        let data = vec![number + 1; 8192];
        let write = ClientOp::Write { offset, data: data.clone(), fua: number % 2 == 0 };
        assert_eq!(client.run(&write).result, Ok(()));
        let done = client.run(&ClientOp::Read { offset, length: 8192 });
        assert_eq!((done.result, done.data), (Ok(()), data));
    }
    assert_eq!(client.run(&ClientOp::Flush).result, Ok(()));
}

/// The device is gone, and nothing of what it was served with is left.
pub(crate) fn assert_nothing_left(sim: &Sim, id: u32) {
    assert_eq!(Control::new(sim.clone()).info(id).unwrap_err().code, Code::NoDevice);
    sim.audit();
    assert_rules_kept(sim);
}

/// The driver's protocol was kept.
pub(crate) fn assert_rules_kept(sim: &Sim) {
    assert_eq!(sim.violations().iter().map(ToString::to_string).collect::<Vec<_>>(), [""; 0]);
}
