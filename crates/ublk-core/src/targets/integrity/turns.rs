//! Requests take turns where they would meet.
//!
//! The target announces each request that reads or writes metadata when the request is planned. A request
//! begins when no request that was announced earlier is on the same sectors, unless both read, or in the
//! same slots of the journal. No request waits for a later request, so every request begins.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::Errno;
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

/// What a request that waits for its turn is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It begins, and has the journal's slots from this one on.
    Now(u16),
    /// It looks again after so many microseconds.
    Wait(u32),
    /// It fails.
    Never(Errno),
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

    /// Announces a request, and answers its ticket, above 0.
    pub(super) fn announce(&self, wish: Wish) -> Result<u64, Errno> {
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
        Ok(ticket)
    }

    /// Whether it is the request's turn. If so, it has begun.
    pub(super) fn begin(&self, ticket: u64) -> Turn {
        /// Between two looks, in microseconds: the pause doubles up to some milliseconds.
        const PAUSE: u32 = 50;
        const DOUBLINGS: u8 = 6;
        let mut book = self.book();
        let Some(at) = book.position(ticket) else { return Turn::Never(Errno(libc::EIO)) };
        let entry = &book.entries[at];
        let before = |other: &&Entry| other.ticket < ticket && other.meets(entry);
        let holder = book.entries.iter().find(before).map(|holder| holder.phase);
        let hopeless = entry.writes && book.broken
            || holder.is_some_and(|phase| phase == Phase::Broken || book.deserted);
        let entry = &mut book.entries[at];
        if hopeless {
            return Turn::Never(Errno(libc::EIO));
        }
        if holder.is_some() {
            let pause = PAUSE << entry.waits;
            entry.waits = (entry.waits + 1).min(DOUBLINGS);
            return Turn::Wait(pause);
        }
        entry.phase = Phase::Begun;
        Turn::Now(entry.slots.start)
    }

    /// From now on the request's record may be in the journal. Answers the first of its slots.
    pub(super) fn commit(&self, ticket: u64) -> u16 {
        let mut book = self.book();
        let at = book.position(ticket).expect("a request that has begun and not ended");
        book.entries[at].phase = Phase::Committed;
        book.entries[at].slots.start
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
        turns.announce(wish).unwrap()
    }

    fn begins(turns: &Turns, ticket: u64) -> bool {
        matches!(turns.begin(ticket), Turn::Now(_))
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
        assert!([second, first, fifth].into_iter().all(|one| begins(&turns, one)));
        assert_eq!(turns.begin(third), Turn::Wait(50));
        assert_eq!(turns.begin(third), Turn::Wait(100), "the pauses grow");
        assert!(matches!(turns.begin(fourth), Turn::Wait(_)), "nobody overtakes");
        turns.end(first);
        assert!(matches!(turns.begin(third), Turn::Wait(_)));
        turns.fail(second);
        assert!(begins(&turns, third));
        turns.end(third);
        assert!(begins(&turns, fourth));
    }

    #[test]
    fn pauses_end() {
        let turns = Turns::default();
        announce(&turns, write(0..512));
        let waits = announce(&turns, write(0..512));
        for _ in 0..1000 {
            assert!(matches!(turns.begin(waits), Turn::Wait(50..=3200)));
        }
    }

    #[test]
    fn slots_go_round_and_nobody_takes_those_of_another() {
        let turns = Turns::default();
        let wish = |at: u64, slots| Wish { range: at..at + 1, writes: true, slots };
        let [first, second, third] =
            [wish(0, 3), wish(1, SLOTS - 4), wish(2, 2)].map(|wish| announce(&turns, wish));
        assert_eq!([first, second].map(|one| turns.begin(one)), [Turn::Now(0), Turn::Now(3)]);
        assert!(matches!(turns.begin(third), Turn::Wait(_)), "the first is in slot 0");
        turns.end(first);
        assert_eq!(turns.begin(third), Turn::Now(0));
        assert_eq!(turns.announce(wish(3, SLOTS + 1)), Err(EIO));
    }

    #[test]
    fn after_a_record_that_was_not_done_nobody_writes_and_its_sectors_are_unknown() {
        let turns = Turns::default();
        let broken = announce(&turns, write(0..512));
        let waits = announce(&turns, read(0..512));
        let writes = announce(&turns, write(512..1024));
        let reads = announce(&turns, read(512..1024));
        assert!(begins(&turns, broken));
        turns.commit(broken);
        turns.fail(broken);
        assert_eq!(turns.begin(waits), Turn::Never(EIO));
        assert_eq!(turns.begin(writes), Turn::Never(EIO));
        turns.fail(writes);
        assert!(begins(&turns, reads));
        assert_eq!(turns.announce(write(4096..8192)), Err(EIO));
    }

    #[test]
    fn nobody_waits_for_a_reactor_that_is_gone() {
        let turns = Turns::default();
        announce(&turns, read(0..512));
        let waits = announce(&turns, write(0..512));
        let reads = announce(&turns, read(0..512));
        turns.desert();
        assert_eq!([turns.begin(waits), turns.begin(reads)], [Turn::Never(EIO); 2]);
    }
}
