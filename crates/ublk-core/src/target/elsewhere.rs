//! Targets whose requests are answered elsewhere.

use std::sync::Arc;

use super::{Errno, Op, Plan, Remap, Request};
use crate::bridge::{Bridge, Misfit, Pieces};

/// The part of a target that asks somebody beyond a bridge instead of planning by itself.
pub trait Elsewhere: Send + Sync {
    /// The way to whoever answers.
    fn bridge(&self) -> &Arc<Bridge>;

    /// Whether it is asked for requests of this kind; others are planned as ever.
    fn asks(&self, op: Op) -> bool;

    /// What pieces of backends become that are the whole of `request`.
    ///
    /// # Errors
    /// Why they do not fit, or the errno that a backend has for them.
    fn plan_of(
        &self,
        request: &Request,
        pieces: &Pieces<'_>,
        plan: &mut Plan<'_>,
    ) -> Result<(), Unfit>;

    /// Where the whole of `request` is that lies at `offset` of a backend, or `Plan`: then
    /// [`plan_of`](Self::plan_of) says what there is to say of the piece that it would be.
    fn remap_of(&self, request: &Request, backend: usize, offset: u64) -> Remap;

    /// What pieces of backends become that somebody wants done with the buffer of `request` before
    /// it goes on. Each is for itself: `refuse` hears of those that do not fit, or that a backend
    /// has an errno for, by their places among the pieces.
    fn steps_of(
        &self,
        request: &Request,
        pieces: &Pieces<'_>,
        plan: &mut Plan<'_>,
        refuse: &mut dyn FnMut(u8, Unfit),
    );
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
