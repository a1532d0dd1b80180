//! All targets of this crate as one type, so that the queue loop needs no virtual call.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use super::delay::Delay;
use super::error::AlwaysFails;
use super::file::File;
use super::handler::Handler;
use super::integrity::Integrity;
use super::linear::Linear;
use super::null::Null;
use super::overlay::{Fixed, Overlay};
use super::qcow2::Qcow2;
use super::striped::Striped;
use super::zoned::Zoned;
use super::{
    Durability, Elsewhere, Ended, Errno, FlattenOptions, Frozen, Geometry, Merged, Next, OnRemote,
    Plan, Progress, Queues, Remap, Request, Snapshot, SnapshotOptions, Target, Ticket,
};
use crate::allocation::Allocation;
use crate::memory::Region;
use crate::remote::Remote;

/// One of the native targets.
// A discriminant of the enum's own takes one comparison, and a discriminant inside a variant several.
#[derive(Debug)]
#[repr(u8)]
pub enum Native {
    /// Answers every request, and stores nothing.
    Null(Null),
    /// A regular file or a block device.
    File(File),
    /// Fails every request.
    Error(AlwaysFails),
    /// Chunks over several targets in turn.
    Striped(Striped),
    /// Targets one behind another.
    Linear(Linear),
    /// A target that answers late.
    Delay(Delay),
    /// A handler beyond a bridge.
    Handler(Handler),
    /// Zones that are written in order.
    Zoned(Box<Zoned>),
    /// A file with metadata beside it.
    Integrity(Box<Integrity>),
    /// What differs from a base.
    Overlay(Box<Overlay>),
    /// A frozen layer and its base.
    Fixed(Box<Fixed>),
    /// A qcow2 image.
    Qcow2(Box<Qcow2>),
    /// A service behind a remote.
    Remote(Box<OnRemote>),
}

macro_rules! forward {
    ($self:ident, $target:ident => $call:expr) => {
        match $self {
            Native::Null($target) => $call,
            Native::File($target) => $call,
            Native::Error($target) => $call,
            Native::Striped($target) => $call,
            Native::Linear($target) => $call,
            Native::Delay($target) => $call,
            Native::Handler($target) => $call,
            Native::Zoned($target) => $call,
            Native::Integrity($target) => $call,
            Native::Overlay($target) => $call,
            Native::Fixed($target) => $call,
            Native::Qcow2($target) => $call,
            Native::Remote($target) => $call,
        }
    };
}

impl Native {
    /// Apart from [`Target::plan`], so that the plans of files stay inlined in the queue loop; with a plan of
    /// its own, so that the caller's plan stays in registers.
    #[inline(never)]
    fn plan_of_layer(
        &self,
        request: &Request,
        mut plan: Plan<'_>,
    ) -> Result<(usize, Option<Ticket>), Errno> {
        forward!(self, target => target.plan(request, &mut plan))?;
        Ok((plan.len(), plan.ticket()))
    }
}

impl Target for Native {
    fn geometry(&self) -> &Geometry {
        forward!(self, target => target.geometry())
    }

    fn throttles_writes(&self) -> bool {
        forward!(self, target => target.throttles_writes())
    }

    fn files(&self) -> &[RawFd] {
        forward!(self, target => target.files())
    }

    fn remotes(&self) -> &[Arc<dyn Remote>] {
        forward!(self, target => target.remotes())
    }

    fn spare_places(&self) -> usize {
        forward!(self, target => target.spare_places())
    }

    fn laid_out(&self) -> &[RawFd] {
        forward!(self, target => target.laid_out())
    }

    fn allocation(&self, offset: u64, length: u64) -> io::Result<Allocation> {
        forward!(self, target => target.allocation(offset, length))
    }

    fn tells_changes(&self) -> bool {
        forward!(self, target => target.tells_changes())
    }

    fn snapshot(
        &self,
        options: &SnapshotOptions,
        queues: &dyn Queues,
    ) -> crate::error::Result<Snapshot> {
        forward!(self, target => target.snapshot(options, queues))
    }

    fn frozen(&self) -> io::Result<Option<Frozen>> {
        forward!(self, target => target.frozen())
    }

    fn flatten(
        &self,
        options: &FlattenOptions,
        queues: &dyn Queues,
        progress: &Progress,
    ) -> crate::error::Result<Merged> {
        forward!(self, target => target.flatten(options, queues, progress))
    }

    fn durability(&self) -> &Durability {
        forward!(self, target => target.durability())
    }

    fn layout(&self) -> Option<String> {
        forward!(self, target => target.layout())
    }

    fn max_steps(&self) -> usize {
        forward!(self, target => target.max_steps())
    }

    fn longest_wait(&self) -> Duration {
        forward!(self, target => target.longest_wait())
    }

    #[inline(always)]
    fn plan(&self, request: &Request, plan: &mut Plan<'_>) -> Result<(), Errno> {
        match self {
            Self::File(file) => file.plan(request, plan),
            Self::Null(null) => null.plan(request, plan),
            layer => plan.append(|rest| layer.plan_of_layer(request, rest)),
        }
    }

    #[inline(always)]
    fn remap(&self, request: &Request) -> Remap {
        match self {
            Self::File(file) => file.remap(request),
            Self::Null(null) => null.remap(request),
            _ => Remap::Plan,
        }
    }

    fn elsewhere(&self) -> Option<&dyn Elsewhere> {
        match self {
            Self::Handler(handler) => Some(handler),
            _ => None,
        }
    }

    fn check_size(&self, size: u64) -> crate::error::Result<()> {
        forward!(self, target => target.check_size(size))
    }

    fn memory(&self) -> Option<&Arc<Region>> {
        forward!(self, target => target.memory())
    }

    fn takes_rounds(&self) -> bool {
        forward!(self, target => target.takes_rounds())
    }

    fn next(&self, request: &Request, ended: Ended, plan: &mut Plan<'_>) -> Next {
        forward!(self, target => target.next(request, ended, plan))
    }

    fn failed(&self, request: &Request, ticket: u64) {
        forward!(self, target => target.failed(request, ticket));
    }

    fn deserted(&self) {
        forward!(self, target => target.deserted());
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{file, plan, request};
    use super::super::{Op, StepKind};
    use super::*;

    #[test]
    fn a_remapped_request_is_what_its_plan_says() {
        for (op, kind) in
            [(Op::Read, StepKind::Read), (Op::Write, StepKind::Write { dsync: false })]
        {
            let request = request(op, 8192, 4096);
            let target = file(5, 1 << 20);
            let Remap::To { file, offset } = target.remap(&request) else {
                panic!("a file needs no plan");
            };
            let [step] = plan(&target, &request).unwrap()[..] else { panic!("one step") };
            assert_eq!((step.kind, step.file, step.offset), (kind, file, offset));
            assert_eq!((step.at, step.length), (0, 4096));

            let null = Native::Null(Null::new(1 << 20));
            assert_eq!(null.remap(&request), Remap::Nowhere);
            assert_eq!(plan(&null, &request), Ok(vec![]));
        }
    }
}
