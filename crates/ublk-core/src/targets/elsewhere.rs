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

    /// Plans pieces of backends that make up the whole of `request`: from `reach` on, as many as the
    /// plan has room for, and moves `reach` behind them. The caller runs the plan and asks again
    /// while pieces are left.
    ///
    /// # Errors
    /// Why the pieces do not fit the request, or the errno that a backend has for them.
    fn plan_of(
        &self,
        request: &Request,
        pieces: &Pieces<'_>,
        reach: &mut Reach,
        plan: &mut Plan<'_>,
    ) -> Result<(), Unfit>;

    /// Where the whole of `request` is that lies at `offset` of a backend, or `Plan`: then
    /// [`plan_of`](Self::plan_of) says what there is to say of the piece that it would be.
    fn remap_of(&self, request: &Request, backend: usize, offset: u64) -> Remap;

    /// Plans pieces of backends that the handler wants done with the buffer of `request` before the
    /// handler answers; `reach` as for [`plan_of`](Self::plan_of). Each piece stands for itself:
    /// `refuse` gets the number of each piece that does not fit, or that a backend fails.
    fn steps_of(
        &self,
        request: &Request,
        pieces: &Pieces<'_>,
        reach: &mut Reach,
        plan: &mut Plan<'_>,
        refuse: &mut dyn FnMut(u8, Unfit),
    );
}

/// How far the pieces of an answer have been planned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// The number of the first piece that is not planned, or not as a whole.
    pub piece: u8,
    /// How many bytes of this piece are planned.
    pub done: u32,
}

impl Reach {
    /// The piece that has been reached is planned as a whole.
    pub(super) fn pass(&mut self) {
        *self = Self { piece: self.piece + 1, done: 0 };
    }
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
