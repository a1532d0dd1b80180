//! Requests that do not end, and reactors that do not answer.

use std::os::fd::RawFd;
use std::sync::{Arc, Condvar};

use ublk_core::device::{Awaits, Rates, Stall, ThrottleLimits};
use ublk_core::targets::{Errno, Geometry, Plan, Request, Step, StepKind, Target};

use super::*;

const AFTER: Duration = Duration::from_millis(100);

/// A target whose reads of the first block wait for the backing store, and of the second hold the
/// reactor itself until they are let go.
struct Stuck {
    geometry: Geometry,
    holds: Arc<(Mutex<bool>, Condvar)>,
}

impl Target for Stuck {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn files(&self) -> &[RawFd] {
        &[]
    }

    fn max_steps(&self) -> usize {
        2
    }

    fn plan(&self, request: &Request, plan: &mut Plan<'_>) -> Result<(), Errno> {
        if request.op == Op::Read && request.offset == 4096 {
            let (held, changed) = &*self.holds;
            let held = held.lock().unwrap();
            drop(changed.wait_while(held, |held| *held).unwrap());
        }
        if request.op == Op::Read && request.offset == 0 {
            let wait = |length| Step { kind: StepKind::Wait, length, ..Step::EMPTY };
            plan.push(wait(1));
            plan.push(wait(1_000_000));
        }
        Ok(())
    }
}

fn stuck(held: bool) -> (Stuck, Arc<(Mutex<bool>, Condvar)>) {
    let holds = Arc::new((Mutex::new(held), Condvar::new()));
    (Stuck { geometry: Geometry::new(SIZE as u64), holds: Arc::clone(&holds) }, holds)
}

fn watched() -> DeviceOptions {
    DeviceOptions { watchdog: Some(AFTER), queues: 1, ..options() }
}

/// The first stalls that looks find within the time of a test.
fn first(device: &Device<Sim>) -> Vec<Stall> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let stalls = device.stalls();
        if !stalls.is_empty() || Instant::now() > deadline {
            return stalls;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_request_that_does_not_end_is_reported_once_with_the_step_that_it_waits_for() {
    let _alone = alone();
    use BufferMode::{Auto, Copy, Register, UserCopy};
    for (mode, exchange) in [
        (Auto, ExchangeMode::Batch),
        (Auto, ExchangeMode::PerIo),
        (Register, ExchangeMode::PerIo),
        (Copy, ExchangeMode::PerIo),
        (UserCopy, ExchangeMode::PerIo),
    ] {
        let sim = Sim::new(SimConfig::blocking(3));
        let asked = DeviceOptions { buffers: vec![mode], exchange: Some(exchange), ..watched() };
        let device = Device::create(&sim, stuck(false).0, asked).unwrap();
        let id = device.info().id;
        let client = sim.client(id).unwrap();
        thread::scope(|scope| {
            let slow = scope.spawn(|| {
                let own = sim.client(id).unwrap();
                own.run(&ClientOp::Read { offset: 0, length: 8192 }).result
            });
            let stalls = first(&device);
            let [Stall::Request { queue, request, age, awaits, file }] = &stalls[..] else {
                panic!("{mode:?}: {stalls:?}");
            };
            assert_eq!(
                (*queue, request.op, request.offset, request.length),
                (0, Op::Read, 0, 8192)
            );
            assert!(*age >= AFTER, "{age:?}");
            let step = |kind, length| Awaits::Step(Step { kind, length, ..Step::EMPTY });
            assert_eq!(*awaits, step(StepKind::Wait, 1_000_000), "not the step that has ended");
            assert_eq!(*file, None);
            while !slow.is_finished() {
                let others = ClientOp::Read { offset: 65536, length: 4096 };
                assert_eq!(client.run(&others).result, Ok(()));
                assert_eq!(device.stalls(), [], "reported once");
                thread::sleep(Duration::from_millis(10));
            }
            assert_eq!(slow.join().unwrap(), Ok(()));
        });
        drop(client);
        device.close().unwrap();
        assert_eq!(device.stalls(), []);
        assert_nothing_left(&sim, id);
    }
}

#[test]
fn a_reactor_that_does_not_answer_is_reported_by_name() {
    let _alone = alone();
    let sim = Sim::new(SimConfig::blocking(4));
    let (target, holds) = stuck(true);
    let device = Device::create(&sim, target, watched()).unwrap();
    let id = device.info().id;
    let client = sim.client(id).unwrap();
    assert_eq!(device.stalls(), []);
    client.submit(&ClientOp::Read { offset: 4096, length: 4096 }, None);
    let stalls = first(&device);
    let [Stall::Reactor { name, age }] = &stalls[..] else { panic!("{stalls:?}") };
    assert!(*age >= AFTER && *name == format!("ublk{id}q0"), "{stalls:?}");
    assert_eq!(device.stalls(), [], "reported once");
    *holds.0.lock().unwrap() = false;
    holds.1.notify_all();
    until("the request ends", || client.in_flight() == 0);
    drop(client);
    device.close().unwrap();
    assert_nothing_left(&sim, id);
}

#[test]
fn a_request_that_waits_for_the_limits_of_the_device_is_not_stalled() {
    let _alone = alone();
    let sim = Sim::new(SimConfig::blocking(5));
    let all = Rates { iops: Some(1), bytes: None };
    let throttle = ThrottleLimits { all, burst: Duration::ZERO, ..ThrottleLimits::default() };
    let device = create(&sim, &sim.file(SIZE), DeviceOptions { throttle, ..watched() });
    let client = sim.client(device.info().id).unwrap();
    let read = ClientOp::Read { offset: 0, length: 4096 };
    (0..3).for_each(|_| _ = client.submit(&read, None));
    until("all are read", || {
        assert_eq!(device.stalls(), []);
        thread::sleep(Duration::from_millis(10));
        client.in_flight() == 0
    });
    drop(client);
    device.close().unwrap();
}

#[test]
fn the_patience_of_the_watchdog_has_a_range() {
    for milliseconds in [0, 99, 3_600_001] {
        let watchdog = Some(Duration::from_millis(milliseconds));
        let error = DeviceOptions { watchdog, ..options() }.validate().unwrap_err();
        assert!(error.to_string().contains("from 100 to 3600000"), "{error}");
    }
}
