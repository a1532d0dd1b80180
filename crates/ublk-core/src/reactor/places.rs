//! The places of a reactor's file table.

use std::ops::Range;

/// Hands out runs of places, the first that fits.
#[derive(Debug)]
pub(super) struct Places {
    /// In ascending order, never touching each other.
    free: Vec<Range<u32>>,
}

impl Places {
    pub(super) fn new(count: u32) -> Self {
        let mut this = Self { free: Vec::new() };
        this.put(0..count);
        this
    }

    pub(super) fn take(&mut self, count: u32) -> Option<Range<u32>> {
        let at = self.free.iter().position(|run| run.end - run.start >= count)?;
        let run = &mut self.free[at];
        let taken = run.start..run.start + count;
        run.start = taken.end;
        if run.start == run.end {
            self.free.remove(at);
        }
        Some(taken)
    }

    pub(super) fn put(&mut self, run: Range<u32>) {
        let at = self.free.partition_point(|free| free.start < run.start);
        self.free.insert(at, run);
        self.free.dedup_by(|next, run| {
            let touch = run.end == next.start;
            if touch {
                run.end = next.end;
            }
            touch
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_handed_out_again_whole() {
        let mut places = Places::new(8);
        let runs: Vec<_> = std::iter::from_fn(|| places.take(3)).collect();
        assert_eq!(runs, [0..3, 3..6]);
        for run in runs.into_iter().rev() {
            places.put(run);
        }
        assert_eq!(places.take(8), Some(0..8));
        assert_eq!(places.take(1), None);
    }
}
