//! Buffers that requests have only while they run.

use std::io;

use super::Pool;

/// Buffers for as many requests as can run at once. The one given back last is lent first, so that
/// no more of them ever take memory than were in use at once.
#[derive(Debug)]
pub(crate) struct Arena {
    pool: Pool,
    free: Vec<u16>,
}

impl Arena {
    /// `count` buffers of `size` bytes.
    pub(crate) fn new(count: u16, size: u32) -> io::Result<Self> {
        Ok(Self { pool: Pool::new(count, size)?, free: (0..count).rev().collect() })
    }

    /// # Panics
    /// When all are lent: there is one for each tag.
    pub(crate) fn take(&mut self) -> *mut u8 {
        let buffer = self.free.pop().expect("a buffer for each tag");
        self.pool.at(buffer.into(), 0)
    }

    /// Gives back what [`take`](Self::take) has answered.
    pub(crate) fn put(&mut self, buffer: *mut u8) {
        let buffer = self.pool.index(buffer);
        debug_assert!(!self.free.contains(&buffer), "buffer {buffer} given back twice");
        self.free.push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_back_last_is_lent_first() {
        let mut arena = Arena::new(3, 4096).unwrap();
        let [first, second] = [arena.take(), arena.take()];
        assert_eq!(second as usize - first as usize, 4096);
        arena.put(first);
        assert_eq!(arena.take(), first);
        arena.put(second);
        arena.put(first);
        assert_eq!([arena.take(), arena.take()], [first, second]);
    }
}
