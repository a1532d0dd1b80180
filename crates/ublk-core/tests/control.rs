//! Control commands that wait, that answer late, and numbers that are handed out again, with real
//! threads on the simulated kernel.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ublk_core::device::{self, Device, DeviceOptions};
use ublk_core::driver::sim::{ClientOp, Sim, SimConfig, SimDisk};
use ublk_core::target::file::File;
use ublk_core::target::{Errno, Geometry, Plan, Request, Target};

use common::{assert_nothing_left, file, options};

mod common;

/// Where requests wait until it is opened.
#[derive(Clone, Debug, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let open = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(open, |open| !*open).unwrap());
    }
}

/// A file whose reads and writes wait at a gate.
#[derive(Debug)]
struct Gated {
    file: File,
    gate: Gate,
}

impl Target for Gated {
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
        self.gate.pass();
        self.file.plan(request, plan)
    }
}

fn one_queue() -> DeviceOptions {
    DeviceOptions { queues: 1, ..options() }
}

fn gated(sim: &Sim, disk: &SimDisk) -> (Device<Sim>, Gate) {
    let gate = Gate::default();
    let target = Gated { file: file(disk), gate: gate.clone() };
    (Device::create(sim, target, one_queue()).unwrap(), gate)
}

fn until(what: &str, has_come: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !has_come() {
        assert!(Instant::now() < deadline, "not after 20 s: {what}");
        thread::yield_now();
    }
}

/// Does `work` while a device is being closed whose request does not end.
fn beside_a_slow_stop(sim: &Sim, work: impl FnOnce(&Device<Sim>) + Send) {
    let disk = sim.file(common::SIZE);
    let (slow, gate) = gated(sim, &disk);
    let id = slow.info().id;
    let client = sim.client(id).unwrap();
    client.submit(&ClientOp::Read { offset: 0, length: 4096 }, None);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let closing = scope.spawn(|| slow.close());
        until("the device stops", || sim.is_stopping(id));
        let working = scope.spawn(|| {
            work(&slow);
            done.store(true, Ordering::Relaxed);
        });
        let deadline = Instant::now() + Duration::from_secs(15);
        while !working.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        let (waited, early) = (done.load(Ordering::Relaxed), closing.is_finished());
        gate.open();
        assert!(waited && !early, "the work waits for the stop");
        closing.join().unwrap().unwrap();
    });
    assert_nothing_left(sim, id);
}

#[test]
fn no_command_waits_for_the_slow_stop_of_another_device() {
    let sim = Sim::new(SimConfig::blocking(1));
    let disk = sim.file(common::SIZE);
    let other = Device::create(&sim, file(&disk), one_queue()).unwrap();
    let id = other.info().id;
    beside_a_slow_stop(&sim, |_| {
        assert_eq!(device::info(sim.clone(), id).unwrap().size, Some(common::SIZE as u64));
        other.resize(common::SIZE as u64 / 2).unwrap();
        other.close().unwrap();
        Device::create(&sim, file(&disk), one_queue()).unwrap().close().unwrap();
    });
}

#[test]
fn a_device_is_listed_while_its_stop_waits_for_requests() {
    let sim = Sim::new(SimConfig::blocking(2));
    beside_a_slow_stop(&sim, |slow| {
        let listed = device::list(sim.clone()).unwrap();
        assert_eq!(listed.iter().map(|device| device.id).collect::<Vec<_>>(), [slow.info().id]);
        assert_eq!(
            (listed[0].queues, listed[0].size),
            (1, None),
            "the size is not known meanwhile"
        );
    });
}
