//! Devices that the kernel reads while they start.

use ublk_core::targets::delay::{Delay, Delays};
use ublk_core::targets::native::Native;
use ublk_core::targets::null::Null;

use super::*;

/// A target that answers a read after six seconds.
fn slow() -> Delay {
    let delays = Delays { read: 6_000_000, ..Delays::default() };
    Delay::new(Native::Null(Null::new(SIZE as u64)), delays)
}

#[test]
fn a_device_whose_first_read_takes_too_long_is_given_up_and_goes_when_the_read_has_ended() {
    let _alone = alone();
    let kernel = Kernel::linux_6_12();
    let sim = Sim::new(SimConfig { kernel, partition_scan: true, ..SimConfig::blocking(9) });
    let limit = Duration::from_secs(2);
    let options = DeviceOptions { id: Some(3), queues: 1, limit, ..options() };
    let error = Device::create(&sim, slow(), options).unwrap_err();
    assert_eq!(error.code, Code::Timeout);
    assert!(error.message.starts_with("START_DEV"), "{error}");
    until("the device is gone", || device::info(sim.clone(), 3).is_err());
    assert_nothing_left(&sim, 3);
}
