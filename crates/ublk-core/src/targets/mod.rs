//! Targets answer requests.
//!
//! A target turns a request into rounds of steps, backend I/O on the request's buffer: a [`Plan`]
//! first, and, where the target asks or a step has failed, the [next](Target::next) round when the
//! steps have ended. A target does no I/O, knows no ring and no clock, and so is small, testable
//! without a kernel, and composable: a layer asks its children for their plans.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use crate::allocation::Allocation;
use crate::error::{Code, Error};
pub use crate::memory::Region;
use crate::remote::Remote;

mod boot;
mod children;
mod durability;
mod elsewhere;
mod geometry;
mod on_remote;
mod pieces;
mod plan;
mod progress;
mod request;
mod rounds;
mod snapshot;
mod state;
#[cfg(test)]
mod testing;

pub use boot::Boot;
pub use durability::Durability;
pub use elsewhere::{Elsewhere, Reach, Unfit};
pub use geometry::{
    DiscardLimits, Geometry, GeometryError, Presentation, SegmentLimits, ZonedLimits,
};
pub use on_remote::OnRemote;
pub use plan::{Part, Place, Plan, REMOTE, Remap, Step, StepKind, Ticket};
pub use progress::Progress;
pub use request::{Op, Request, RequestFlags, ZoneOp};
pub use rounds::{Ended, Next};
pub use snapshot::{FlattenOptions, Frozen, Merged, Queues, Snapshot, SnapshotOptions};

pub mod delay;
pub mod error;
pub mod file;
pub mod handler;
pub mod http;
pub mod integrity;
pub mod linear;
pub mod native;
pub mod nbd;
pub mod null;
pub mod overlay;
pub mod qcow2;
pub mod rbd;
pub mod striped;
pub mod zoned;

/// A positive errno, as a request can be answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

/// Answers requests. All queues of a device share the target.
pub trait Target: Send + Sync + 'static {
    /// Size, block sizes, limits and abilities, fixed for the device's life.
    fn geometry(&self) -> &Geometry;

    /// Whether the kernel should hold back background writes when reads have to wait for writes
    /// (writeback throttling, `wbt_lat_usec`). Throttling costs each request some instructions,
    /// without a gain where writes take no time.
    fn throttles_writes(&self) -> bool {
        true
    }

    /// The files of steps; a step's `file` is an index of this slice. The files stay open as long
    /// as the target lives.
    fn files(&self) -> &[RawFd];

    /// The services of steps; [`REMOTE`] plus an index of this slice is a step's `file`. By default none.
    fn remotes(&self) -> &[Arc<dyn Remote>] {
        &[]
    }

    /// The number of files that may be added while the device is served ([`Queues`]): reactors keep
    /// as many places free behind the places of [`files`](Self::files).
    fn spare_places(&self) -> usize {
        0
    }

    /// The part of [`files`](Self::files) whose order belongs to the layout; by default all files.
    fn laid_out(&self) -> &[RawFd] {
        self.files()
    }

    /// The durability of [`files`](Self::files), for all queues. A target with files has a
    /// [`Durability`] for as many files and for the [spare places](Self::spare_places).
    fn durability(&self) -> &Durability {
        Durability::NONE
    }

    /// The layout of the device's bytes on the files, as a text: equal for equal layouts. The next
    /// server of the device must have the same text. Absent where the target has no such text.
    fn layout(&self) -> Option<String> {
        None
    }

    /// The maximal number of steps of a round, at most 255.
    fn max_steps(&self) -> usize;

    /// The longest wait of a request by the target's own choice, not counting the backends' time.
    fn longest_wait(&self) -> Duration {
        Duration::ZERO
    }

    /// Plans the first round of `request`. A plan without steps that does not [ask](Plan::ask) is
    /// success at once. A zone append lands at the offset of the plan's write step: on a zoned
    /// target, offsets of the device and of the step's file are the same.
    ///
    /// # Errors
    /// The errno for the failed request.
    fn plan(&self, request: &Request, plan: &mut Plan<'_>) -> Result<(), Errno>;

    /// The place of a plain read's or write's bytes, if the plan would say nothing else: the queue
    /// loop then needs no plan. Plain are requests that [`Request::plain`] reads.
    #[inline]
    fn remap(&self, request: &Request) -> Remap {
        let _ = request;
        Remap::Plan
    }

    /// The source of plans beyond a bridge; by default none.
    fn elsewhere(&self) -> Option<&dyn Elsewhere> {
        None
    }

    /// Whether the device may change to `size` bytes, a multiple of the logical block size, while
    /// in service: the backing store must have room. May look at the backing store, and thus block.
    ///
    /// # Errors
    /// The reason and the remedy; by default that this target's size is fixed.
    fn check_size(&self, size: u64) -> crate::error::Result<()> {
        Err(fixed_size(size))
    }

    /// The state of the bytes from `offset` on, as far as the state is the same, at most `length` bytes and
    /// at least one. May block. By default all ranges take space.
    ///
    /// # Errors
    /// The errno of the system call that looks.
    fn allocation(&self, offset: u64, length: u64) -> io::Result<Allocation> {
        let _ = offset;
        Ok(Allocation::data(length))
    }

    /// Whether [`allocation`](Self::allocation) tells which ranges differ from a base. By default not.
    fn tells_changes(&self) -> bool {
        false
    }

    /// Freezes the present contents of the disk in a separate file; the device stays in service.
    /// May block.
    ///
    /// # Errors
    /// [`Code::Unsupported`] by default; the errors of [`overlay::Overlay::take_snapshot`].
    fn snapshot(
        &self,
        options: &SnapshotOptions,
        queues: &dyn Queues,
    ) -> crate::error::Result<Snapshot> {
        let _ = (options, queues);
        Err(Error::new(Code::Unsupported, "this target takes no snapshots")
            .hint("an overlay does, also below a delay: targets.overlay(base, path)"))
    }

    /// The frozen layers below the disk; none for a target without layers, as by default.
    ///
    /// # Errors
    /// The errno of the system call that looks at a file.
    fn frozen(&self) -> io::Result<Option<Frozen>> {
        Ok(None)
    }

    /// Merges the frozen layers of the disk into one; the device stays in service. Blocks.
    ///
    /// # Errors
    /// [`Code::Unsupported`] by default; the errors of [`overlay::Overlay::flatten_below`].
    fn flatten(
        &self,
        options: &FlattenOptions,
        queues: &dyn Queues,
        progress: &Progress,
    ) -> crate::error::Result<Merged> {
        let _ = (options, queues, progress);
        Err(Error::new(Code::Unsupported, "this target has no layers to merge")
            .hint("an overlay has, also below a delay: targets.overlay(base, path)"))
    }

    /// The memory of steps with the place [`Place::Own`], the same for the target's life.
    fn memory(&self) -> Option<&Arc<Region>> {
        None
    }

    /// Whether plans of this target ever [ask](Plan::ask). A layer that hears only of failures
    /// cannot have such targets as children.
    fn takes_rounds(&self) -> bool {
        false
    }

    /// Called when a round of `request` has ended: a step has failed, or the plan has
    /// [asked](Plan::ask). With [`Next::Round`] the steps in `plan`, empty before, are the next
    /// round. Must not block.
    ///
    /// By default a request ends with its first round.
    fn next(&self, request: &Request, ended: Ended, plan: &mut Plan<'_>) -> Next {
        let _ = (request, plan);
        ended.result.map_or_else(Next::Fail, |()| Next::Done)
    }

    /// Called when a request whose plan has asked, with `ticket`, fails without a call of
    /// [`next`](Self::next): the request's bytes could not be reached, or the request was given up.
    /// No step of the request is under way. By default nothing.
    fn failed(&self, request: &Request, ticket: u64) {
        let _ = (request, ticket);
    }

    /// Called when a reactor of the device is gone, together with planned requests: the target
    /// hears no more of the planned requests. A target that makes requests wait for others must not
    /// wait for these. By default nothing.
    fn deserted(&self) {}
}

/// The refusal of another size.
pub(crate) fn fixed_size(size: u64) -> Error {
    let message = format!("this target cannot change its size to {size} bytes");
    Error::new(Code::Unsupported, message)
}
