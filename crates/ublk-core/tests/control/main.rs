//! Control commands that wait, that answer late, and numbers that are handed out again, with real
//! threads on the simulated kernel.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use std::{io, thread};

use ublk_core::control::Control;
use ublk_core::device::ExchangeMode::PerIo;
use ublk_core::device::{self, Access, BufferMode, Device, DeviceOptions, End, Recovery};
use ublk_core::driver::sim::{Client, ClientOp, Sim, SimConfig, SimDisk, SimMemory, SimRing};
use ublk_core::driver::{
    BlockNode, ControlAnswer, Deletions, Descriptors, DiskFacts, Driver, Errands, Identity,
    MemoryMap, OpenFile, RingSize, Users,
};
use ublk_core::error::Code;
use ublk_core::targets::file::File;
use ublk_core::targets::{Errno, Geometry, Plan, Request, Target};
use ublk_sys::{UBLK_U_CMD_REG_BUF, UBLK_U_CMD_UNREG_BUF, ublksrv_ctrl_cmd};

use common::{assert_nothing_left, assert_serves, file, options};

#[path = "../common/mod.rs"]
mod common;
mod drawn;

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

#[test]
fn what_is_added_too_late_is_deleted() {
    let sim = Sim::new(SimConfig::blocking(3));
    let disk = sim.file(common::SIZE);
    let (slow, gate) = gated(&sim, &disk);
    let id = slow.info().id;
    let client = sim.client(id).unwrap();
    client.submit(&ClientOp::Read { offset: 0, length: 4096 }, None);
    thread::scope(|scope| {
        // Keeps the driver's mutex until the request has ended.
        scope.spawn(|| Control::new(sim.clone()).delete(id, Duration::from_secs(20)).unwrap());
        until("the device is deleted", || sim.is_stopping(id));
        let options = DeviceOptions { limit: Duration::from_millis(50), ..one_queue() };
        let error = Device::create(&sim, file(&disk), options).unwrap_err();
        assert_eq!(error.code, Code::Timeout);
        assert!(error.to_string().contains("ublk list"), "{error}");
        gate.open();
    });
    assert!(matches!(slow.wait(), End::Stopped));
    // Whatever is added from now on waits for the late one.
    until("nothing is left", || sim.added() == 2 && sim.devices().is_empty());
    assert_nothing_left(&sim, id);
}

const SHARED: u32 = 3;

fn sharing(limit: Duration) -> DeviceOptions {
    let buffers = vec![BufferMode::Shared, BufferMode::GetData];
    DeviceOptions { id: Some(SHARED), depth: 32, buffers, limit, ..one_queue() }
}

/// Writes blocks with these contents from shared memory, and hears of each.
fn write_from(client: &Client, memory: &SimMemory, with: u8, blocks: std::ops::Range<u64>) {
    for block in blocks {
        let write = ClientOp::Write { offset: block * 4096, data: vec![with; 4096], fua: false };
        client.submit_in(&write, None, Some((memory, 0)));
        until("the write is answered", || client.in_flight() == 0);
        assert_eq!(client.take()[0].result, Ok(()));
    }
}

#[test]
fn memory_that_is_registered_late_is_taken_back_and_reaches_nobody_else() {
    let sim = Sim::new(SimConfig::blocking(4));
    let disk = sim.file(common::SIZE);
    let gate = Gate::default();
    let target = Gated { file: file(&disk), gate: gate.clone() };
    let device = Device::create(&sim, target, sharing(Duration::from_millis(100))).unwrap();
    let (one, other) = (sim.memory(64 << 10), sim.memory(64 << 10));
    let client = sim.client(SHARED).unwrap();
    client.submit(&ClientOp::Read { offset: 0, length: 4096 }, None);
    until("the request waits", || sim.requests_in_flight(SHARED) == 1);
    assert_eq!(device.share(one.fd(), Access::ReadWrite).unwrap_err().code, Code::Timeout);
    assert_eq!(device.share(other.fd(), Access::ReadWrite).unwrap_err().code, Code::Busy);
    assert_eq!(device.unshare(0).unwrap_err().code, Code::Busy);
    let control = Control::new(sim.clone()).bound_to(SHARED);
    let size = common::SIZE as u64;
    let resize = |size: u64| control.update_size(SHARED, size >> 9, Duration::from_millis(100));
    assert_eq!(resize(size / 2).unwrap_err().code, Code::Timeout, "the mutex");
    assert_eq!(resize(size).unwrap_err().code, Code::Busy, "the late one comes first");
    gate.open();
    until("all is answered", || client.in_flight() == 0);
    client.take();
    write_from(&client, &one, b'A', 0..4);
    let shared = || device.share(other.fd(), Access::ReadWrite);
    until("the kernel has answered", || shared().is_ok());
    write_from(&client, &one, b'A', 4..8);
    write_from(&client, &other, b'B', 8..12);
    let contents = disk.contents();
    assert!((0..12).all(|block| contents[block << 12] == if block < 8 { b'A' } else { b'B' }));
    until("the late resize is done", || {
        device::info(sim.clone(), SHARED).unwrap().size == Some(size / 2)
    });
    until("another may follow", || resize(size).is_ok());
    drop(client);
    device.close().unwrap();
    assert_nothing_left(&sim, SHARED);
}

/// A system whose first answer to some command is lost, though the kernel carries it out.
#[derive(Clone, Debug)]
struct Forgetful {
    sim: Sim,
    forgets: u32,
    done: Arc<AtomicBool>,
}

impl Driver for Forgetful {
    type Ring = SimRing;

    fn control(
        &self,
        operation: u32,
        command: ublksrv_ctrl_cmd,
        buffer: Option<Box<[u8]>>,
        limit: Duration,
    ) -> io::Result<ControlAnswer> {
        let answer = self.sim.control(operation, command, buffer, limit)?;
        match operation == self.forgets && !self.done.swap(true, Ordering::Relaxed) {
            true => Err(io::Error::from_raw_os_error(libc::ETIMEDOUT)),
            false => Ok(answer),
        }
    }

    fn deletions(&self) -> &Deletions {
        self.sim.deletions()
    }

    fn devices(&self) -> Vec<u32> {
        self.sim.devices()
    }

    fn device_identity(&self, id: u32) -> Option<Identity> {
        self.sim.device_identity(id)
    }

    fn disk(&self, id: u32) -> Option<DiskFacts> {
        self.sim.disk(id)
    }

    fn open_char(&self, id: u32) -> io::Result<OpenFile> {
        self.sim.open_char(id)
    }

    fn map_descriptors(
        &self,
        char_device: &OpenFile,
        queue: u16,
        depth: u16,
        stride: usize,
    ) -> io::Result<Descriptors> {
        self.sim.map_descriptors(char_device, queue, depth, stride)
    }

    fn open_zeros(&self) -> io::Result<OpenFile> {
        self.sim.open_zeros()
    }

    fn map_memory(&self, fd: RawFd, writable: bool) -> io::Result<MemoryMap> {
        self.sim.map_memory(fd, writable)
    }

    fn block_node(&self, id: u32) -> BlockNode {
        self.sim.block_node(id)
    }

    fn set_queue(&self, id: u32, name: &str, value: &str) -> io::Result<()> {
        self.sim.set_queue(id, name, value)
    }

    fn requests_in_flight(&self, id: u32) -> u32 {
        self.sim.requests_in_flight(id)
    }

    fn users(&self, id: u32) -> Users {
        self.sim.users(id)
    }

    fn block_device_is_held(&self, id: u32) -> bool {
        self.sim.block_device_is_held(id)
    }

    fn ring(&self, entries: RingSize) -> io::Result<SimRing> {
        self.sim.ring(entries)
    }

    fn errands(&self) -> io::Result<Box<dyn Errands>> {
        self.sim.errands()
    }
}

#[test]
fn an_answer_that_never_comes_is_asked_for_before_an_index_is_given_to_other_memory() {
    for forgets in [UBLK_U_CMD_REG_BUF, UBLK_U_CMD_UNREG_BUF] {
        let sim = Sim::new(SimConfig::blocking(5));
        let disk = sim.file(common::SIZE);
        let driver = Forgetful { sim: sim.clone(), forgets, done: Arc::default() };
        let options = sharing(Duration::from_secs(20));
        let device = Device::create(&driver, file(&disk), options).unwrap();
        let (one, other) = (sim.memory(64 << 10), sim.memory(64 << 10));
        let client = sim.client(SHARED).unwrap();
        let shared = device.share(one.fd(), Access::ReadWrite);
        let unanswered = match forgets {
            UBLK_U_CMD_REG_BUF => shared.map(drop),
            _ => device.unshare(shared.unwrap()),
        };
        assert_eq!(unanswered.unwrap_err().code, Code::Timeout);
        // From memory that the kernel has registered, or has not.
        write_from(&client, &one, b'A', 0..4);
        device.share(other.fd(), Access::ReadWrite).unwrap();
        write_from(&client, &one, b'A', 4..8);
        write_from(&client, &other, b'B', 8..12);
        let contents = disk.contents();
        assert!((0..12).all(|block| contents[block << 12] == if block < 8 { b'A' } else { b'B' }));
        drop(client);
        device.close().unwrap();
        assert_nothing_left(&sim, SHARED);
    }
}

#[test]
fn a_number_that_is_handed_out_again_is_the_other_device_s() {
    let sim = Sim::new(SimConfig::blocking(6));
    let (first, second) = (sim.file(common::SIZE), sim.file(common::SIZE));
    let recovery = Some(Recovery::Queue);
    let options = DeviceOptions { id: Some(7), recovery, exchange: Some(PerIo), ..one_queue() };
    let gone = Device::create(&sim, file(&first), options.clone()).unwrap();
    let bound = Control::new(sim.clone()).bound_to(7);
    assert!(!bound.is_gone(7).unwrap());
    gone.close().unwrap();
    assert!(bound.is_gone(7).unwrap());
    let lives = Device::create(&sim, file(&second), options).unwrap();
    assert!(bound.is_gone(7).unwrap());
    let limit = Duration::from_secs(1);
    for refused in [
        bound.info(7).map(drop),
        bound.params(7).map(drop),
        bound.stop(7, limit),
        bound.try_stop(7, limit),
        bound.delete(7, limit),
        bound.update_size(7, 8, limit),
        bound.quiesce(7, limit),
        bound.start_recovery(7),
    ] {
        let error = refused.unwrap_err();
        assert_eq!(error.code, Code::NoDevice);
        assert!(error.to_string().contains("another device"), "{error}");
    }
    assert!(bound.features().is_ok() && bound.info(8).is_err());
    assert_eq!(gone.resize(8192).unwrap_err().code, Code::Closed);
    assert_eq!(gone.quiesce().unwrap_err().code, Code::Closed);
    gone.close().unwrap();
    drop(gone);
    assert_eq!(lives.info().size, Some(common::SIZE as u64));
    let client = sim.client(7).unwrap();
    assert_serves(&client);
    drop(client);
    lives.close().unwrap();
    assert_nothing_left(&sim, 7);
}

#[test]
fn a_device_that_was_left_is_its_next_server_s() {
    let sim = Sim::new(SimConfig::blocking(7));
    let disk = sim.file(common::SIZE);
    let recovery = Some(Recovery::Queue);
    let options = DeviceOptions { id: Some(7), recovery, exchange: Some(PerIo), ..one_queue() };
    let left = Device::create(&sim, file(&disk), options.clone()).unwrap();
    left.quiesce().unwrap();
    let next = Device::recover(&sim, 7, file(&disk), options).unwrap();
    assert_eq!(left.resize(8192).unwrap_err().code, Code::Closed);
    left.quiesce().unwrap();
    left.close().unwrap();
    let client = sim.client(7).unwrap();
    assert_serves(&client);
    drop(client);
    next.close().unwrap();
    assert_nothing_left(&sim, 7);
}

#[test]
fn the_number_of_a_deleted_device_is_taken_as_soon_as_the_kernel_frees_it() {
    let mut config = SimConfig::blocking(8);
    config.kernel.lingering = 3;
    let sim = Sim::new(config);
    let disk = sim.file(common::SIZE);
    let options = DeviceOptions { id: Some(7), ..one_queue() };
    for _ in 0..3 {
        let device = Device::create(&sim, file(&disk), options.clone()).unwrap();
        let exists = Device::create(&sim, file(&disk), options.clone());
        assert_eq!(exists.unwrap_err().code, Code::DeviceExists);
        device.close().unwrap();
    }
    assert_nothing_left(&sim, 7);
}

#[test]
fn a_close_or_delete_ends_though_its_number_is_taken_again_at_once() {
    for seed in 0..30 {
        let mut config = SimConfig::blocking(seed);
        config.kernel.lingering = u32::try_from(seed % 3).unwrap();
        let sim = Sim::new(config);
        let (one, two) = (sim.file(common::SIZE), sim.file(common::SIZE));
        let options = DeviceOptions { id: Some(7), ..one_queue() };
        let device = Device::create(&sim, file(&one), options.clone()).unwrap();
        thread::scope(|scope| {
            let other = scope.spawn(|| {
                loop {
                    match Device::create(&sim, file(&two), options.clone()) {
                        Ok(device) => break device,
                        Err(error) => assert_eq!(error.code, Code::DeviceExists),
                    }
                }
            });
            match seed % 2 {
                0 => device.close().unwrap(),
                _ => device::delete(&sim, 7, true).unwrap(),
            }
            let other = other.join().unwrap();
            drop(device);
            let client = sim.client(7).unwrap();
            assert_serves(&client);
            drop(client);
            other.close().unwrap();
        });
        assert_nothing_left(&sim, 7);
    }
}
