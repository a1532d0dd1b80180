//! Devices that outlive their server, with real threads, on the simulated kernel.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use ublk_core::control::Control;
use ublk_core::device::{
    self, BufferMode, Device, DeviceOptions, DeviceState, End, ExchangeMode, Recovery, StopCheck,
};
use ublk_core::driver::sim::{ClientOp, Kernel, Sim, SimConfig};
use ublk_core::error::Code;
use ublk_core::target::file::File;
use ublk_core::target::{Errno, Geometry, Plan, Request, Target};
use ublk_sys::{
    UBLK_F_SHMEM_ZC, UBLK_F_USER_RECOVERY, UBLK_F_USER_RECOVERY_REISSUE, ublksrv_ctrl_dev_info,
};

use common::{SIZE, assert_nothing_left, assert_rules_kept, assert_serves, file};

mod common;

const ID: u32 = 3;

fn options() -> DeviceOptions {
    DeviceOptions { id: Some(ID), recovery: Some(Recovery::Reissue), ..common::options() }
}

/// Every way to talk to a device that the model has, and how many threads share its tags, if any.
fn ways() -> impl Iterator<Item = (BufferMode, ExchangeMode, Option<u16>)> {
    use ExchangeMode::{Batch, PerIo};
    let modes = [BufferMode::Auto, BufferMode::Register, BufferMode::Copy];
    let exchanges = [(PerIo, None), (PerIo, Some(3)), (Batch, None)];
    modes.into_iter().flat_map(move |mode| exchanges.map(|(exchange, of)| (mode, exchange, of)))
}

fn state(sim: &Sim) -> DeviceState {
    device::info(sim.clone(), ID).unwrap().state
}

/// A target whose thread dies of a request when it is told to: as near to a kill as one process
/// can come.
#[derive(Debug)]
struct Mortal {
    file: File,
    dies: Arc<AtomicBool>,
}

impl Target for Mortal {
    fn geometry(&self) -> &Geometry {
        self.file.geometry()
    }

    fn files(&self) -> &[i32] {
        self.file.files()
    }

    fn max_steps(&self) -> usize {
        self.file.max_steps()
    }

    fn plan(&self, request: &Request, plan: &mut Plan<'_>) -> Result<(), Errno> {
        assert!(!self.dies.load(Ordering::Relaxed), "killed");
        self.file.plan(request, plan)
    }

    fn check_size(&self, size: u64) -> ublk_core::error::Result<()> {
        self.file.check_size(size)
    }
}

#[test]
fn a_server_that_dies_under_load_is_replaced_and_no_request_fails() {
    for (mode, exchange, threads) in ways() {
        let sim = Sim::new(SimConfig::blocking(7));
        let disk = sim.file(SIZE);
        let (buffers, dealt) = (vec![mode], DeviceOptions { threads, ..options() });
        let asked = DeviceOptions { buffers, exchange: Some(exchange), ..dealt.clone() };
        let dies = Arc::new(AtomicBool::new(false));
        let mortal = Mortal { file: file(&disk), dies: Arc::clone(&dies) };
        let first = Device::create(&sim, mortal, asked).unwrap();
        let written = AtomicU64::new(0);
        let (over, done) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            for client in 0..3_u64 {
                let (sim, written, over, done) = (&sim, &written, &over, &done);
                scope.spawn(move || {
                    let opened = sim.client(ID).unwrap();
                    for round in 0.. {
                        let offset = (client * 64 + round % 64) * 4096;
                        let data = vec![u8::try_from(round % 251).unwrap(); 4096];
                        let write = ClientOp::Write { offset, data: data.clone(), fua: false };
                        assert_eq!(opened.run(&write).result, Ok(()));
                        let read = opened.run(&ClientOp::Read { offset, length: 4096 });
                        assert_eq!(read.result, Ok(()));
                        assert!(read.data == data, "what was written is read");
                        written.fetch_add(1, Ordering::Relaxed);
                        if over.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                });
            }
            let wait_for = |count| {
                while written.load(Ordering::Relaxed) < count {
                    thread::yield_now();
                }
            };
            wait_for(20);
            dies.store(true, Ordering::Relaxed);
            assert!(matches!(first.wait(), End::Failed(_)), "{mode:?} {exchange:?} {threads:?}");
            assert_eq!(state(&sim), DeviceState::Quiesced);
            let rings_apart = mode == BufferMode::Register;
            let dealt = DeviceOptions { rings_apart, ..dealt };
            let second = Device::recover(&sim, ID, file(&disk), dealt).unwrap();
            assert_eq!((second.buffers().mode, second.exchange()), (mode, exchange));
            assert_eq!((second.info().queues, second.info().depth), (2, 8));
            wait_for(written.load(Ordering::Relaxed) + 20);
            second.quiesce().unwrap();
            assert!(matches!(second.wait(), End::Quiesced));
            let third = Device::recover(&sim, ID, file(&disk), options()).unwrap();
            wait_for(written.load(Ordering::Relaxed) + 20);
            over.store(true, Ordering::Relaxed);
            while done.load(Ordering::Relaxed) < 3 {
                thread::yield_now();
            }
            third.close().unwrap();
        });
        drop(first);
        assert_nothing_left(&sim, ID);
    }
}

#[test]
fn a_device_that_somebody_else_quiesces_is_left_and_not_deleted() {
    for (mode, exchange, threads) in ways() {
        let sim = Sim::new(SimConfig::blocking(8));
        let disk = sim.file(SIZE);
        let (buffers, exchange) = (vec![mode], Some(exchange));
        let asked = DeviceOptions { buffers, exchange, threads, ..options() };
        let first = Device::create(&sim, file(&disk), asked).unwrap();
        device::quiesce(sim.clone(), ID).unwrap();
        assert!(matches!(first.wait(), End::Quiesced));
        first.close().unwrap();
        drop(first);
        assert_eq!(state(&sim), DeviceState::Quiesced);
        assert_eq!(device::info(sim.clone(), ID).unwrap().server_pid, None);
        device::delete(sim.clone(), ID).unwrap();
        assert_rules_kept(&sim);
    }
}

#[test]
fn the_new_server_may_wait_for_the_old_one() {
    let sim = Sim::new(SimConfig::blocking(9));
    let disk = sim.file(SIZE);
    let first = Device::create(&sim, file(&disk), options()).unwrap();
    thread::scope(|scope| {
        let second = scope.spawn(|| Device::recover(&sim, ID, file(&disk), options()));
        thread::sleep(Duration::from_millis(20));
        first.quiesce().unwrap();
        second.join().unwrap().unwrap().close().unwrap();
    });
    assert_rules_kept(&sim);
}

#[test]
fn what_cannot_be_recovered_is_refused_and_what_can_waits_on() {
    let sim = Sim::new(SimConfig::blocking(10));
    let disk = sim.file(SIZE);
    let brief = DeviceOptions { limit: Duration::from_millis(50), ..options() };
    let code = |result: Result<Device<Sim>, ublk_core::error::Error>| result.unwrap_err().code;
    assert_eq!(code(Device::recover(&sim, ID, file(&disk), options())), Code::NoDevice);

    let mortal = DeviceOptions { recovery: None, ..options() };
    let device = Device::create(&sim, file(&disk), mortal).unwrap();
    let refused = Device::recover(&sim, ID, file(&disk), options());
    assert_eq!(code(refused), Code::InvalidArgument);
    assert_eq!(device.quiesce().unwrap_err().code, Code::InvalidArgument);
    device.close().unwrap();

    let device = Device::create(&sim, file(&disk), options()).unwrap();
    let error = Device::recover(&sim, ID, file(&disk), brief.clone()).unwrap_err();
    assert_eq!(error.code, Code::Busy);
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    device.quiesce().unwrap();
    let other = File::borrowed(disk.fd(), Geometry::new(SIZE as u64 / 2));
    let error = Device::recover(&sim, ID, other, brief).unwrap_err();
    assert_eq!(error.code, Code::BadBackend);
    assert!(error.to_string().contains("size was 1048576 and is 524288"), "{error}");
    Device::recover(&sim, ID, file(&disk), options()).unwrap().close().unwrap();
    assert_rules_kept(&sim);
}

/// We make no such device, but another program may.
#[test]
fn a_device_that_shares_memory_is_not_recovered() {
    let sim = Sim::new(SimConfig::blocking(17));
    let disk = sim.file(SIZE);
    let flags = UBLK_F_USER_RECOVERY | UBLK_F_USER_RECOVERY_REISSUE | UBLK_F_SHMEM_ZC;
    let wanted = ublksrv_ctrl_dev_info {
        nr_hw_queues: 1,
        queue_depth: 8,
        max_io_buf_bytes: 64 << 10,
        dev_id: ID,
        flags,
        ..Default::default()
    };
    let added = Control::new(sim.clone()).add(&wanted).unwrap();
    assert_eq!(added.flags & flags, flags);
    let error = Device::recover(&sim, ID, file(&disk), options()).unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
    assert!(error.message.contains("it shares memory"), "{error}");
    assert_eq!(state(&sim), DeviceState::Dead, "nothing was asked of the driver");
    device::delete(sim.clone(), ID).unwrap();
    assert_nothing_left(&sim, ID);
}

#[test]
fn a_kernel_that_lacks_a_kind_of_recovery_says_so_before_anything_is_added() {
    let kernel = Kernel::linux_6_12();
    let sim = Sim::new(SimConfig { kernel, ..SimConfig::blocking(11) });
    let disk = sim.file(SIZE);
    let fail = DeviceOptions { recovery: Some(Recovery::Fail), ..options() };
    let error = Device::create(&sim, file(&disk), fail).unwrap_err();
    assert_eq!(error.code, Code::Unsupported);
    assert!(error.to_string().contains("6.13"), "{error}");
    let device = Device::create(&sim, file(&disk), options()).unwrap();
    assert_eq!(device.info().recovery, Some(Recovery::Reissue));
    let error = device.resize(4096).unwrap_err();
    assert_eq!(error.code, Code::Unsupported);
    assert!(error.to_string().contains("create it anew"), "{error}");
    assert_eq!(device.quiesce().unwrap_err().code, Code::Unsupported);
    assert_eq!(device::info(sim.clone(), ID).unwrap().state, DeviceState::Live);
    device.close().unwrap();
    let queue = DeviceOptions { recovery: Some(Recovery::Queue), ..options() };
    let device = Device::create(&sim, file(&disk), queue).unwrap();
    assert_eq!(device.quiesce().unwrap_err().code, Code::Unsupported);
}

#[test]
fn a_device_changes_its_size_while_it_is_used() {
    let sim = Sim::new(SimConfig::blocking(12));
    let disk = sim.file(SIZE);
    let device = Device::create(&sim, file(&disk), options()).unwrap();
    let client = sim.client(ID).unwrap();
    let beyond = ClientOp::Read { offset: SIZE as u64, length: 4096 };
    assert!(client.run(&beyond).result.is_err());
    disk.resize(SIZE * 2);
    assert_eq!(device.resize(SIZE as u64 * 2).unwrap().size, Some(SIZE as u64 * 2));
    assert_eq!(client.run(&beyond).result, Ok(()));
    for size in [0, 511, 513] {
        let error = device.resize(size).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument, "{size}");
    }
    let from_outside = |size, force| device::resize(sim.clone(), ID, size as u64, force);
    let error = from_outside(SIZE * 3, false).unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
    assert!(error.to_string().contains("--force"), "{error}");
    assert_eq!(from_outside(SIZE * 3, true).unwrap().size, Some(SIZE as u64 * 3));
    assert_eq!(from_outside(SIZE * 2, false).unwrap().size, Some(SIZE as u64 * 2));
    device.quiesce().unwrap();
    assert_eq!(from_outside(4096, false).unwrap_err().code, Code::Closed);
    assert_eq!(device::resize(sim.clone(), 9, 4096, false).unwrap_err().code, Code::NoDevice);
    let error = Device::recover(&sim, ID, file(&disk), options()).unwrap_err();
    assert_eq!(error.code, Code::BadBackend, "the target is of the old size");
}

#[test]
fn a_device_that_somebody_has_open_is_stopped_by_force_only() {
    for (kernel, how) in
        [(Kernel::linux_7_3(), StopCheck::Openers), (Kernel::linux_6_12(), StopCheck::Holders)]
    {
        let sim = Sim::new(SimConfig { kernel, ..SimConfig::blocking(13) });
        let disk = sim.file(SIZE);
        let create = || Device::create(&sim, file(&disk), options()).unwrap();
        let device = create();
        let client = sim.client(ID).unwrap();
        let error = device::stop(&sim, ID, false).unwrap_err();
        assert_eq!(error.code, Code::Busy);
        assert!(error.to_string().contains("--force"), "{error}");
        assert_eq!(client.run(&ClientOp::Flush).result, Ok(()), "still there");
        assert_eq!(device::stop(&sim, ID, true).unwrap(), StopCheck::Nothing);
        assert!(matches!(device.wait(), End::Stopped));
        drop(client);
        let device = create();
        assert_eq!(device::stop(&sim, ID, false).unwrap(), how);
        assert!(matches!(device.wait(), End::Stopped));
        assert_eq!(device::stop(&sim, ID, false).unwrap_err().code, Code::NoDevice);
    }
}

#[test]
fn a_user_who_is_not_root_serves_a_device_that_copies() {
    let kernel = Kernel { root: false, ..Kernel::linux_7_3() };
    let sim = Sim::new(SimConfig { kernel, ..SimConfig::blocking(14) });
    let disk = sim.file(SIZE);
    let plain = DeviceOptions { recovery: None, ..options() };
    let error = Device::create(&sim, file(&disk), plain.clone()).unwrap_err();
    assert_eq!(error.code, Code::Permission);
    let asked = DeviceOptions { unprivileged: true, ..plain };
    let device = Device::create(&sim, file(&disk), asked.clone()).unwrap();
    assert_eq!(device.buffers().mode, BufferMode::Copy);
    assert_eq!((device.info().owner_uid, device.info().owner_gid), (1000, 1000));
    let client = sim.client(ID).unwrap();
    assert_serves(&client);
    drop(client);
    device.close().unwrap();
    assert_eq!(device::info(sim.clone(), ID).unwrap_err().code, Code::NoDevice);
    let both = DeviceOptions { recovery: Some(Recovery::Queue), ..asked };
    let error = Device::create(&sim, file(&disk), both).unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
    assert!(error.to_string().contains("unprivileged and recovery"), "{error}");
}

#[test]
fn the_oldest_kernels_are_served_with_bare_numbers() {
    let kernel = Kernel::linux_6_1();
    let sim = Sim::new(SimConfig { kernel, ..SimConfig::blocking(15) });
    let disk = sim.file(SIZE);
    let plain = DeviceOptions { recovery: None, ..options() };
    let device = Device::create(&sim, file(&disk), plain).unwrap();
    let client = sim.client(ID).unwrap();
    assert_serves(&client);
    assert_eq!(disk.contents()[..8192], [1; 8192]);
    drop(client);
    device.close().unwrap();
    assert_rules_kept(&sim);
}

#[test]
fn descriptors_lie_as_far_apart_as_was_asked_for() {
    let sim = Sim::new(SimConfig::blocking(16));
    let disk = sim.file(SIZE);
    for size in [24, 64, 256] {
        let asked = DeviceOptions { io_desc_size: Some(size), ..options() };
        let device = Device::create(&sim, file(&disk), asked).unwrap();
        let client = sim.client(ID).unwrap();
        let written = Mutex::new(0);
        thread::scope(|scope| {
            for at in 0..8_u8 {
                let (client, written) = (&client, &written);
                scope.spawn(move || {
                    let data = vec![at; 4096];
                    let write = ClientOp::Write { offset: u64::from(at) * 4096, data, fua: false };
                    assert_eq!(client.run(&write).result, Ok(()));
                    *written.lock().unwrap() += 1;
                });
            }
        });
        let contents = disk.contents();
        assert!((0..8).all(|at| contents[at * 4096] == u8::try_from(at).unwrap()));
        drop(client);
        device.close().unwrap();
    }
}
