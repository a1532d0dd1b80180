//! Space of the layer's file: allocated segments, and runs on the way to be free.

use std::collections::VecDeque;

use ublk_overlay::space::Run;

/// The segments whose space the file has, as far as is known.
#[derive(Debug, Default)]
pub(super) struct Allocated(Vec<bool>);

impl Allocated {
    pub(super) fn new(segments: impl Iterator<Item = bool>) -> Self {
        Self(segments.collect())
    }

    /// Whether writing to the segment needs no space.
    pub(super) fn has(&self, segment: u32) -> bool {
        self.0.get(segment as usize) == Some(&true)
    }

    pub(super) fn set(&mut self, segment: u32, has: bool) {
        let index = segment as usize;
        if index >= self.0.len() {
            self.0.resize(index + 1, false);
        }
        self.0[index] = has;
    }
}

/// The most blocks of one run, whose bytes a step counts in 32 bits.
const LONGEST: u32 = 1 << 19;

/// Runs without a durable record, perhaps in use by requests under way.
#[derive(Debug, Default)]
pub(super) struct Draining(VecDeque<(u64, Run)>);

impl Draining {
    /// Adds runs that requests after `now` cannot find.
    pub(super) fn add(&mut self, now: u64, mut runs: Vec<Run>) {
        runs.sort_unstable_by_key(|run| run.block);
        for run in runs {
            match self.0.back_mut() {
                Some((since, last))
                    if *since == now
                        && last.block + u64::from(last.count) == run.block
                        && last.count.saturating_add(run.count) <= LONGEST =>
                {
                    last.count += run.count;
                }
                _ => self.0.push_back((now, run)),
            }
        }
    }

    /// The next run unused by requests under way, the oldest of which began at `oldest`.
    pub(super) fn take(&mut self, oldest: u64) -> Option<Run> {
        self.0.front().filter(|(since, _)| *since < oldest)?;
        self.0.pop_front().map(|(_, run)| run)
    }
}

/// The segments of a run.
pub(super) fn segments(run: Run, segment_blocks: u64) -> impl Iterator<Item = u32> {
    let last = run.block + u64::from(run.count) - 1;
    // Fits: segments are counted in 32 bits.
    let segment = move |block: u64| u32::try_from(block / segment_blocks).unwrap_or(u32::MAX);
    segment(run.block)..=segment(last)
}
