//! What answers requests.
//!
//! A target is a pure function from a request to a [`Plan`]: steps of backend I/O on the
//! request's buffer. It does no I/O, knows no ring and no clock, and so is small, testable
//! without a kernel, and composable: a layer asks its children for their plans.

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
mod reached;
mod request;
mod state;
#[cfg(test)]
mod testing;

pub use boot::Boot;
pub use durability::Durability;
pub use elsewhere::{Elsewhere, Reach, Unfit};
pub use geometry::{
    DiscardLimits, Geometry, GeometryError, Presentation, SegmentLimits, ZonedLimits,
};
pub use plan::{Part, Plan, Remap, Step, StepKind};
pub use reached::{Go, Reached};
pub use request::{Op, Request, RequestFlags, ZoneOp};

pub mod delay;
pub mod error;
pub mod file;
pub mod handler;
pub mod integrity;
pub mod linear;
pub mod native;
pub mod null;
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

    /// What is known of the durability of [`files`](Self::files), for all queues. A target with files
    /// has one of as many.
    fn durability(&self) -> &Durability {
        Durability::NONE
    }

    /// How the bytes of the device lie on the files, as a text that is the same for the same layout:
    /// the next server of the device has to have the same. Absent where the target cannot say.
    fn layout(&self) -> Option<String> {
        None
    }

    /// The most steps that one plan can have.
    fn max_steps(&self) -> usize;

    /// The longest that a request waits by itself, whatever its backends take.
    fn longest_wait(&self) -> Duration {
        Duration::ZERO
    }

    /// What `request` becomes. An empty plan is success at once. A zone append lands where its plan's
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

    /// Whether plans of this target may [inspect](StepKind::Inspect). Where the kernel lends pages,
    /// that takes user copy beside (`UBLK_F_USER_COPY`, Linux 6.16 together with zero copy).
    fn inspects(&self) -> bool {
        false
    }

    /// The plan of a write whose `bytes` a plan has asked to see, with one
    /// [`StepKind::Inspect`]; it must not ask again.
    ///
    /// # Errors
    /// The errno that the request fails with.
    fn plan_inspected(
        &self,
        request: &Request,
        bytes: &[u8],
        plan: &mut Plan<'_>,
    ) -> Result<(), Errno> {
        let _ = (request, bytes, plan);
        Err(Errno(libc::EIO))
    }

    /// Memory that [`StepKind::WriteOwn`] writes from, the same for the target's life.
    fn memory(&self) -> Option<&Arc<Region>> {
        None
    }

    /// The plan of `request` has come to a [`StepKind::Note`]: all that lies before it has been done.
    /// Must not block.
    fn reached(&self, request: &Request, reached: Reached<'_>) -> Go {
        let _ = (request, reached);
        Go::On
    }

    /// A request that was planned fails for good; `plan` is its last one. Whoever
    /// [notes](StepKind::Note) what is done hears here what is not. By default nothing.
    fn failed(&self, request: &Request, plan: &[Step]) {
        let _ = (request, plan);
    }

    /// A reactor that serves the device is gone, and with it requests that were planned: nobody will hear
    /// of them again. Whoever lets requests wait for others waits for none of these. By default nothing.
    fn deserted(&self) {}

    /// Asked when a step of a plan failed with `errno`; `round` counts from 0. A target that can
    /// answer the request in another way fills `plan` (emptied before) and returns `Ok`.
    ///
    /// # Errors
    /// The errno that the request fails with; by default the one that the step gave.
    fn retry(
        &self,
        request: &Request,
        errno: Errno,
        round: u8,
        plan: &mut Plan<'_>,
    ) -> Result<(), Errno> {
        let _ = (request, round, plan);
        Err(errno)
    }
}
