//! The life of devices with real threads, on the simulated kernel.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, thread};

use ublk_core::device::{
    self, Access, BufferMode, Device, DeviceOptions, DeviceState, End, ExchangeMode, Pool,
    PoolOptions, Recovery,
};
use ublk_core::driver::sim::{ClientOp, Faults, Kernel, Sim, SimConfig, SimDisk, Trouble};
use ublk_core::error::Code;
use ublk_core::stats::QueueStats;
use ublk_core::targets::Op;

use common::{SIZE, assert_nothing_left, assert_serves, file, options};

mod ages;
mod backing;
#[path = "../common/mod.rs"]
mod common;
mod fleet;
mod lost;
mod partial;
mod pool;
mod rounds;
mod segments;
mod snapshots;
mod starting;
mod threads;
mod throttle;
mod watchdog;

/// One at a time: some of these tests count what the whole process has open.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn create(sim: &Sim, disk: &SimDisk, options: DeviceOptions) -> Device<Sim> {
    Device::create(sim, file(disk), options).unwrap()
}

/// Waits for what comes at once unless something hangs.
fn until(what: &str, has_come: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !has_come() {
        assert!(Instant::now() < deadline, "not after 20 s: {what}");
        thread::yield_now();
    }
}

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Waits for the threads that serve devices: after a device has ended, they may still be on their way
/// out, with the last of what they hold. The threads of the process stay.
fn settle() {
    let stay = ["ublk-supervisor", "ublk-control"];
    let serves = |name: &String| name.starts_with("ublk") && !stay.contains(&name.trim_end());
    for _ in 0..1000 {
        let threads = fs::read_dir("/proc/self/task").unwrap().flatten();
        let mut names = threads.flat_map(|thread| fs::read_to_string(thread.path().join("comm")));
        if !names.any(|name| serves(&name)) {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("threads of devices are left");
}

#[test]
fn each_buffer_mode_carries_data_both_ways() {
    let _alone = alone();
    use BufferMode::{Auto, Copy, GetData, Register, Shared, UserCopy};
    let modes: [(&[BufferMode], bool); 9] = [
        (&[Auto], false),
        (&[Register], false),
        (&[Register], true),
        (&[UserCopy], false),
        (&[GetData], false),
        (&[Copy], false),
        (&[Auto, UserCopy], false),
        (&[Shared, Auto], false),
        (&[Shared, Copy], false),
    ];
    for (modes, split_register) in modes {
        let sim = Sim::new(SimConfig::blocking(1));
        let disk = sim.file(SIZE);
        let buffers = modes.to_vec();
        let device = create(&sim, &disk, DeviceOptions { buffers, split_register, ..options() });
        let given = device.buffers();
        assert!(modes.contains(&given.mode), "{given:?}");
        assert_eq!(given.shared, modes.contains(&Shared));
        assert_eq!(given.user_copy, modes == [Auto, UserCopy]);
        let client = sim.client(device.info().id).unwrap();
        assert_serves(&client);
        assert_eq!(disk.durable(), disk.contents());
        let id = device.info().id;
        let writes: u64 = device.stats().iter().map(|queue| queue.writes).sum();
        assert_eq!(writes, 20);
        drop(client);
        device.close().unwrap();
        assert_nothing_left(&sim, id);
    }
}

#[test]
fn a_watched_device_tells_of_each_request() {
    let _alone = alone();
    let exchanges = [ExchangeMode::PerIo, ExchangeMode::Batch];
    let modes = [BufferMode::Auto, BufferMode::Register, BufferMode::Copy];
    for (exchange, mode) in exchanges.into_iter().flat_map(|one| modes.map(|mode| (one, mode))) {
        let sim = Sim::new(SimConfig::blocking(8));
        let disk = sim.file(SIZE);
        let (exchange, buffers) = (Some(exchange), vec![mode]);
        let device = create(&sim, &disk, DeviceOptions { exchange, buffers, ..options() });
        let client = sim.client(device.info().id).unwrap();
        client.run(&ClientOp::Flush);
        let mut watch = device.watch(16);
        client.run(&ClientOp::Write { offset: 8192, data: vec![1; 4096], fua: true });
        client.run(&ClientOp::Read { offset: 4096, length: 512 });
        disk.set_trouble(Trouble { syncs: Some(libc::EIO), ..Trouble::default() });
        client.run(&ClientOp::Flush);
        let mut told = Vec::new();
        assert_eq!(watch.take(|queue, one| told.push((queue, one))), 0);
        told.sort_by_key(|(_, one)| one.time);
        assert!(
            told.iter()
                .all(|(queue, one)| *queue < 2 && one.tag.number() < 8 && one.time >= one.latency)
        );
        let told: Vec<_> = told
            .into_iter()
            .map(|(_, one)| (one.request.op, one.request.offset, one.request.length, one.result))
            .collect();
        let expected = [
            (Op::Write, 8192, 4096, 4096),
            (Op::Read, 4096, 512, 512),
            (Op::Flush, 0, 0, -libc::EIO),
        ];
        assert_eq!(told, expected, "{exchange:?} {mode:?}");
        drop(watch);
        client.run(&ClientOp::Read { offset: 0, length: 512 });
        drop(client);
        device.close().unwrap();
        assert_nothing_left(&sim, device.info().id);
    }
}

#[test]
fn a_hundred_devices_leave_no_descriptor_and_no_thread_behind() {
    let _alone = alone();
    let sim = Sim::new(SimConfig::blocking(2));
    let disk = sim.file(SIZE);
    let cycle = || {
        let device = create(&sim, &disk, options());
        let client = sim.client(device.info().id).unwrap();
        client.run(&ClientOp::Read { offset: 0, length: 4096 });
        drop(client);
        device.close().unwrap();
        assert_nothing_left(&sim, device.info().id);
    };
    cycle();
    settle();
    let before = open_descriptors();
    for _ in 0..100 {
        cycle();
    }
    settle();
    assert_eq!(open_descriptors(), before);
}

#[test]
fn requests_under_way_when_a_device_closes_are_answered() {
    let _alone = alone();
    for seed in 0..10 {
        let sim = Sim::new(SimConfig::blocking(seed));
        let disk = sim.file(SIZE);
        let device = create(&sim, &disk, options());
        let id = device.info().id;
        let served = AtomicU64::new(0);
        let failed = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..3 {
                let (client, served, failed) = (sim.client(id).unwrap(), &served, &failed);
                scope.spawn(move || {
                    while client.run(&ClientOp::Read { offset: 0, length: 4096 }).result.is_ok() {
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                    failed.store(true, Ordering::Relaxed);
                });
            }
            until("requests are served", || served.load(Ordering::Relaxed) >= 20);
            device.close().unwrap();
        });
        assert!(failed.into_inner(), "the clients were told");
        assert_nothing_left(&sim, id);
    }
}

#[test]
fn a_device_that_somebody_else_stops_takes_itself_down() {
    let _alone = alone();
    let sim = Sim::new(SimConfig::blocking(3));
    let disk = sim.file(SIZE);
    let device = create(&sim, &disk, options());
    let id = device.info().id;
    device::stop(&sim, id, true).unwrap();
    assert!(matches!(device.wait(), End::Stopped));
    device.close().unwrap();
    assert_nothing_left(&sim, id);
}

#[test]
fn a_device_that_somebody_has_open_is_stopped_and_deleted_by_force_only() {
    let _alone = alone();
    for kernel in [Kernel::linux_7_3(), Kernel::linux_6_12()] {
        let sim = Sim::new(SimConfig { kernel, ..SimConfig::blocking(3) });
        let disk = sim.file(SIZE);
        let device = create(&sim, &disk, options());
        let id = device.info().id;
        let client = sim.client(id).unwrap();
        for refused in [device::stop(&sim, id, false).map(drop), device::delete(&sim, id, false)] {
            let error = refused.unwrap_err();
            assert_eq!(error.code, Code::Busy);
            assert!(error.message.ends_with("in use: open in process 1 (client)"), "{error}");
        }
        assert_eq!(device::info(sim.clone(), id).unwrap().state, DeviceState::Live);
        drop(client);
        device::delete(&sim, id, false).unwrap();
        assert!(matches!(device.wait(), End::Stopped));
        drop(device);
        assert_nothing_left(&sim, id);
    }
}

#[test]
fn a_backend_that_fails_fails_requests_and_not_the_device() {
    let _alone = alone();
    let sim = Sim::new(SimConfig::blocking(4));
    let disk = sim.file(SIZE);
    let device = create(&sim, &disk, options());
    let client = sim.client(device.info().id).unwrap();
    let failing = Some(libc::EIO);
    disk.set_trouble(Trouble { reads: failing, syncs: failing, ..Trouble::default() });
    let read = ClientOp::Read { offset: 0, length: 4096 };
    assert_eq!(client.run(&read).result, Err(libc::EIO));
    assert_eq!(client.run(&ClientOp::Flush).result, Err(libc::EIO));
    disk.set_trouble(Trouble::default());
    assert_eq!(client.run(&read).result, Ok(()));
    assert_eq!(client.run(&ClientOp::Flush).result, Err(libc::EIO), "what it dropped is lost");
}

/// Of a commit the kernel may take some elements, and say so to nobody but us.
#[test]
fn a_commit_taken_in_part_is_finished_though_nothing_else_comes() {
    let _alone = alone();
    for seed in 0..8 {
        let faults = Faults { partial: 500, ..Faults::none() };
        let sim = Sim::new(SimConfig { faults, ..SimConfig::blocking(seed) });
        let disk = sim.file(SIZE);
        let exchange = Some(ExchangeMode::Batch);
        let device = create(&sim, &disk, DeviceOptions { queues: 1, exchange, ..options() });
        let client = sim.client(device.info().id).unwrap();
        for _ in 0..20 {
            for block in 0..8 {
                client.submit(&ClientOp::Read { offset: block << 12, length: 4096 }, None);
            }
            until(&format!("all is answered (seed {seed})"), || client.in_flight() == 0);
            assert!(client.take().iter().all(|done| done.result == Ok(())));
        }
        assert!(sim.injected().partial > 0);
        device.close().unwrap();
    }
}

/// The limit is of refusals in a row. Commits of one request are silent when they succeed.
#[test]
fn a_server_serves_on_however_often_a_fetch_is_refused_in_all() {
    let _alone = alone();
    let faults = Faults { command: 100, no_buffers: 500, ..Faults::none() };
    let sim = Sim::new(SimConfig { faults, ..SimConfig::blocking(6) });
    let disk = sim.file(SIZE);
    let exchange = Some(ExchangeMode::Batch);
    let device = create(&sim, &disk, DeviceOptions { queues: 1, exchange, ..options() });
    let client = sim.client(device.info().id).unwrap();
    for _ in 0..2000 {
        assert_eq!(client.run(&ClientOp::Read { offset: 0, length: 4096 }).result, Ok(()));
    }
    assert!(sim.injected().command > 100 && sim.injected().no_buffers > 100);
    drop(client);
    device.close().unwrap();
}

#[test]
fn an_id_that_is_taken_is_refused_and_its_owner_serves_on() {
    let _alone = alone();
    let sim = Sim::new(SimConfig::blocking(5));
    let disk = sim.file(SIZE);
    let device = create(&sim, &disk, DeviceOptions { id: Some(7), ..options() });
    let again = Device::create(&sim, file(&disk), DeviceOptions { id: Some(7), ..options() });
    assert_eq!(again.unwrap_err().code, Code::DeviceExists);
    let client = sim.client(7).unwrap();
    assert_eq!(client.run(&ClientOp::Read { offset: 0, length: 512 }).result, Ok(()));
    drop(client);
    device.close().unwrap();
    assert_nothing_left(&sim, 7);
}

#[test]
fn an_old_kernel_copies() {
    let _alone = alone();
    let kernel = Kernel::linux_6_12();
    let sim = Sim::new(SimConfig { kernel, ..SimConfig::blocking(7) });
    let disk = sim.file(SIZE);
    let device = create(&sim, &disk, options());
    assert_eq!(device.buffers().mode, BufferMode::Copy);
    drop(device);
    let buffers = vec![BufferMode::Auto];
    let created = Device::create(&sim, file(&disk), DeviceOptions { buffers, ..options() });
    assert_eq!(created.unwrap_err().code, Code::Unsupported);
    assert_nothing_left(&sim, 0);
}

#[test]
fn memory_is_shared_and_taken_back_while_a_device_serves() {
    let _alone = alone();
    let sim = Sim::new(SimConfig::blocking(8));
    let disk = sim.file(SIZE);
    let buffers = vec![BufferMode::Shared, BufferMode::Copy];
    let device = create(&sim, &disk, DeviceOptions { buffers, ..options() });
    let (first, second) = (sim.memory(64 << 10), sim.memory(64 << 10));
    let client = sim.client(device.info().id).unwrap();
    let write = ClientOp::Write { offset: 0, data: vec![7; 4096], fua: false };
    let write_in = |memory| {
        client.submit_in(&write, None, Some((memory, 8192)));
        until("the write is answered", || client.in_flight() == 0);
        assert_eq!(client.take()[0].result, Ok(()));
        let of = |count: fn(&QueueStats) -> u64| device.stats().iter().map(count).sum();
        let (shared, copied): (u64, u64) = (of(|q| q.zero_copy_bytes), of(|q| q.copied_bytes));
        (shared / 4096, copied / 4096)
    };
    let index = device.share(first.fd(), Access::ReadWrite).unwrap();
    assert_eq!(write_in(&first), (1, 0));
    assert_eq!(write_in(&second), (1, 1));
    assert_eq!(device.share(second.fd(), Access::ReadOnly).unwrap(), index + 1);
    assert_eq!(write_in(&second), (2, 1));
    device.unshare(index).unwrap();
    assert_eq!(write_in(&first), (2, 2));
    assert_eq!(device.unshare(index).unwrap_err().code, Code::InvalidArgument);
    assert_eq!(device.share(first.fd(), Access::ReadWrite).unwrap(), index, "the lowest is next");
    assert_eq!(write_in(&first), (3, 2));
    assert!(device.share(disk.fd(), Access::ReadWrite).unwrap_err().message.contains("cannot map"));
    drop(client);
    let plain = create(&sim, &disk, options());
    assert_eq!(plain.share(first.fd(), Access::ReadWrite).unwrap_err().code, Code::InvalidArgument);
}

#[test]
fn options_that_exclude_each_other_are_refused_before_the_kernel_is_asked() {
    let _alone = alone();
    let sim = Sim::new(SimConfig::blocking(9));
    let disk = sim.file(SIZE);
    let buffers = vec![BufferMode::UserCopy, BufferMode::GetData];
    let created = Device::create(&sim, file(&disk), DeviceOptions { buffers, ..options() });
    let error = created.unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
    assert!(error.message.contains("'user-copy'") && error.message.contains("'get-data'"));
    assert_nothing_left(&sim, 0);
}
