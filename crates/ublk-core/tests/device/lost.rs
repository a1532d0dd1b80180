//! Reactors of a pool that are lost.

use std::sync::Arc;

use ublk_core::device::DeviceState;
use ublk_core::driver::sim::Client;
use ublk_core::targets::file::File;
use ublk_core::targets::integrity::{Integrity, IntegrityFormat, length_of_metadata};
use ublk_core::targets::{Ended, Errno, Geometry, Next, Plan, Region, Request, Target};

use super::*;

/// A target whose reactor panics with the first request after `dies` was set, as soon as `waits` is not.
/// The target has planned that request.
#[derive(Debug)]
struct Mortal<T = File> {
    target: T,
    dies: Arc<AtomicBool>,
    waits: Arc<AtomicBool>,
}

impl<T: Target> Target for Mortal<T> {
    fn geometry(&self) -> &Geometry {
        self.target.geometry()
    }

    fn files(&self) -> &[i32] {
        self.target.files()
    }

    fn max_steps(&self) -> usize {
        self.target.max_steps()
    }

    fn plan(&self, request: &Request, plan: &mut Plan<'_>) -> Result<(), Errno> {
        let planned = self.target.plan(request, plan);
        if self.dies.swap(false, Ordering::Relaxed) {
            while self.waits.load(Ordering::Relaxed) {
                thread::yield_now();
            }
            panic!("dies");
        }
        planned
    }

    fn memory(&self) -> Option<&Arc<Region>> {
        self.target.memory()
    }

    fn takes_rounds(&self) -> bool {
        self.target.takes_rounds()
    }

    fn next(&self, request: &Request, ended: Ended, plan: &mut Plan<'_>) -> Next {
        self.target.next(request, ended, plan)
    }

    fn failed(&self, request: &Request, ticket: u64) {
        self.target.failed(request, ticket);
    }

    fn deserted(&self) {
        self.target.deserted();
    }
}

fn mortal(disk: &SimDisk, dies: &Arc<AtomicBool>) -> Mortal {
    Mortal { target: file(disk), dies: Arc::clone(dies), waits: Arc::default() }
}

fn pool_of<T: Target>(sim: &Sim, reactors: u16) -> Pool<Mortal<T>> {
    Pool::new(sim, PoolOptions::of(reactors)).unwrap()
}

fn read(client: &Client, queue: u16) {
    client.submit(&ClientOp::Read { offset: 0, length: 4096 }, Some(queue));
}

#[test]
fn a_device_that_loses_one_reactor_of_a_pool_ends_and_its_clients_hear_so() {
    let _alone = alone();
    for exchange in [ExchangeMode::PerIo, ExchangeMode::Batch] {
        for buffers in [BufferMode::Auto, BufferMode::Copy, BufferMode::Register] {
            let sim = Sim::new(SimConfig::blocking(8));
            let (disk, other) = (sim.file(SIZE), sim.file(SIZE));
            let options =
                DeviceOptions { exchange: Some(exchange), buffers: vec![buffers], ..options() };
            let pool = pool_of(&sim, 2);
            let (dies, lives) = (Arc::<AtomicBool>::default(), Arc::default());
            let device =
                Device::create_in(&pool, &sim, mortal(&disk, &dies), options.clone()).unwrap();
            let one = DeviceOptions { queues: 1, ..options };
            let others: Vec<_> = (0..2)
                .map(|_| {
                    Device::create_in(&pool, &sim, mortal(&other, &lives), one.clone()).unwrap()
                })
                .collect();
            let client = sim.client(device.info().id).unwrap();
            disk.set_trouble(Trouble { reads: Some(libc::EIO), ..Trouble::default() });
            dies.store(true, Ordering::Relaxed);
            (0..4).for_each(|_| read(&client, 0));
            until("the reactor is lost", || !dies.load(Ordering::Relaxed));
            read(&client, 1);
            let End::Failed(error) = device.wait() else { panic!("it has lost a queue") };
            assert!(error.message.contains("panicked: dies"), "{error}");
            until("all requests are answered", || client.in_flight() == 0);
            assert!(client.take().iter().all(|done| done.result == Err(libc::EIO)));
            drop(client);
            // Queues go to the reactors in turn: the first of the others has lost its only one. Those
            // of a batch device are together, and the others with the other reactor.
            if exchange == ExchangeMode::PerIo {
                assert!(matches!(others[0].wait(), End::Failed(_)));
            }
            assert_serves(&sim.client(others[1].info().id).unwrap());
            until("it is deleted", || device::info(sim.clone(), device.info().id).is_err());
            drop(device);
            drop(others);
            assert!(sim.violations().is_empty(), "{:?}", sim.violations());
            pool.close().unwrap();
        }
    }
}

#[test]
fn a_device_with_recovery_outlives_a_reactor_of_its_pool_and_the_next_server_gets_its_requests() {
    let _alone = alone();
    let sim = Sim::new(SimConfig::blocking(8));
    let disk = sim.file(SIZE);
    let options = DeviceOptions { id: Some(3), recovery: Some(Recovery::Reissue), ..options() };
    let pool = pool_of(&sim, 2);
    let dies = Arc::default();
    let device = Device::create_in(&pool, &sim, mortal(&disk, &dies), options.clone()).unwrap();
    let client = sim.client(3).unwrap();
    dies.store(true, Ordering::Relaxed);
    (0..2).for_each(|queue| (0..8).for_each(|_| read(&client, queue)));
    assert!(matches!(device.wait(), End::Failed(_)));
    assert_eq!(device::info(sim.clone(), 3).unwrap().state, DeviceState::Quiesced);
    let next = Device::recover_in(&pool, &sim, 3, mortal(&disk, &dies), options).unwrap();
    until("all requests are answered", || client.in_flight() == 0);
    assert!(client.take().iter().all(|done| done.result == Ok(())));
    drop(client);
    next.close().unwrap();
    assert_nothing_left(&sim, 3);
}

#[test]
fn a_reactor_that_is_lost_while_the_device_is_stopped_fails_what_it_had() {
    let _alone = alone();
    for recovery in [None, Some(Recovery::Reissue)] {
        let sim = Sim::new(SimConfig::blocking(8));
        let disk = sim.file(SIZE);
        let pool = pool_of(&sim, 2);
        let (dies, waits) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(true)));
        let target = Mortal { waits: Arc::clone(&waits), ..mortal(&disk, &dies) };
        let options = DeviceOptions { id: Some(3), recovery, ..options() };
        let device = Device::create_in(&pool, &sim, target, options).unwrap();
        let client = sim.client(3).unwrap();
        (0..4).for_each(|_| read(&client, 0));
        until("a request waits", || !dies.load(Ordering::Relaxed));
        sim.begin_stop(3).unwrap();
        waits.store(false, Ordering::Relaxed);
        until("all requests are answered", || client.in_flight() == 0);
        assert!(client.take().iter().all(|done| done.result == Err(libc::EIO)));
        assert!(matches!(device.wait(), End::Failed(_)));
        drop(client);
        until("it is deleted", || device::info(sim.clone(), 3).is_err());
        assert_nothing_left(&sim, 3);
    }
}

#[test]
fn a_pool_that_has_lost_a_reactor_goes_on_with_the_others() {
    let _alone = alone();
    let sim = Sim::new(SimConfig::blocking(8));
    let disk = sim.file(SIZE);
    let pool = pool_of(&sim, 2);
    let dies = Arc::new(AtomicBool::new(true));
    let one = DeviceOptions { queues: 1, ..options() };
    let bad = Device::create_in(&pool, &sim, mortal(&disk, &dies), one.clone()).unwrap();
    read(&sim.client(bad.info().id).unwrap(), 0);
    assert!(matches!(bad.wait(), End::Failed(_)));
    for _ in 0..4 {
        let device = Device::create_in(&pool, &sim, mortal(&disk, &dies), one.clone()).unwrap();
        let client = sim.client(device.info().id).unwrap();
        assert_serves(&client);
    }
}

#[test]
fn what_a_pool_cannot_take_in_is_refused_before_anything_is_touched() {
    let _alone = alone();
    let sim = Sim::new(SimConfig::blocking(8));
    let disk = sim.file(SIZE);
    let pool = pool_of(&sim, 1);
    let lives = Arc::default();
    let large = DeviceOptions { depth: 4096, queues: 4, ..options() };
    let recovery = Some(Recovery::Reissue);
    let left = DeviceOptions { id: Some(9), recovery, queues: 1, ..options() };
    let device = Device::create(&sim, mortal(&disk, &lives), left.clone()).unwrap();
    device.quiesce().unwrap();
    let full = Device::create_in(&pool, &sim, mortal(&disk, &lives), large.clone()).unwrap();
    let (moves, before) = (sim.moves(), sim.trace());
    let refused = Device::create_in(&pool, &sim, mortal(&disk, &lives), large).unwrap_err();
    assert_eq!(refused.code, Code::Resources);
    assert!(refused.message.contains("depth 4096") && refused.to_string().contains("reactors"));
    let refused = Device::recover_in(&pool, &sim, 9, mortal(&disk, &lives), left.clone());
    assert_eq!(refused.unwrap_err().code, Code::Resources);
    assert_eq!((sim.moves(), sim.trace()), (moves, before));
    assert_nothing_left(&sim, full.info().id + 1);
    assert_eq!(device::info(sim.clone(), 9).unwrap().state, DeviceState::Quiesced);
    full.close().unwrap();
    Device::recover_in(&pool, &sim, 9, mortal(&disk, &lives), left).unwrap().close().unwrap();
}

#[test]
fn requests_that_wait_for_one_of_a_lost_reactor_end() {
    let _alone = alone();
    let sim = Sim::new(SimConfig::blocking(8));
    let format = IntegrityFormat { interval: 512, metadata_size: 8, ..Default::default() };
    let disk = sim.file(SIZE);
    let length = length_of_metadata(format, SIZE as u64);
    let metadata = sim.file(usize::try_from(length).unwrap());
    let geometry = *file(&disk).geometry();
    let data = File::borrowed(disk.fd(), Geometry { discard: None, ..geometry });
    let target = Integrity::borrowed(data, metadata.fd(), format).unwrap();
    let (dies, waits) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(true)));
    let target = Mortal { target, dies: Arc::clone(&dies), waits: Arc::clone(&waits) };
    let pool = pool_of(&sim, 2);
    let device = Device::create_in(&pool, &sim, target, options()).unwrap();
    let client = sim.client(device.info().id).unwrap();
    let write = ClientOp::Write { offset: 0, data: vec![1; 4096], fua: false };
    client.submit(&write, Some(0));
    until("the first write has its turn", || !dies.load(Ordering::Relaxed));
    client.submit(&write, Some(1));
    // The second write meets the first, and waits on the other reactor.
    thread::sleep(Duration::from_millis(20));
    assert_eq!(client.in_flight(), 2);
    waits.store(false, Ordering::Relaxed);
    assert!(matches!(device.wait(), End::Failed(_)));
    until("both writes are answered", || client.in_flight() == 0);
    assert!(client.take().iter().all(|done| done.result == Err(libc::EIO)));
    drop(client);
    until("it is deleted", || device::info(sim.clone(), device.info().id).is_err());
    assert!(sim.violations().is_empty(), "{:?}", sim.violations());
    drop(device);
    pool.close().unwrap();
}
