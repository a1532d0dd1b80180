//! The space of a layer's file, in segments: which blocks hold data, and where the next ones go.

use crate::extent::MAX_BLOCKS;

/// A run of blocks of a layer's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first block.
    pub block: u64,
    /// The number of blocks.
    pub count: u32,
}

/// What a segment is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// Nothing: it may be written anew.
    Free,
    /// Data, of which so many blocks are taken.
    Data(u32),
    /// The log.
    Log,
}

/// The segments of a file. The first one holds the superblocks too, which count as taken data.
#[derive(Clone, Debug)]
pub struct Space {
    shift: u32,
    segments: Vec<Use>,
    free: Vec<u32>,
    /// Where the next block of data goes, and the end of its segment.
    cursor: u64,
    end: u64,
}

impl Space {
    /// The space of a file of `segments` segments of `1 << shift` blocks, nothing of which is used
    /// but `reserved` blocks at its start. [`occupy`](Self::occupy) says what else is.
    pub fn new(shift: u32, segments: u32, reserved: u32) -> Self {
        let mut all = vec![Use::Free; segments.max(1) as usize];
        all[0] = Use::Data(reserved);
        Self { shift, segments: all, free: Vec::new(), cursor: 0, end: 0 }
    }

    /// The number of segments that the file has.
    pub fn segments(&self) -> u32 {
        u32::try_from(self.segments.len()).unwrap_or(u32::MAX)
    }

    /// The blocks of a segment.
    pub fn segment_blocks(&self) -> u64 {
        1 << self.shift
    }

    /// Counts the blocks of `run`, which the index has, as taken. False where the file cannot have
    /// them: the run leaves the file, or lies in the log.
    pub fn occupy(&mut self, run: Run) -> bool {
        let end = run.block + u64::from(run.count);
        let mut at = run.block;
        while at < end {
            let until = ((at >> self.shift) + 1) << self.shift;
            let count = u32::try_from(until.min(end) - at).unwrap_or(u32::MAX);
            match self.at(at) {
                Some(used @ Use::Free) => *used = Use::Data(count),
                Some(Use::Data(taken)) => *taken += count,
                Some(Use::Log) | None => return false,
            }
            at = until;
        }
        true
    }

    /// Counts a segment as the log's. False if the file has no such segment, or data in it.
    pub fn occupy_log(&mut self, segment: u32) -> bool {
        match self.segments.get_mut(segment as usize) {
            Some(used @ Use::Free) => *used = Use::Log,
            _ => return false,
        }
        true
    }

    /// All that is taken has been said: what is left is free.
    pub fn settle(&mut self) {
        let free = |(index, used): (usize, &Use)| {
            (*used == Use::Free).then_some(u32::try_from(index).unwrap_or(u32::MAX))
        };
        self.free = self.segments.iter().enumerate().rev().filter_map(free).collect();
    }

    /// Takes up to `most` blocks for data, in one run; none when the file is as large as can be.
    pub fn take(&mut self, most: u32) -> Option<Run> {
        if self.cursor == self.end {
            let segment = self.next_segment(Use::Data(0))?;
            self.cursor = u64::from(segment) << self.shift;
            self.end = self.cursor + self.segment_blocks();
        }
        let count = u32::try_from(self.end - self.cursor).unwrap_or(most).min(most);
        let run = Run { block: self.cursor, count };
        self.cursor += u64::from(count);
        if let Some(Use::Data(taken)) = self.at(run.block) {
            *taken += count;
        }
        Some(run)
    }

    /// Takes a segment for the log.
    pub fn take_log(&mut self) -> Option<u32> {
        self.next_segment(Use::Log)
    }

    /// Gives blocks of data back. A segment that holds no data any more is written anew, so
    /// nothing may refer to the blocks: no durable record, no request in flight.
    pub fn give_back(&mut self, run: Run) {
        let end = run.block + u64::from(run.count);
        let mut at = run.block;
        while at < end {
            let segment = at >> self.shift;
            let until = ((segment + 1) << self.shift).min(end);
            let count = u32::try_from(until - at).unwrap_or(u32::MAX);
            let is_open = self.cursor < self.end && self.cursor >> self.shift == segment;
            if let Some(used) = self.at(at) {
                let left = match *used {
                    Use::Data(taken) => taken.saturating_sub(count),
                    Use::Free | Use::Log => unreachable!("data in segment {segment}"),
                };
                *used = Use::Data(left);
                if left == 0 && !is_open {
                    *used = Use::Free;
                    self.free.push(u32::try_from(segment).unwrap_or(u32::MAX));
                }
            }
            at = until;
        }
    }

    /// Gives a segment of the log back.
    pub fn give_back_log(&mut self, segment: u32) {
        let used = &mut self.segments[segment as usize];
        debug_assert_eq!(*used, Use::Log);
        *used = Use::Free;
        self.free.push(segment);
    }

    /// Whether the segment holds data, or the superblocks.
    pub fn has_data(&self, segment: u32) -> bool {
        matches!(self.segments.get(segment as usize), Some(Use::Data(_)))
    }

    /// Blocks that hold data, and blocks of all segments that are not free.
    pub fn usage(&self) -> (u64, u64) {
        self.segments.iter().fold((0, 0), |(data, all), used| match used {
            Use::Free => (data, all),
            Use::Data(taken) => (data + u64::from(*taken), all + self.segment_blocks()),
            Use::Log => (data, all + self.segment_blocks()),
        })
    }

    fn next_segment(&mut self, used: Use) -> Option<u32> {
        if let Some(segment) = self.free.pop() {
            self.segments[segment as usize] = used;
            return Some(segment);
        }
        let segment = self.segments();
        if (u64::from(segment) + 1) << self.shift > MAX_BLOCKS {
            return None;
        }
        self.segments.push(used);
        Some(segment)
    }

    fn at(&mut self, block: u64) -> Option<&mut Use> {
        self.segments.get_mut(usize::try_from(block >> self.shift).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> Space {
        let mut space = Space::new(3, 1, 2);
        space.settle();
        space
    }

    #[test]
    fn runs_follow_each_other_and_end_with_their_segment() {
        let mut space = space();
        assert_eq!(space.take(5), Some(Run { block: 8, count: 5 }));
        assert_eq!(space.take(5), Some(Run { block: 13, count: 3 }));
        assert_eq!(space.take(1), Some(Run { block: 16, count: 1 }));
        assert_eq!(space.segments(), 3);
    }

    #[test]
    fn a_segment_is_used_again_once_all_of_it_was_given_back() {
        let mut space = space();
        let runs: Vec<_> = (0..4).map(|_| space.take(4).unwrap()).collect();
        space.give_back(runs[0]);
        assert_eq!(space.take(8).unwrap().block, 24);
        space.give_back(runs[1]);
        assert_eq!(space.take(8).unwrap().block, 8);
        assert_eq!(space.take_log(), Some(4));
        space.give_back_log(4);
        assert_eq!(space.take(1).unwrap().block, 32);
    }

    #[test]
    fn the_segment_that_is_being_filled_is_not_free() {
        let mut space = space();
        let run = space.take(4).unwrap();
        space.give_back(run);
        assert_eq!(space.take(4), Some(Run { block: 12, count: 4 }));
        assert_eq!(space.usage(), (6, 16));
    }

    #[test]
    fn what_the_index_has_is_taken_and_the_rest_is_free() {
        let mut space = Space::new(3, 4, 2);
        assert!(space.occupy(Run { block: 14, count: 4 }));
        assert!(space.occupy_log(3));
        assert!(!space.occupy(Run { block: 24, count: 1 }));
        assert!(!space.occupy(Run { block: 32, count: 1 }));
        assert!(!space.occupy_log(1));
        space.settle();
        assert_eq!(space.take(1).unwrap().block, 32);
        space.give_back(Run { block: 16, count: 2 });
        assert_eq!(space.take_log(), Some(2));
    }
}
