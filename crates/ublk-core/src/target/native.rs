//! The targets that can be described from outside: one type, so that the queue loop needs no
//! virtual call.

use std::os::fd::RawFd;

use super::file::File;
use super::null::Null;
use super::{Errno, Geometry, Plan, Request, Target};

/// One of the native targets.
#[derive(Debug)]
pub enum Native {
    /// Answers everything, touches nothing.
    Null(Null),
    /// A regular file or a block device.
    File(File),
}

macro_rules! forward {
    ($self:ident, $target:ident => $call:expr) => {
        match $self {
            Native::Null($target) => $call,
            Native::File($target) => $call,
        }
    };
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

    fn max_steps(&self) -> usize {
        forward!(self, target => target.max_steps())
    }

    #[inline]
    fn plan(&self, request: &Request, plan: &mut Plan<'_>) -> Result<(), Errno> {
        forward!(self, target => target.plan(request, plan))
    }

    fn retry(
        &self,
        request: &Request,
        errno: Errno,
        round: u8,
        plan: &mut Plan<'_>,
    ) -> Result<(), Errno> {
        forward!(self, target => target.retry(request, errno, round, plan))
    }
}
