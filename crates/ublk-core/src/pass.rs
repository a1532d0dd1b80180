//! What one pass of a reactor works with.

use std::io;

use crate::buffers::Slots;
use crate::driver::Ring;
use crate::stats::Counters;

/// The reactor's ring, slots and counters, lent to exchange and engine.
pub(crate) struct Pass<'a, R> {
    pub(crate) ring: &'a mut R,
    pub(crate) slots: &'a mut Slots,
    pub(crate) counters: &'a Counters,
}

impl<R: Ring> Pass<'_, R> {
    /// Makes room for `count` entries, so that what belongs together goes in together.
    #[inline]
    pub(crate) fn reserve(&mut self, count: usize) -> io::Result<()> {
        while self.ring.space() < count {
            self.counters.enters.add(1);
            self.ring.submit()?;
        }
        Ok(())
    }
}
