//! A target that answers late (device-mapper's `delay`).

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use super::native::Native;
use super::{
    Durability, Ended, Errno, FlattenOptions, Frozen, Geometry, Merged, Next, Op, Part, Plan,
    Presentation, Progress, Queues, Region, Request, Snapshot, SnapshotOptions, Step, StepKind,
    Target, ZoneOp,
};
use crate::allocation::Allocation;
use crate::remote::Remote;

/// How long requests wait before the target below sees them, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delays {
    /// Reads.
    pub read: u32,
    /// Writes, discards, zeros.
    pub write: u32,
    /// Flushes.
    pub flush: u32,
}

/// Passes requests on to the target below after a while; other requests do not wait for them.
#[derive(Debug)]
pub struct Delay {
    child: Box<Native>,
    delays: Delays,
    geometry: Geometry,
}

impl Delay {
    /// `child`, later.
    pub fn new(child: Native, delays: Delays) -> Self {
        Self { geometry: *child.geometry(), child: Box::new(child), delays }
    }

    /// The same, as a user asks for it.
    ///
    /// # Errors
    /// `InvalidArgument` for a block size that the kernel does not take, or below the target's own.
    pub fn presented(self, asked: Presentation) -> crate::error::Result<Self> {
        Ok(Self { geometry: self.geometry.presented(asked)?, ..self })
    }
}

impl Target for Delay {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn files(&self) -> &[RawFd] {
        self.child.files()
    }

    fn remotes(&self) -> &[Arc<dyn Remote>] {
        self.child.remotes()
    }

    fn spare_places(&self) -> usize {
        self.child.spare_places()
    }

    fn laid_out(&self) -> &[RawFd] {
        self.child.laid_out()
    }

    fn allocation(&self, offset: u64, length: u64) -> io::Result<Allocation> {
        self.child.allocation(offset, length)
    }

    fn tells_changes(&self) -> bool {
        self.child.tells_changes()
    }

    fn snapshot(
        &self,
        options: &SnapshotOptions,
        queues: &dyn Queues,
    ) -> crate::error::Result<Snapshot> {
        self.child.snapshot(options, queues)
    }

    fn frozen(&self) -> io::Result<Option<Frozen>> {
        self.child.frozen()
    }

    fn flatten(
        &self,
        options: &FlattenOptions,
        queues: &dyn Queues,
        progress: &Progress,
    ) -> crate::error::Result<Merged> {
        self.child.flatten(options, queues, progress)
    }

    fn durability(&self) -> &Durability {
        self.child.durability()
    }

    fn layout(&self) -> Option<String> {
        self.child.layout()
    }

    fn max_steps(&self) -> usize {
        1 + self.child.max_steps()
    }

    fn longest_wait(&self) -> Duration {
        let Delays { read, write, flush } = self.delays;
        let longest = Duration::from_micros(read.max(write).max(flush).into());
        longest + self.child.longest_wait()
    }

    fn plan(&self, request: &Request, plan: &mut Plan<'_>) -> Result<(), Errno> {
        let length = match request.op {
            Op::Read | Op::Zone(ZoneOp::Report) => self.delays.read,
            Op::Flush => self.delays.flush,
            Op::Write | Op::Discard | Op::WriteZeroes | Op::Zone(_) => self.delays.write,
        };
        if length == 0 {
            return self.child.plan(request, plan);
        }
        plan.push(Step { kind: StepKind::Wait, length, ..Step::EMPTY });
        let later = Part { stage: 1, ..Part::default() };
        plan.part(later, |plan| self.child.plan(request, plan))
    }

    fn takes_rounds(&self) -> bool {
        self.child.takes_rounds()
    }

    fn next(&self, request: &Request, ended: Ended, plan: &mut Plan<'_>) -> Next {
        self.child.next(request, ended, plan)
    }

    fn memory(&self) -> Option<&Arc<Region>> {
        self.child.memory()
    }

    fn failed(&self, request: &Request, ticket: u64) {
        self.child.failed(request, ticket);
    }

    fn deserted(&self) {
        self.child.deserted();
    }
}

#[cfg(test)]
mod tests {
    use super::super::null::Null;
    use super::super::testing::{file, plan, request};
    use super::*;

    fn stages(target: &Delay, op: Op) -> Vec<(StepKind, u8, u32)> {
        let steps = plan(target, &request(op, 0, 4096)).unwrap();
        steps.iter().map(|step| (step.kind, step.stage, step.length)).collect()
    }

    #[test]
    fn requests_wait_before_they_go_on() {
        let delays = Delays { read: 7, write: 8, flush: 0 };
        let target = Delay::new(file(3, 8192), delays);
        assert_eq!(stages(&target, Op::Read), [(StepKind::Wait, 0, 7), (StepKind::Read, 1, 4096)]);
        let write = StepKind::Write { dsync: false };
        assert_eq!(stages(&target, Op::Write), [(StepKind::Wait, 0, 8), (write, 1, 4096)]);
        assert_eq!(stages(&target, Op::Flush), [(StepKind::Sync, 0, 4096)]);
    }

    #[test]
    fn a_target_that_needs_no_step_still_waits() {
        let target =
            Delay::new(Native::Null(Null::new(8192)), Delays { read: 7, ..Delays::default() });
        assert_eq!(stages(&target, Op::Read), [(StepKind::Wait, 0, 7)]);
        assert_eq!(stages(&target, Op::Write), []);
    }
}
