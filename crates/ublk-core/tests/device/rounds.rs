//! A target hears of the end of each of its requests once, whatever fails after the target has ended it.

use std::os::fd::RawFd;
use std::sync::Arc;

use ublk_core::driver::sim::Faults;
use ublk_core::targets::{Ended, Errno, Geometry, Next, Plan, Request, Step, StepKind, Target};

use super::*;

/// Ends each request in its second round, and counts how often it hears of an end.
struct Counting {
    geometry: Geometry,
    ends: Arc<AtomicU64>,
}

impl Target for Counting {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn files(&self) -> &[RawFd] {
        &[]
    }

    fn max_steps(&self) -> usize {
        1
    }

    fn takes_rounds(&self) -> bool {
        true
    }

    fn plan(&self, request: &Request, plan: &mut Plan<'_>) -> Result<(), Errno> {
        let length = request.length;
        plan.push(Step { kind: StepKind::Zeros, length, ..Step::EMPTY });
        plan.ask(1);
        Ok(())
    }

    fn next(&self, _: &Request, ended: Ended, _: &mut Plan<'_>) -> Next {
        self.ends.fetch_add(1, Ordering::Relaxed);
        ended.result.map_or_else(Next::Fail, |()| Next::Done)
    }

    fn failed(&self, _: &Request, _: u64) {
        self.ends.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_read_whose_bytes_cannot_be_copied_to_its_client_has_ended_once() {
    let faults = Faults { error: 1000, ..Faults::default() };
    let sim = Sim::new(SimConfig { faults, ..SimConfig::blocking(7) });
    let ends = Arc::<AtomicU64>::default();
    let target = Counting { geometry: Geometry::new(SIZE as u64), ends: Arc::clone(&ends) };
    let copying = DeviceOptions { buffers: vec![BufferMode::UserCopy], queues: 1, ..options() };
    let device = Device::create(&sim, target, copying).unwrap();
    let client = sim.client(device.info().id).unwrap();
    let read = client.run(&ClientOp::Read { offset: 0, length: 4096 });
    assert_eq!((read.result, ends.load(Ordering::Relaxed)), (Err(libc::EIO), 1));
    drop(client);
    device.close().unwrap();
}
