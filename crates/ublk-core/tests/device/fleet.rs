//! Many devices in one process.

use std::sync::Arc;
use std::sync::mpsc::channel;

use ublk_core::aside;
use ublk_core::targets::delay::{Delay, Delays};
use ublk_core::targets::native::Native;
use ublk_core::targets::null::Null;

use super::*;

/// The names of the threads of this package in this process.
fn threads() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.flat_map(|task| fs::read_to_string(task.path().join("comm")));
    let mut names: Vec<_> = names.filter(|name| name.starts_with("ublk")).collect();
    names.sort_unstable();
    names
}

#[test]
fn devices_of_a_pool_have_no_threads_at_rest() {
    let _alone = alone();
    settle();
    let sim = Sim::new(SimConfig::blocking(8));
    let disk = sim.file(SIZE);
    let pool = Pool::new(&sim, PoolOptions::of(2)).unwrap();
    let devices: Vec<_> =
        (0..40).map(|_| Device::create_in(&pool, &sim, file(&disk), options()).unwrap()).collect();
    let lasting = |name: &String| name.starts_with("ublk-pool") || name == "ublk-supervisor\n";
    let at_rest = || {
        let names = threads();
        let other = names.iter().filter(|&name| !lasting(name));
        names.len() <= 2 + 1 + 2 && other.clone().all(|name| name == "ublk-control\n")
    };
    until("only the threads of the process are left", at_rest);
    assert_eq!(threads().iter().filter(|&name| lasting(name)).count(), 3);
    let ids: Vec<_> = devices.iter().map(|device| device.info().id).collect();
    thread::scope(|scope| {
        for device in &devices {
            scope.spawn(|| device.close().unwrap());
        }
    });
    ids.into_iter().for_each(|id| assert_nothing_left(&sim, id));
}

#[test]
fn devices_that_end_slowly_hold_up_no_other_device() {
    let _alone = alone();
    let sim = Sim::new(SimConfig::blocking(8));
    let pool = Pool::new(&sim, PoolOptions::of(2)).unwrap();
    let create = |read| {
        let delays = Delays { read, ..Delays::default() };
        let target = Delay::new(Native::Null(Null::new(SIZE as u64)), delays);
        Device::create_in(&pool, &sim, target, options()).unwrap()
    };
    let slow: Vec<_> = (0..12).map(|_| create(8_000_000)).collect();
    let clients: Vec<_> = slow.iter().map(|device| sim.client(device.info().id).unwrap()).collect();
    let read = ClientOp::Read { offset: 0, length: 4096 };
    for client in &clients {
        client.submit(&read, Some(0));
    }
    let (tell, told) = channel();
    for device in slow {
        let tell = tell.clone();
        // As the binding closes devices.
        aside::run(move || tell.send(device.close()).unwrap()).unwrap();
    }
    let other = create(0);
    device::stop(&sim, other.info().id, true).unwrap();
    until("the other device is gone", || device::info(sim.clone(), other.info().id).is_err());
    assert!(matches!(other.wait(), End::Stopped));
    create(0).close().unwrap();
    assert!(clients.iter().all(|client| client.in_flight() == 1), "the slow devices end later");
    for _ in &clients {
        told.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
    }
}

/// Freeing all devices takes twice as long as a device may take to close.
#[test]
fn devices_close_though_the_driver_frees_one_at_a_time() {
    let _alone = alone();
    let freeing = Duration::from_millis(100);
    let mut config = SimConfig::blocking(8);
    config.kernel.freeing = freeing;
    let sim = Sim::new(config);
    let pool = Pool::new(&sim, PoolOptions::of(2)).unwrap();
    let limit = 20 * freeing;
    let create = || {
        let target = Null::new(SIZE as u64);
        Device::create_in(&pool, &sim, target, DeviceOptions { limit, ..options() }).unwrap()
    };
    let devices: Vec<_> = (0..40).map(|_| create()).collect();
    thread::scope(|scope| {
        for device in &devices {
            scope.spawn(|| device.close().unwrap());
        }
    });
    devices.iter().for_each(|device| assert_nothing_left(&sim, device.info().id));
}

/// As [`devices_close_though_the_driver_frees_one_at_a_time`].
#[test]
fn a_device_is_created_while_many_close() {
    let _alone = alone();
    let mut config = SimConfig::blocking(8);
    config.kernel.freeing = Duration::from_millis(100);
    let sim = Sim::new(config);
    let pool = Pool::new(&sim, PoolOptions::of(2)).unwrap();
    let create = || Device::create_in(&pool, &sim, Null::new(SIZE as u64), options()).unwrap();
    let devices: Vec<_> = (0..40).map(|_| create()).collect();
    let ids: Vec<_> = devices.iter().map(|device| device.info().id).collect();
    let gone = |id: &u32| device::info(sim.clone(), *id).is_err();
    thread::scope(|scope| {
        for device in &devices {
            scope.spawn(|| device.close().unwrap());
        }
        until("a device is gone", || ids.iter().any(gone));
        let other = create();
        let left = ids.iter().filter(|&id| *id != other.info().id && !gone(id)).count();
        assert!(left > 20, "the device came after {} others were gone", 40 - left);
        other.close().unwrap();
    });
}

#[test]
fn a_device_that_has_ended_keeps_no_file_open() {
    let _alone = alone();
    let sim = Sim::new(SimConfig::blocking(8));
    let disk = sim.file(SIZE);
    create(&sim, &disk, options()).close().unwrap();
    settle();
    let before = open_descriptors();
    let ended: Vec<_> = (0..5)
        .map(|_| {
            let device = create(&sim, &disk, options());
            device.close().unwrap();
            device
        })
        .collect();
    settle();
    assert_eq!(open_descriptors(), before);
    drop(ended);
}

#[test]
fn a_device_that_nobody_waits_for_is_taken_down_and_its_listeners_hear_of_it() {
    let _alone = alone();
    let sim = Sim::new(SimConfig::blocking(8));
    let disk = sim.file(SIZE);
    let device = create(&sim, &disk, options());
    let id = device.info().id;
    let heard = Arc::new(AtomicU64::new(0));
    for _ in 0..2 {
        let heard = Arc::clone(&heard);
        device.on_end(move |end| {
            assert!(matches!(end, End::Stopped));
            heard.fetch_add(1, Ordering::Relaxed);
        });
    }
    device::stop(&sim, id, true).unwrap();
    until("both have heard", || heard.load(Ordering::Relaxed) == 2);
    assert_nothing_left(&sim, id);
    let late = Arc::clone(&heard);
    device.on_end(move |_| {
        late.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(heard.load(Ordering::Relaxed), 3);
}
