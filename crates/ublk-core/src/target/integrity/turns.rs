//! Requests take turns where they would meet.
//!
//! The target announces each request that reads or writes metadata when the request is planned. A request
//! begins when no request that was announced earlier is on the same sectors, unless both read, or in the
//! same slots of the journal. No request waits for a later request, so every request begins.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::{Errno, Go};
use super::area::SLOTS;

/// What a request is about to do.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    /// The bytes of the data.
    pub(super) range: Range<u64>,
    pub(super) writes: bool,
    /// How many slots of the journal it takes.
    pub(super) slots: u16,
}

#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    /// The requests that have been announced and have not ended, in no order.
    entries: Vec<Entry>,
    next_ticket: u64,
    next_slot: u16,
    /// Every write fails: the next server must replay a record of the journal first.
    broken: bool,
    /// Some requests will never end.
    deserted: bool,
}

#[derive(Debug)]
struct Entry {
    ticket: u64,
    range: Range<u64>,
    slots: Range<u16>,
    writes: bool,
    phase: Phase,
    /// How often the request was told to wait.
    waits: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Announced,
    Begun,
    /// The journal may hold a record of the request.
    Committed,
    /// The request has failed after that.
    Broken,
}

impl Turns {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces a request: its ticket, and the first of its slots.
    pub(super) fn announce(&self, wish: Wish) -> Result<(u64, u16), Errno> {
        let mut book = self.book();
        if wish.slots > SLOTS || wish.writes && book.broken {
            return Err(Errno(libc::EIO));
        }
        let first = if book.next_slot + wish.slots > SLOTS { 0 } else { book.next_slot };
        book.next_slot = first + wish.slots;
        book.next_ticket += 1;
        let ticket = book.next_ticket;
        let Wish { range, writes, .. } = wish;
        let slots = first..book.next_slot;
        let phase = Phase::Announced;
        book.entries.push(Entry { ticket, range, slots, writes, phase, waits: 0 });
        Ok((ticket, first))
    }

    /// Whether the request may begin now.
    pub(super) fn begin(&self, ticket: u64) -> Go {
        /// Between two looks, in microseconds: the pause doubles up to some milliseconds.
        const PAUSE: u32 = 50;
        const DOUBLINGS: u8 = 6;
        let mut book = self.book();
        let Some(at) = book.position(ticket) else { return Go::Fail(Errno(libc::EIO)) };
        let entry = &book.entries[at];
        if entry.phase != Phase::Announced {
            // A plan that could not get its buffer is run once more.
            return Go::On;
        }
        let before = |other: &&Entry| other.ticket < ticket && other.meets(entry);
        let holder = book.entries.iter().find(before).map(|holder| holder.phase);
        let hopeless = entry.writes && book.broken
            || holder.is_some_and(|phase| phase == Phase::Broken || book.deserted);
        let entry = &mut book.entries[at];
        if hopeless {
            return Go::Fail(Errno(libc::EIO));
        }
        if holder.is_some() {
            let pause = PAUSE << entry.waits;
            entry.waits = (entry.waits + 1).min(DOUBLINGS);
            return Go::Later(pause);
        }
        entry.phase = Phase::Begun;
        Go::On
    }

    /// From now on the request's record may be in the journal.
    pub(super) fn commit(&self, ticket: u64) {
        let mut book = self.book();
        if let Some(at) = book.position(ticket) {
            book.entries[at].phase = Phase::Committed;
        }
    }

    /// The request has ended well.
    pub(super) fn end(&self, ticket: u64) {
        let mut book = self.book();
        if let Some(at) = book.position(ticket) {
            book.entries.swap_remove(at);
        }
    }

    /// The request has failed. If the journal may hold its record, the sectors of the request are unknown
    /// until the next server has replayed the journal.
    pub(super) fn fail(&self, ticket: u64) {
        let mut book = self.book();
        let Some(at) = book.position(ticket) else { return };
        match book.entries[at].phase {
            Phase::Announced | Phase::Begun => drop(book.entries.swap_remove(at)),
            Phase::Committed | Phase::Broken => {
                book.entries[at].phase = Phase::Broken;
                book.broken = true;
            }
        }
    }

    /// Some requests will never end: no other request waits for these.
    pub(super) fn desert(&self) {
        let mut book = self.book();
        (book.deserted, book.broken) = (true, true);
    }
}

impl Book {
    fn position(&self, ticket: u64) -> Option<usize> {
        self.entries.iter().position(|entry| entry.ticket == ticket)
    }
}

impl Entry {
    /// Whether the two may not run at once.
    fn meets(&self, other: &Self) -> bool {
        fn overlap<T: PartialOrd>(a: &Range<T>, b: &Range<T>) -> bool {
            a.start < b.end && b.start < a.end
        }
        (self.writes || other.writes) && overlap(&self.range, &other.range)
            || overlap(&self.slots, &other.slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(range: Range<u64>) -> Wish {
        Wish { range, writes: false, slots: 0 }
    }

    fn write(range: Range<u64>) -> Wish {
        Wish { range, writes: true, slots: 1 }
    }

    fn announce(turns: &Turns, wish: Wish) -> u64 {
        turns.announce(wish).unwrap().0
    }

    const EIO: Errno = Errno(libc::EIO);

    #[test]
    fn a_request_waits_for_the_earlier_ones_that_it_meets_and_for_no_other() {
        let turns = Turns::default();
        let first = announce(&turns, read(0..1024));
        let second = announce(&turns, read(512..1024));
        let third = announce(&turns, write(1000..2048));
        let fourth = announce(&turns, read(2000..4096));
        let fifth = announce(&turns, write(4096..8192));
        assert_eq!([second, first, fifth].map(|one| turns.begin(one)), [Go::On; 3]);
        assert_eq!(turns.begin(third), Go::Later(50));
        assert_eq!(turns.begin(third), Go::Later(100), "the pauses grow");
        assert!(matches!(turns.begin(fourth), Go::Later(_)), "nobody overtakes");
        turns.end(first);
        assert!(matches!(turns.begin(third), Go::Later(_)));
        turns.fail(second);
        assert_eq!([turns.begin(third), turns.begin(third)], [Go::On; 2]);
        turns.end(third);
        assert_eq!(turns.begin(fourth), Go::On);
    }

    #[test]
    fn pauses_end() {
        let turns = Turns::default();
        announce(&turns, write(0..512));
        let waits = announce(&turns, write(0..512));
        for _ in 0..1000 {
            assert!(matches!(turns.begin(waits), Go::Later(50..=3200)));
        }
    }

    #[test]
    fn slots_go_round_and_nobody_takes_those_of_another() {
        let turns = Turns::default();
        let wish = |at: u64, slots| Wish { range: at..at + 1, writes: true, slots };
        let (_, first) = turns.announce(wish(0, 3)).unwrap();
        let (_, second) = turns.announce(wish(1, SLOTS - 4)).unwrap();
        let (third, slot) = turns.announce(wish(2, 2)).unwrap();
        assert_eq!((first, second, slot), (0, 3, 0));
        assert!(matches!(turns.begin(third), Go::Later(_)), "the first is in slot 0");
        assert_eq!(turns.announce(wish(3, SLOTS + 1)), Err(EIO));
    }

    #[test]
    fn after_a_record_that_was_not_done_nobody_writes_and_its_sectors_are_unknown() {
        let turns = Turns::default();
        let broken = announce(&turns, write(0..512));
        let waits = announce(&turns, read(0..512));
        let writes = announce(&turns, write(512..1024));
        let reads = announce(&turns, read(512..1024));
        assert_eq!(turns.begin(broken), Go::On);
        turns.commit(broken);
        turns.fail(broken);
        assert_eq!(turns.begin(waits), Go::Fail(EIO));
        assert_eq!(turns.begin(writes), Go::Fail(EIO));
        turns.fail(writes);
        assert_eq!(turns.begin(reads), Go::On);
        assert_eq!(turns.announce(write(4096..8192)), Err(EIO));
    }

    #[test]
    fn nobody_waits_for_a_reactor_that_is_gone() {
        let turns = Turns::default();
        announce(&turns, read(0..512));
        let waits = announce(&turns, write(0..512));
        let reads = announce(&turns, read(0..512));
        turns.desert();
        assert_eq!([turns.begin(waits), turns.begin(reads)], [Go::Fail(EIO); 2]);
    }
}
