//! Limits that a device is asked for, on the simulated kernel.

use std::time::Duration;

use ublk_core::device::{BufferMode, Device, DeviceOptions, Limits};
use ublk_core::driver::sim::{Kernel, Sim, SimConfig};
use ublk_core::error::Code;
use ublk_core::targets::null::Null;

fn options(limits: Limits) -> DeviceOptions {
    DeviceOptions { limits, limit: Duration::from_secs(20), ..DeviceOptions::default() }
}

const LIMITS: Limits = Limits {
    dma_alignment: Some(4096),
    max_segments: Some(32),
    max_segment_size: Some(32 << 10),
    segment_boundary: Some(4096),
};

#[test]
fn limits_are_taken_with_copies_and_without() {
    let sim = Sim::new(SimConfig::blocking(1));
    for mode in [BufferMode::Auto, BufferMode::Copy] {
        let options = DeviceOptions { buffers: vec![mode], ..options(LIMITS) };
        let device = Device::create(&sim, Null::new(1 << 20), options).unwrap();
        device.close().unwrap();
    }
}

#[test]
fn a_kernel_that_does_not_know_limits_is_not_asked_to_forget_them() {
    let sim = Sim::new(SimConfig { kernel: Kernel::linux_6_12(), ..SimConfig::blocking(1) });
    let error = Device::create(&sim, Null::new(1 << 20), options(LIMITS)).unwrap_err();
    assert_eq!(error.code, Code::Unsupported);
    Device::create(&sim, Null::new(1 << 20), options(Limits::default())).unwrap();
}
