//! What one pass of a reactor works with.

use std::io;

use io_uring::squeue::Entry;
use io_uring::types::Fixed;

use crate::buffers::Slots;
use crate::driver::Ring;
use crate::stats::Counters;
use crate::token::Token;

/// Which of a reactor's queues this is about: what tells its completions from the others', and
/// where its files are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat {
    /// Its number: in each submission's `user_data`, and its group of provided buffers.
    pub(crate) number: u16,
    /// The first of its places in the file table.
    pub(crate) files: u32,
}

/// The reactor's ring and slots, and the queue's counters, lent to exchange and engine.
pub(crate) struct Pass<'a, R> {
    pub(crate) ring: &'a mut R,
    pub(crate) slots: &'a mut Slots,
    /// Seats that have put something off until the end of the pass.
    pub(crate) put_off: &'a mut Vec<u16>,
    pub(crate) counters: &'a Counters,
    pub(crate) seat: Seat,
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

    /// The queue's file at `place` (see `file_table`).
    #[inline]
    pub(crate) fn file(&self, place: u32) -> Fixed {
        Fixed(self.seat.files + place)
    }

    /// Queues an entry; there is room.
    ///
    /// # Safety
    /// Memory that the entry points to must stay valid until its last completion.
    #[inline(always)]
    pub(crate) unsafe fn push(&mut self, entry: Entry, token: Token) {
        let entry = entry.user_data(token.pack(self.seat.number));
        // SAFETY: passed on to our caller.
        unsafe { self.ring.push(&entry) };
    }
}
