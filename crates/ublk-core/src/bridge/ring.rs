//! A ring of fixed-size records with one writer and one reader.

use std::sync::atomic::{AtomicU32, Ordering};

/// Where a ring lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// Its first word.
    pub(crate) at: u32,
    /// Words of a record.
    pub(crate) width: u32,
    /// Its records, a power of two, less one.
    pub(crate) mask: u32,
}

impl Span {
    /// The first word behind it.
    pub(crate) fn end(&self) -> u32 {
        self.at + (self.mask + 1) * self.width
    }

    #[inline]
    pub(crate) fn place(&self, index: u32) -> usize {
        (self.at + (index & self.mask) * self.width) as usize
    }
}

/// The writer's end.
#[derive(Debug)]
pub(crate) struct Writer {
    span: Span,
    /// The words that hold tail and head.
    tail_at: u32,
    head_at: u32,
    tail: u32,
    head: u32,
    published: u32,
}

/// The reader's end.
#[derive(Debug)]
pub(crate) struct Reader {
    span: Span,
    tail_at: u32,
    head_at: u32,
    head: u32,
    tail: u32,
}

impl Writer {
    pub(crate) fn new(span: Span, tail_at: u32, head_at: u32) -> Self {
        Self { span, tail_at, head_at, tail: 0, head: 0, published: 0 }
    }

    /// Writes a record, unseen until [`publish`](Self::publish); false when there is no room.
    #[inline]
    pub(crate) fn write<const N: usize>(&mut self, words: &[AtomicU32], record: [u32; N]) -> bool {
        debug_assert!(N == self.span.width as usize);
        if self.tail.wrapping_sub(self.head) > self.span.mask && !self.has_room(words) {
            return false;
        }
        let place = self.span.place(self.tail);
        for (word, value) in words[place..place + N].iter().zip(record) {
            word.store(value, Ordering::Relaxed);
        }
        self.tail = self.tail.wrapping_add(1);
        true
    }

    #[cold]
    fn has_room(&mut self, words: &[AtomicU32]) -> bool {
        // Acquire: the reader has read the records before it moved its head past them.
        self.head = words[self.head_at as usize].load(Ordering::Acquire);
        self.tail.wrapping_sub(self.head) <= self.span.mask
    }

    /// Records that were written and not published.
    #[inline]
    pub(crate) fn unpublished(&self) -> u32 {
        self.tail.wrapping_sub(self.published)
    }

    /// Somebody else has published what was written.
    pub(crate) fn was_published(&mut self) {
        self.published = self.tail;
    }

    /// Lets the reader see what was written; whether that was anything.
    #[inline]
    pub(crate) fn publish(&mut self, words: &[AtomicU32]) -> bool {
        if self.tail == self.published {
            return false;
        }
        self.published = self.tail;
        // Sequentially consistent: the records come before it, and it comes before the look at
        // whether the reader sleeps (the reader says that it does, then looks here once more).
        words[self.tail_at as usize].store(self.tail, Ordering::SeqCst);
        true
    }
}

impl Reader {
    pub(crate) fn new(span: Span, tail_at: u32, head_at: u32) -> Self {
        Self { span, tail_at, head_at, head: 0, tail: 0 }
    }

    /// Whether there is anything to read.
    #[inline]
    pub(crate) fn has_more(&mut self, words: &[AtomicU32]) -> bool {
        if self.head != self.tail {
            return true;
        }
        // Sequentially consistent, for the side that has just said that it sleeps; at other times
        // acquire would do, and costs the same: the records come before the tail.
        self.tail = words[self.tail_at as usize].load(Ordering::SeqCst);
        self.head != self.tail
    }

    /// The next record.
    #[inline]
    pub(crate) fn read<const N: usize>(&mut self, words: &[AtomicU32]) -> Option<[u32; N]> {
        debug_assert!(N == self.span.width as usize);
        if !self.has_more(words) {
            return None;
        }
        let place = self.span.place(self.head);
        let mut record = [0; N];
        for (value, word) in record.iter_mut().zip(&words[place..place + N]) {
            *value = word.load(Ordering::Relaxed);
        }
        self.head = self.head.wrapping_add(1);
        Some(record)
    }

    /// Gives the room of what was read back to the writer.
    #[inline]
    pub(crate) fn give_back(&self, words: &[AtomicU32]) {
        // Release: the records have been read before the writer may write over them.
        words[self.head_at as usize].store(self.head, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::bridge::Region;

    const SPAN: Span = Span { at: 2, width: 2, mask: 7 };

    #[test]
    fn a_full_ring_takes_no_more_until_room_is_given_back() {
        let memory = Region::new(4096).unwrap();
        let words = memory.words();
        let (mut writer, mut reader) = (Writer::new(SPAN, 0, 1), Reader::new(SPAN, 0, 1));
        for number in 0..8 {
            assert!(writer.write(words, [number, 0]));
        }
        assert!(!writer.write(words, [8, 0]));
        assert_eq!(reader.read::<2>(words), None, "nothing is seen before it is published");
        assert!(writer.publish(words) && !writer.publish(words));
        assert_eq!(reader.read(words), Some([0, 0]));
        assert!(!writer.write(words, [8, 0]));
        reader.give_back(words);
        assert!(writer.write(words, [8, 0]));
    }

    #[test]
    fn records_arrive_whole_and_in_order_across_threads() {
        const COUNT: u32 = 200_000;
        let memory = Region::new(4096).unwrap();
        let words = memory.words();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut writer = Writer::new(SPAN, 0, 1);
                for number in 0..COUNT {
                    while !writer.write(words, [number, !number]) {
                        writer.publish(words);
                        thread::yield_now();
                    }
                }
                writer.publish(words);
            });
            let mut reader = Reader::new(SPAN, 0, 1);
            for number in 0..COUNT {
                let record = loop {
                    match reader.read(words) {
                        Some(record) => break record,
                        None => thread::yield_now(),
                    }
                };
                assert_eq!(record, [number, !number]);
                reader.give_back(words);
            }
        });
    }
}
