//! What answers requests.
//!
//! A target turns a request into rounds of steps, backend I/O on the request's buffer: a [`Plan`] first,
//! and, where the target asks for it or a step has failed, what is [next](Target::next) when the steps
//! have ended. A target does no I/O, knows no ring and no clock, and so is small, testable without a
//! kernel, and composable: a layer asks its children for their plans.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Code, Error};
pub use crate::memory::Region;

mod boot;
mod children;
mod durability;
mod elsewhere;
mod geometry;
mod plan;
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
pub use plan::{Part, Place, Plan, Remap, Step, StepKind};
pub use request::{Op, Request, RequestFlags, ZoneOp};
pub use rounds::{Ended, Next};
pub use snapshot::{Queues, Snapshot, SnapshotOptions};

pub mod delay;
pub mod error;
pub mod file;
pub mod handler;
pub mod integrity;
pub mod linear;
pub mod native;
pub mod null;
pub mod overlay;
pub mod striped;
pub mod zoned;

/// A positive errno, as a request can be answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

/// What answers requests. Shared by all queues of a device.
pub trait Target: Send + Sync + 'static {
    /// Size, block sizes, limits and abilities, fixed for the device's life.
    fn geometry(&self) -> &Geometry;

    /// Whether the kernel should hold back background writes when reads have to wait for them
    /// (writeback throttling, `wbt_lat_usec`). It costs each request some instructions, for nothing
    /// where writes take no time.
    fn throttles_writes(&self) -> bool {
        true
    }

    /// The files that steps name by their place in this slice. They stay open as long as the
    /// target lives.
    fn files(&self) -> &[RawFd];

    /// How many files may come while the device is served ([`Queues`]): reactors keep as many places
    /// free behind those of [`files`](Self::files).
    fn spare_places(&self) -> usize {
        0
    }

    /// Those of the [`files`](Self::files) that the layout names by their order; by default all.
    fn laid_out(&self) -> &[RawFd] {
        self.files()
    }

    /// What is known of the durability of [`files`](Self::files), for all queues. A target with files
    /// has one of as many, and of its [spare places](Self::spare_places).
    fn durability(&self) -> &Durability {
        Durability::NONE
    }

    /// How the bytes of the device lie on the files, as a text that is the same for the same layout:
    /// the next server of the device has to have the same. Absent where the target cannot say.
    fn layout(&self) -> Option<String> {
        None
    }

    /// The most steps that one round can have, at most 255.
    fn max_steps(&self) -> usize;

    /// The longest that a request waits by itself, whatever its backends take.
    fn longest_wait(&self) -> Duration {
        Duration::ZERO
    }

    /// What `request` becomes first. A plan without steps that does not [ask](Plan::ask) is success at
    /// once. A zone append lands where its plan's
    /// write step says: on a zoned target, offsets of the device and of that file are the same.
    ///
    /// # Errors
    /// The errno that the request fails with.
    fn plan(&self, request: &Request, plan: &mut Plan<'_>) -> Result<(), Errno>;

    /// Where the bytes of a plain read or write are, if that is all that its plan would say: the
    /// queue loop then needs none. Plain are requests that [`Request::plain`] reads.
    #[inline]
    fn remap(&self, request: &Request) -> Remap {
        let _ = request;
        Remap::Plan
    }

    /// Who is asked for plans where they come from beyond a bridge; by default nobody.
    fn elsewhere(&self) -> Option<&dyn Elsewhere> {
        None
    }

    /// Whether the device may become `size` bytes, a multiple of its logical block size, while it
    /// is served: what lies behind must hold as much. May look at it, and thus block.
    ///
    /// # Errors
    /// Why not, and what to do; by default that this target's size is fixed.
    fn check_size(&self, size: u64) -> crate::error::Result<()> {
        let message = format!("this target cannot change its size to {size} bytes");
        Err(Error::new(Code::Unsupported, message))
    }

    /// Freezes what the disk holds now in a file of its own; the device goes on. May block.
    ///
    /// # Errors
    /// [`Code::Unsupported`] by default; those of [`overlay::Overlay::take_snapshot`].
    fn snapshot(
        &self,
        options: &SnapshotOptions,
        queues: &dyn Queues,
    ) -> crate::error::Result<Snapshot> {
        let _ = (options, queues);
        Err(Error::new(Code::Unsupported, "this target takes no snapshots")
            .hint("an overlay does, also below a delay: targets.overlay(base, path)"))
    }

    /// Memory that steps with the place [`Place::Own`] use, the same for the target's life.
    fn memory(&self) -> Option<&Arc<Region>> {
        None
    }

    /// Whether plans of this target ever [ask](Plan::ask). A layer that hears only of failures cannot be
    /// made of such targets.
    fn takes_rounds(&self) -> bool {
        false
    }

    /// A round of `request` has ended: it has failed, or its plan has [asked](Plan::ask). With
    /// [`Next::Round`] the next one is what `plan`, emptied before, has now. Must not block.
    ///
    /// By default a request ends with its first round.
    fn next(&self, request: &Request, ended: Ended, plan: &mut Plan<'_>) -> Next {
        let _ = (request, plan);
        ended.result.map_or_else(Next::Fail, |()| Next::Done)
    }

    /// A request whose plan has asked, with `ticket`, fails, and [`next`](Self::next) is not asked: its
    /// bytes could not be reached, or it was given up. No step of the request is under way. By default
    /// nothing.
    fn failed(&self, request: &Request, ticket: u64) {
        let _ = (request, ticket);
    }

    /// A reactor that serves the device is gone, and with it requests that were planned: nobody will hear
    /// of them again. Whoever lets requests wait for others waits for none of these. By default nothing.
    fn deserted(&self) {}
}
