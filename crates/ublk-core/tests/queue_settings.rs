//! Settings of the device's queue, on the simulated kernel.

use std::time::Duration;

use ublk_core::device::{self, Device, DeviceOptions, QueueSettings};
use ublk_core::driver::sim::{Kernel, Sim, SimConfig};
use ublk_core::error::{Code, Error};
use ublk_core::targets::Geometry;
use ublk_core::targets::file::File;
use ublk_core::targets::null::Null;

fn options(queue: QueueSettings) -> DeviceOptions {
    DeviceOptions { queue, limit: Duration::from_secs(20), ..DeviceOptions::default() }
}

fn kernel(throttling: bool) -> Sim {
    let kernel = Kernel { throttling, ..Kernel::linux_7_3() };
    Sim::new(SimConfig { kernel, ..SimConfig::blocking(1) })
}

fn null(sim: &Sim, queue: QueueSettings) -> Result<Device<Sim>, Error> {
    Device::create(sim, Null::new(1 << 20), options(queue))
}

#[test]
fn settings_are_written_as_the_kernel_names_them() {
    let sim = kernel(true);
    let queue = QueueSettings {
        scheduler: Some("mq-deadline".into()),
        wbt_lat_usec: Some(5000),
        nomerges: Some(2),
        iostats: Some(false),
        rq_affinity: Some(1),
        read_ahead_kb: Some(0),
        max_sectors_kb: Some(64),
    };
    let device = null(&sim, queue).unwrap();
    let setting = |name| sim.queue_setting(device.info().id, name).unwrap();
    let written = [
        ("scheduler", "mq-deadline"),
        ("wbt_lat_usec", "5000"),
        ("nomerges", "2"),
        ("iostats", "0"),
        ("rq_affinity", "1"),
        ("read_ahead_kb", "0"),
        ("max_sectors_kb", "64"),
    ];
    for (name, value) in written {
        assert_eq!(setting(name), value, "{name}");
    }
}

#[test]
fn writes_of_a_target_that_takes_no_time_are_not_held_back_unless_asked_for() {
    let sim = kernel(true);
    let throttling = |device: &Device<Sim>| sim.queue_setting(device.info().id, "wbt_lat_usec");
    let by_default = null(&sim, QueueSettings::default()).unwrap();
    assert_eq!(throttling(&by_default).as_deref(), Some("0"));
    let kernels = QueueSettings { wbt_lat_usec: Some(-1), ..QueueSettings::default() };
    assert_eq!(throttling(&null(&sim, kernels).unwrap()), None);
    let disk = sim.file(1 << 20);
    let file = File::borrowed(disk.fd(), Geometry::new(1 << 20));
    let file = Device::create(&sim, file, options(QueueSettings::default())).unwrap();
    assert_eq!(throttling(&file), None);
}

#[test]
fn a_kernel_without_throttling_is_no_obstacle_unless_it_is_asked_for() {
    let sim = kernel(false);
    null(&sim, QueueSettings::default()).unwrap().close().unwrap();
    let asked = QueueSettings { wbt_lat_usec: Some(0), ..QueueSettings::default() };
    let error = null(&sim, asked).unwrap_err();
    assert_eq!(error.code, Code::Unsupported);
    assert!(error.to_string().contains("queue/wbt_lat_usec"), "{error}");
    assert_eq!(device::info(sim.clone(), 0).unwrap_err().code, Code::NoDevice);
}

#[test]
fn what_the_kernel_refuses_takes_the_device_down_again() {
    let sim = kernel(true);
    let queue = QueueSettings { scheduler: Some("fifo".into()), ..QueueSettings::default() };
    let error = null(&sim, queue).unwrap_err();
    assert_eq!((error.code, error.errno), (Code::InvalidArgument, Some(libc::EINVAL)));
    assert_eq!(device::info(sim.clone(), 0).unwrap_err().code, Code::NoDevice);
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_touched() {
    let bad = [
        QueueSettings { scheduler: Some(String::new()), ..QueueSettings::default() },
        QueueSettings { wbt_lat_usec: Some(-2), ..QueueSettings::default() },
        QueueSettings { nomerges: Some(3), ..QueueSettings::default() },
        QueueSettings { rq_affinity: Some(3), ..QueueSettings::default() },
        QueueSettings { max_sectors_kb: Some(3), ..QueueSettings::default() },
        QueueSettings { max_sectors_kb: Some(1025), ..QueueSettings::default() },
    ];
    for queue in bad {
        let shown = format!("{queue:?}");
        let error = options(queue).validate().unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument, "{shown}");
        assert!(error.message.starts_with("queue."), "{error}");
    }
}
