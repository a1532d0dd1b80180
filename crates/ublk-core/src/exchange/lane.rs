//! A lane between two reactors: words that one thread writes and another reads, in order.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Wakes the thread of the receiver.
type Wake = Box<dyn Fn() + Send + Sync>;

struct Lane {
    words: Box<[AtomicU64]>,
    /// How many words have been shown so far.
    shown: AtomicU32,
    /// The receiver sleeps, or is about to.
    sleeps: AtomicBool,
    /// The sender is gone.
    closed: AtomicBool,
    wake: OnceLock<Wake>,
}

/// The end that writes; dropping it closes the lane.
#[derive(Debug)]
pub(crate) struct Sender {
    lane: Arc<Lane>,
    written: u32,
}

/// The end that reads.
#[derive(Debug)]
pub(crate) struct Receiver {
    lane: Arc<Lane>,
    read: u32,
}

/// A lane for so many words that have not been read.
pub(crate) fn lane(capacity: u16) -> (Sender, Receiver) {
    let words = (0..u32::from(capacity).next_power_of_two()).map(|_| AtomicU64::new(0)).collect();
    let lane = Arc::new(Lane {
        words,
        shown: AtomicU32::new(0),
        sleeps: AtomicBool::new(false),
        closed: AtomicBool::new(false),
        wake: OnceLock::new(),
    });
    (Sender { lane: Arc::clone(&lane), written: 0 }, Receiver { lane, read: 0 })
}

impl Lane {
    fn at(&self, number: u32) -> &AtomicU64 {
        &self.words[number as usize & (self.words.len() - 1)]
    }

    /// Wakes the receiver if it sleeps. What it shall see was stored before, sequentially
    /// consistently: either it sees that when it looks once more, or we see that it sleeps.
    fn wake(&self) {
        if self.sleeps.load(Ordering::SeqCst) && self.sleeps.swap(false, Ordering::SeqCst) {
            self.wake.get().into_iter().for_each(|wake| wake());
        }
    }
}

impl Sender {
    /// Writes a word, which the receiver sees from the next [`show`](Self::show) on.
    pub(super) fn write(&mut self, word: u64) {
        // Relaxed: `show` orders it.
        self.lane.at(self.written).store(word, Ordering::Relaxed);
        self.written = self.written.wrapping_add(1);
    }

    /// Shows what has been written.
    pub(super) fn show(&self) {
        if self.lane.shown.load(Ordering::Relaxed) != self.written {
            // SeqCst, which releases the words as well: see `Lane::wake`.
            self.lane.shown.store(self.written, Ordering::SeqCst);
            self.lane.wake();
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // SeqCst: see `Lane::wake`.
        self.lane.closed.store(true, Ordering::SeqCst);
        self.lane.wake();
    }
}

impl Receiver {
    /// Who wakes our thread from now on.
    pub(crate) fn wake_by(&self, wake: impl Fn() + Send + Sync + 'static) {
        // Ours alone to set, and set once.
        drop(self.lane.wake.set(Box::new(wake)));
    }

    pub(super) fn next(&mut self) -> Option<u64> {
        if !self.has_words() {
            return None;
        }
        let word = self.lane.at(self.read).load(Ordering::Relaxed);
        self.read = self.read.wrapping_add(1);
        Some(word)
    }

    /// Whether there is something to read.
    pub(crate) fn has_words(&self) -> bool {
        // Acquire: the words that are shown are there.
        self.lane.shown.load(Ordering::Acquire) != self.read
    }

    /// Whether nothing more will come.
    pub(super) fn is_closed(&self) -> bool {
        // Acquire: what was shown before is seen, if the words are looked at after this.
        self.lane.closed.load(Ordering::Acquire) && !self.has_words()
    }

    /// Says that we are about to sleep; false when there is something to see.
    pub(crate) fn may_sleep(&self) -> bool {
        // SeqCst, then a look once more: see `Lane::wake`.
        self.lane.sleeps.store(true, Ordering::SeqCst);
        let words = self.lane.shown.load(Ordering::SeqCst) != self.read;
        !words && !self.lane.closed.load(Ordering::SeqCst)
    }

    /// Says that we do not sleep.
    pub(crate) fn awake(&self) {
        // Relaxed: at worst we are woken in vain.
        self.lane.sleeps.store(false, Ordering::Relaxed);
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("shown", &self.shown).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// Waits for the other thread, which is there at once unless something was missed.
    fn hear(other: &Receiver<()>, what: &str) {
        other.recv_timeout(Duration::from_secs(20)).expect(what);
    }

    #[test]
    fn words_come_once_shown_in_order_and_then_the_end() {
        let (mut sender, mut receiver) = lane(3);
        sender.write(7);
        assert_eq!(receiver.next(), None);
        sender.show();
        for word in 8..30 {
            sender.write(word);
            sender.show();
            assert_eq!(receiver.next(), Some(word - 1));
        }
        drop(sender);
        assert!(!receiver.is_closed(), "there is a word left");
        assert!(!receiver.may_sleep());
        assert_eq!(receiver.next(), Some(29));
        assert!(receiver.is_closed());
    }

    #[test]
    fn who_sleeps_is_woken_once_and_who_does_not_is_left_alone() {
        let (mut sender, receiver) = lane(8);
        let (woken, wakes) = channel();
        receiver.wake_by(move || woken.send(()).unwrap_or_default());
        sender.write(1);
        sender.show();
        assert!(wakes.try_recv().is_err());
        let mut receiver = receiver;
        assert_eq!(receiver.next(), Some(1));
        assert!(receiver.may_sleep());
        for word in 2..5 {
            sender.write(word);
            sender.show();
        }
        assert_eq!(wakes.try_iter().count(), 1);
        receiver.awake();
        drop(sender);
        assert!(wakes.try_recv().is_err());
    }

    #[test]
    fn a_sleeper_misses_nothing_between_threads() {
        const COUNT: u64 = 20_000;
        let (mut sender, mut receiver) = lane(64);
        let (wake, woken) = channel();
        receiver.wake_by(move || wake.send(()).unwrap_or_default());
        let (back, done) = channel();
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut last = 0;
                while !receiver.is_closed() {
                    while let Some(word) = receiver.next() {
                        assert_eq!(word, last + 1);
                        last = word;
                        back.send(()).unwrap();
                    }
                    if receiver.may_sleep() {
                        hear(&woken, "nobody wakes who sleeps");
                    }
                    receiver.awake();
                }
                assert_eq!(last, COUNT);
            });
            for word in 1..=COUNT {
                sender.write(word);
                sender.show();
                if word % 32 == 0 {
                    (0..32).for_each(|_| hear(&done, "a word that was shown is not seen"));
                }
            }
            drop(sender);
        });
    }
}
