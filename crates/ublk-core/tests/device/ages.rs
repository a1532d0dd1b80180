//! Requests of unprivileged devices, whose server the kernel kills when one is 30 s old.

use std::os::fd::RawFd;
use std::sync::Arc;

use ublk_core::targets::delay::{Delay, Delays};
use ublk_core::targets::native::Native;
use ublk_core::targets::null::Null;
use ublk_core::targets::{Errno, Geometry, Plan, Request, Step, StepKind, Target};

use super::*;

/// How many seconds pass for the simulated kernel in one of ours.
const SPEED: u32 = 10;

/// A target whose backend takes its time for reads of the first block, and does not say so.
struct Slow {
    geometry: Geometry,
    takes: Duration,
    /// How many requests it has heard to have failed.
    failed: Arc<AtomicU64>,
}

impl Target for Slow {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn files(&self) -> &[RawFd] {
        &[]
    }

    fn max_steps(&self) -> usize {
        1
    }

    fn plan(&self, request: &Request, plan: &mut Plan<'_>) -> Result<(), Errno> {
        if request.op == Op::Read && request.offset == 0 {
            let length = u32::try_from(self.takes.as_micros()).unwrap();
            plan.push(Step { kind: StepKind::Wait, length, ..Step::EMPTY });
        }
        Ok(())
    }

    fn failed(&self, request: &Request, ticket: u64) {
        assert_eq!((request.offset, ticket), (0, 0));
        self.failed.fetch_add(1, Ordering::Relaxed);
    }
}

fn users_kernel() -> Sim {
    let kernel = Kernel { root: false, speed: SPEED, ..Kernel::linux_7_3() };
    Sim::new(SimConfig { kernel, ..SimConfig::blocking(5) })
}

fn unprivileged() -> DeviceOptions {
    DeviceOptions { unprivileged: true, queues: 1, ..options() }
}

/// What a read of the first block comes to, how many failures its target hears of, and what of the
/// rules is broken then.
fn read(takes: Duration) -> (Result<(), i32>, u64, Vec<String>) {
    let sim = users_kernel();
    let told = Arc::<AtomicU64>::default();
    let target = Slow { geometry: Geometry::new(SIZE as u64), takes, failed: Arc::clone(&told) };
    let device = Device::create(&sim, target, unprivileged()).unwrap();
    let id = device.info().id;
    let (begun, other) = (sim.client(id).unwrap(), sim.client(id).unwrap());
    let result = thread::scope(|scope| {
        let slow = scope.spawn(|| begun.run(&ClientOp::Read { offset: 0, length: 4096 }).result);
        // Others are served meanwhile.
        assert_eq!(other.run(&ClientOp::Read { offset: 4096, length: 4096 }).result, Ok(()));
        slow.join().unwrap()
    });
    // Also while a step of a request that was given up is in flight, requests with other tags are
    // served. Submitted at once, as many requests as there are tags have one on the tag of that request.
    let write = ClientOp::Write { offset: 0, data: vec![1; 4096], fua: false };
    let all = vec![write; options().depth.into()];
    let _taken_below = other.begin(&all, false);
    let mut ended = Vec::new();
    while ended.len() < all.len() {
        ended.extend(other.take());
        thread::yield_now();
    }
    let failed = ended.iter().filter(|one| one.result.is_err()).count();
    assert_eq!(failed, usize::from(result.is_err()));
    drop((begun, other));
    device.close().unwrap();
    let violations = sim.violations().iter().map(ToString::to_string).collect();
    sim.audit();
    (result, told.load(Ordering::Relaxed), violations)
}

#[test]
fn a_request_whose_backend_does_not_answer_fails_before_it_is_too_old() {
    let _alone = alone();
    assert_eq!(read(Duration::from_secs(1)), (Ok(()), 0, vec![]));
    assert_eq!(read(Duration::from_secs(60)), (Err(libc::ETIMEDOUT), 1, vec![]));
}

#[test]
fn targets_that_may_take_too_long_are_refused() {
    let _alone = alone();
    let slow = |seconds: u32| {
        let delays = Delays { write: seconds * 1_000_000, ..Delays::default() };
        Delay::new(Native::Null(Null::new(SIZE as u64)), delays)
    };
    let sim = users_kernel();
    drop(Device::create(&sim, slow(19), unprivileged()).unwrap());
    let both =
        Delay::new(Native::Delay(slow(10)), Delays { read: 10_000_000, ..Delays::default() });
    for target in [slow(20), both] {
        let error = Device::create(&sim, target, unprivileged()).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument);
        assert!(error.to_string().contains("unprivileged device"), "{error}");
    }
    let lent = DeviceOptions { buffers: vec![BufferMode::GetData], ..unprivileged() };
    let error = Device::create(&sim, Null::new(SIZE as u64), lent).unwrap_err();
    assert!(error.to_string().contains("get-data"), "{error}");
}
