//! Targets whose requests are answered elsewhere.

use std::sync::Arc;

use super::{Errno, Op, Plan, Request};
use crate::bridge::{Bridge, Misfit, Pieces};

/// The part of a target that asks somebody beyond a bridge instead of planning by itself.
pub trait Elsewhere: Send + Sync {
    /// The way to whoever answers.
    fn bridge(&self) -> &Arc<Bridge>;

    /// Whether it is asked for requests of this kind; others are planned as ever.
    fn asks(&self, op: Op) -> bool;

    /// What pieces of backends become: the whole of `request`, or steps that somebody wants done
    /// with its buffer before it goes on.
    ///
    /// # Errors
    /// Why they do not fit, or the errno that a backend has for them.
    fn plan_of(
        &self,
        request: &Request,
        pieces: &Pieces<'_>,
        whole: bool,
        plan: &mut Plan<'_>,
    ) -> Result<(), Unfit>;
}

/// Why pieces cannot be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// They make no sense.
    Misfit(Misfit),
    /// Their backend fails them.
    Fails(Errno),
}

impl From<Misfit> for Unfit {
    fn from(misfit: Misfit) -> Self {
        Self::Misfit(misfit)
    }
}

impl From<Errno> for Unfit {
    fn from(errno: Errno) -> Self {
        Self::Fails(errno)
    }
}
