//! A service behind a remote as the device's contents: an export of an NBD server, an image of Ceph RBD, a file on a
//! web server.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use super::{Errno, Geometry, Op, Plan, REMOTE, Request, Step, StepKind, Target};
use crate::allocation::Allocation;
use crate::error::Result;
use crate::remote::Remote;

/// A service: each request is one step.
#[derive(Debug)]
pub struct OnRemote {
    geometry: Geometry,
    layout: String,
    remotes: [Arc<dyn Remote>; 1],
}

impl OnRemote {
    /// `layout` is another text for other contents ([`Target::layout`]).
    pub(super) fn new(remote: impl Remote, layout: String, geometry: Geometry) -> Self {
        Self { geometry, layout, remotes: [Arc::new(remote)] }
    }
}

impl Target for OnRemote {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn files(&self) -> &[RawFd] {
        &[]
    }

    fn remotes(&self) -> &[Arc<dyn Remote>] {
        &self.remotes
    }

    fn layout(&self) -> Option<String> {
        Some(self.layout.clone())
    }

    fn max_steps(&self) -> usize {
        1
    }

    fn plan(&self, request: &Request, plan: &mut Plan<'_>) -> std::result::Result<(), Errno> {
        let kind = match request.op {
            Op::Read => StepKind::Read,
            // Nothing is kept back.
            Op::Flush if !self.geometry.volatile_cache => return Ok(()),
            Op::Flush => StepKind::Sync,
            Op::Zone(_) => return Err(Errno(libc::EOPNOTSUPP)),
            _ if self.geometry.read_only => return Err(Errno(libc::EROFS)),
            Op::Write => StepKind::Write { dsync: request.flags.fua() },
            Op::Discard => StepKind::Discard,
            Op::WriteZeroes if request.flags.no_unmap() => StepKind::ZeroRange,
            Op::WriteZeroes => StepKind::PunchHole,
        };
        let (length, offset) = (request.length, request.offset);
        plan.push(Step { kind, file: REMOTE, length, offset, ..Step::EMPTY });
        Ok(())
    }

    /// As the service says, in whole logical blocks.
    fn allocation(&self, offset: u64, length: u64) -> io::Result<Allocation> {
        let found = self.remotes[0].allocation(offset, length);
        let whole = found.length & !u64::from(self.geometry.logical_block - 1);
        Ok(match whole {
            // The end of the extent lies in the block.
            0 => Allocation::data(length.min(self.geometry.logical_block.into())),
            _ => Allocation { length: whole, ..found },
        })
    }

    fn check_size(&self, size: u64) -> Result<()> {
        self.remotes[0].check_size(size)
    }
}
