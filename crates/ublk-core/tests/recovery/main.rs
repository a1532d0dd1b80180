//! Devices that outlive their server, with real threads, on the simulated kernel.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use ublk_core::control::Control;
use ublk_core::device::{
    self, BeforeStart, BufferMode, Device, DeviceOptions, DeviceState, End, ExchangeMode,
    QueueSettings, Recovery, StopCheck,
};
use ublk_core::driver::Driver;
use ublk_core::driver::sim::{ClientOp, Kernel, Sim, SimConfig, SimDisk};
use ublk_core::error::{Code, Error};
use ublk_core::targets::delay::{Delay, Delays};
use ublk_core::targets::file::{File, Promised};
use ublk_core::targets::linear::Linear;
use ublk_core::targets::native::Native;
use ublk_core::targets::null::Null;
use ublk_core::targets::striped::Striped;
use ublk_core::targets::{Errno, Geometry, Plan, Request, Target};
use ublk_sys::{
    UBLK_F_SHMEM_ZC, UBLK_F_USER_RECOVERY, UBLK_F_USER_RECOVERY_REISSUE, ublksrv_ctrl_dev_info,
};

use common::{SIZE, assert_nothing_left, assert_rules_kept, assert_serves, file};

#[path = "../common/mod.rs"]
mod common;
mod features;
mod leave;
mod refused;

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

/// An old kernel holds the mutex of the device while START_DEV reads the disk (trap 65). With `reissue` the
/// read waits for the next server, and START_DEV for the read; each command ends at its time limit.
#[test]
fn a_server_that_dies_while_an_old_kernel_starts_its_device_holds_up_no_command() {
    for recovery in [Recovery::Queue, Recovery::Reissue] {
        let kernel = Kernel::linux_6_12();
        let sim = Sim::new(SimConfig { kernel, partition_scan: true, ..SimConfig::blocking(22) });
        let disk = sim.file(SIZE);
        let mortal = Mortal { file: file(&disk), dies: Arc::new(AtomicBool::new(true)) };
        // Long enough for a thread to die with a backtrace on a loaded machine.
        let limit = Duration::from_secs(1);
        let asked = DeviceOptions { recovery: Some(recovery), limit, queues: 1, ..options() };
        let limit = Duration::from_millis(300);
        let created = Device::create(&sim, mortal, asked);
        if let (Recovery::Queue, Ok(device)) = (recovery, &created) {
            // The read has failed and START_DEV returned before anybody knew of the queue.
            assert!(matches!(device.wait(), End::Failed(_)));
            assert_eq!(state(&sim), DeviceState::Quiesced);
            continue;
        }
        let error = created.unwrap_err();
        assert!(error.message.starts_with("a queue of the device is lost"), "{error}");
        if recovery == Recovery::Queue {
            assert_nothing_left(&sim, ID);
            continue;
        }
        assert_eq!(state(&sim), DeviceState::Live);
        let control = Control::new(sim.clone());
        let ended = [
            control.stop(ID, limit),
            control.delete(ID, limit),
            control.params_within(ID, limit).map(drop),
            Device::recover(&sim, ID, file(&disk), DeviceOptions { limit, ..options() }).map(drop),
        ];
        for (at, ended) in ended.into_iter().enumerate() {
            let error = ended.unwrap_err();
            assert_eq!(error.code, Code::Timeout, "{at}: {error}");
        }
        assert_eq!(state(&sim), DeviceState::Live);
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
