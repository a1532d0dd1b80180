//! Flushes: data, log, and unused space.
//!
//! A flush syncs the layer's file, writes the blocks of the log of all extents published before the
//! flush, and syncs again: data is durable before the log names the place. One flush runs at a time. Of the
//! requests that wait for its end, one runs the next flush for all that had come by then.

use ublk_overlay::extent::BLOCK_SHIFT;
use ublk_overlay::space::Run;
use ublk_overlay::superblock::{PAGE, Page};

use super::super::{Errno, Place, Plan, Step, StepKind};
use super::settle::random;
use super::unused::segments;
use super::{Gate, Live, Overlay, Way, writes};

/// Pages of memory for log blocks.
pub(super) const PAGES: usize = 8;

/// The flush under way.
#[derive(Debug)]
pub(super) struct Flushing {
    /// The number that the head gave to the flush.
    number: u64,
    /// When the flush began, by the clock of the flights.
    began: u64,
    /// The history before this mark is durable after the flush.
    mark: u64,
    phase: Phase,
    /// Segments of the log that the round under way allocates.
    growing: Vec<u32>,
    /// Runs that the round under way gives back.
    punching: Vec<Run>,
}

/// The next round.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Allocates the missing segments of the log.
    Grow,
    /// Syncs the data.
    Sync,
    /// Writes the log behind this number of blocks.
    Log(usize),
    /// The superblock that names the new log has been written.
    Switch,
    /// Gives unused space back: the flush is done.
    Punch,
}

impl Live {
    /// Whether the request's round may fail without harm: the flush was done before.
    pub(super) fn may_fail(&mut self, ticket: u64) -> bool {
        let flushes = self.flights.get(ticket).flushes;
        let Some(flushing) = self.flushing.as_mut().filter(|_| flushes) else { return false };
        // Space that was not given back stays unused until the disk is opened again.
        let done = matches!(flushing.phase, Phase::Punch);
        if done {
            flushing.punching.clear();
        }
        done
    }

    /// Whether a flush has ended that began after the request came: what had been answered when the request
    /// came is durable.
    pub(super) fn is_flushed(&mut self, ticket: u64) -> bool {
        let came = self.flights.get(ticket).began();
        came <= self.flushed
    }

    /// A request fails. The next flush writes the rest of the log.
    pub(super) fn fail(&mut self, ticket: u64) {
        if self.flights.get(ticket).flushes {
            self.flushing = None;
        }
        self.give_back(ticket);
    }
}

impl Overlay {
    /// The request runs a flush, unless another request does.
    pub(super) fn begin_flush(
        &self,
        live: &mut Live,
        ticket: u64,
        plan: &mut Plan<'_>,
    ) -> Result<Way, Errno> {
        // A sync that has failed is final, so nobody waits for another.
        if live.lost || self.durability.is_lost(live.place()) {
            return Err(Errno(libc::EIO));
        }
        if live.flushing.is_some() {
            return Ok(Way::Park);
        }
        let mark = live.history.mark();
        let compacts = live.gate == Gate::Open && live.head.wants_compaction();
        let compacted = match compacts {
            true => live.head.begin_compaction(random(), random()).ok(),
            false => None,
        };
        // Without room for a new log, the old log grows.
        let number = compacted.map_or_else(|| live.head.flush(), Ok);
        let number = number.map_err(|_| Errno(libc::ENOSPC))?;
        let (growing, punching) = (Vec::new(), Vec::new());
        let (began, phase) = (live.flights.now(), Phase::Grow);
        live.flushing = Some(Flushing { number, began, mark, phase, growing, punching });
        live.flights.get(ticket).flushes = true;
        self.plan_flush(live, plan)
    }

    /// The next round of the flush under way.
    pub(super) fn plan_flush(&self, live: &mut Live, plan: &mut Plan<'_>) -> Result<Way, Errno> {
        let mut flushing = live.flushing.take().ok_or(Errno(libc::EIO))?;
        let way = loop {
            match flushing.phase {
                Phase::Grow => {
                    flushing.grow(live, plan);
                    if !plan.is_empty() {
                        break Way::Round;
                    }
                    flushing.phase = Phase::Sync;
                }
                Phase::Sync => {
                    plan.push(live.step(StepKind::Sync, 0, 0));
                    flushing.phase = Phase::Log(0);
                    break Way::Round;
                }
                Phase::Log(written) => {
                    if let Some(written) = self.write_log(live, flushing.number, written, plan) {
                        flushing.phase = Phase::Log(written);
                        break Way::Round;
                    }
                    live.history.durable(flushing.mark);
                    let unused = live.head.flushed(flushing.number);
                    live.draining.add(live.flights.now(), unused);
                    flushing.phase = Phase::Punch;
                    let next = live.head.next_superblock();
                    // A snapshot on its way has told the new layer the generation of this one.
                    if let Some(superblock) = next.filter(|_| live.gate == Gate::Open) {
                        self.write_page(live, 0, (superblock.place(), &superblock.to_page()), plan);
                        plan.push(Step { stage: 1, ..live.step(StepKind::Sync, 0, 0) });
                        flushing.phase = Phase::Switch;
                        break Way::Round;
                    }
                }
                Phase::Switch => {
                    if let Some(superblock) = live.head.next_superblock() {
                        live.head.adopt(superblock);
                    }
                    flushing.phase = Phase::Punch;
                }
                Phase::Punch => {
                    live.flushed = flushing.began;
                    flushing.punch(live, self.punches, plan);
                    break if plan.is_empty() { Way::Done } else { Way::Round };
                }
            }
        };
        if way == Way::Round {
            live.flushing = Some(flushing);
        }
        Ok(way)
    }

    /// Writes blocks of the log behind the first `written`, and syncs with the last ones. Answers how many
    /// are written then; none if all were.
    fn write_log(
        &self,
        live: &Live,
        number: u64,
        written: usize,
        plan: &mut Plan<'_>,
    ) -> Option<usize> {
        let mut blocks = live.head.log_blocks(number).skip(written);
        let mut count = 0;
        for (slot, (place, page)) in (0..PAGES).zip(&mut blocks) {
            self.write_page(live, slot, (place, page), plan);
            count += 1;
        }
        if blocks.next().is_none() && count > 0 {
            plan.push(Step { stage: 1, ..live.step(StepKind::Sync, 0, 0) });
        }
        (count > 0).then_some(written + count)
    }

    /// Writes a page to a block of the file, from a page of memory unused by steps under way.
    fn write_page(
        &self,
        live: &Live,
        slot: usize,
        (block, page): (u64, &Page),
        plan: &mut Plan<'_>,
    ) {
        assert!(slot < PAGES);
        let at = slot * PAGE;
        // SAFETY: inside the region, just checked; the only flush under way has no step under way, so
        // nobody reads the memory.
        unsafe { self.pages.base().add(at).copy_from_nonoverlapping(page.as_ptr(), PAGE) };
        let write = live.step(StepKind::Write { dsync: false }, PAGE as u64, block << BLOCK_SHIFT);
        // Fits: inside the region.
        plan.push(Step { place: Place::Own, at: u32::try_from(at).unwrap_or(u32::MAX), ..write });
    }
}

impl Flushing {
    /// Allocates segments of the log.
    fn grow(&mut self, live: &mut Live, plan: &mut Plan<'_>) {
        self.growing.drain(..).for_each(|segment| live.allocated.set(segment, true));
        let missing = live.head.log_segments().filter(|&segment| !live.allocated.has(segment));
        self.growing.extend(missing.take(PAGES));
        let length = live.head.space().segment_blocks() << BLOCK_SHIFT;
        for &segment in &self.growing {
            plan.push(live.step(StepKind::Allocate, length, u64::from(segment) * length));
        }
    }

    /// Gives back runs unused by requests under way.
    fn punch(&mut self, live: &mut Live, punches: bool, plan: &mut Plan<'_>) {
        let Some(oldest) = live.flights.oldest() else { return self.punching.clear() };
        let reuse = |live: &mut Live, run: Run| {
            live.head.reuse(run);
            if punches {
                let segments = segments(run, live.head.space().segment_blocks());
                segments.for_each(|segment| live.allocated.set(segment, false));
            }
        };
        self.punching.drain(..).for_each(|run| reuse(live, run));
        while self.punching.len() < PAGES {
            let Some(run) = live.draining.take(oldest) else { break };
            if punches {
                let (offset, length) = writes::bytes(run);
                plan.push(live.step(StepKind::PunchHole, length, offset));
                self.punching.push(run);
            } else {
                reuse(live, run);
            }
        }
    }
}
