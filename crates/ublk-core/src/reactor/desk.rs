//! What all seats of a reactor share.

use crate::buffers::Slots;
use crate::pass::{Pass, Seat};
use crate::stats::Counters;

/// The ring and the tables of a reactor, lent to one seat at a time.
pub(super) struct Desk<R> {
    pub(super) ring: R,
    pub(super) slots: Slots,
    /// Seats with work put off until the end of the pass.
    pub(super) put_off: Vec<u16>,
    /// The reactor must look at something besides requests.
    pub(super) attention: bool,
}

impl<R> Desk<R> {
    pub(super) fn new(ring: R, slots: Slots) -> Self {
        Self { ring, slots, put_off: Vec::new(), attention: false }
    }

    /// What a seat's exchange and engine work with.
    #[inline(always)]
    pub(super) fn pass<'a>(&'a mut self, counters: &'a Counters, seat: Seat) -> Pass<'a, R> {
        let Self { ring, slots, put_off, .. } = self;
        Pass { ring, slots, put_off, counters, seat }
    }
}
