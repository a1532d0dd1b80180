//! Writes of a part of a block that the live layer does not have.
//!
//! The block gets a new place, like whole blocks. The first round reads the present block into memory; the second
//! round writes the request's bytes, and the block's other bytes from memory, to the new place. If another write has
//! given the block a place meanwhile, the bytes in memory are old, and the write begins anew: in place, if the live
//! layer has the block by now.

use ublk_overlay::extent::{BLOCK, BLOCK_SHIFT, Place};
use ublk_overlay::index::Piece;
use ublk_overlay::superblock::PAGE;

use super::super::{self as targets, Errno, Op, Plan, Request, Step, StepKind};
use super::reads::plan_below;
use super::sectors::clip;
use super::writes::plan_growth;
use super::{Live, Overlay, Way, flush};

/// The most such writes at a time; others wait.
pub(super) const SLOTS: u8 = 32;
/// The pages of memory: the slots, and one that is never written to.
pub(super) const PAGES: usize = SLOTS as usize + 1;

/// The present block of a write, in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fill {
    /// The page of memory.
    slot: u8,
    /// The place that the block was read from.
    seen: Option<Place>,
    phase: Phase,
}

/// The round under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Reads the block.
    Read,
    /// Writes the block to a new place.
    Write,
}

/// Where a slot lies in the target's memory.
fn memory(slot: u8) -> usize {
    (flush::PAGES + usize::from(slot)) * PAGE
}

/// The step with zeros in place of the request's bytes.
pub(super) fn of_zeros(step: Step) -> Step {
    // Fits: inside the region.
    let at = u32::try_from(memory(SLOTS)).unwrap_or(u32::MAX);
    Step { place: targets::Place::Own, at, ..step }
}

impl Live {
    /// The place of a block.
    fn place_of(&self, block: u64) -> Option<Place> {
        self.head.index().pieces(block, block + 1).next().and_then(|piece| piece.place)
    }

    /// Whether the live layer has the block.
    pub(super) fn has(&self, block: u64) -> bool {
        let layer = self.place_of(block).and_then(|place| match place {
            Place::At { layer, .. } => Some(layer),
            Place::Zero => None,
        });
        layer == Some(self.head.layer())
    }

    /// The request's block in memory, if the block still has the place that was read.
    pub(super) fn take_read(&mut self, ticket: u64) -> Option<Fill> {
        let flight = self.flights.get(ticket);
        let (block, fill) = (flight.at, flight.fill?);
        if self.place_of(block) == fill.seen {
            return Some(fill);
        }
        self.end_fill(ticket);
        None
    }

    /// Whether the request's block may get the new place: no other write has given the block a place meanwhile.
    /// Gives the new place back otherwise.
    pub(super) fn keeps_fill(&mut self, ticket: u64) -> bool {
        let flight = self.flights.get(ticket);
        let Some(fill) = flight.fill.filter(|fill| fill.phase == Phase::Write) else { return true };
        let block = flight.at;
        let keeps = self.place_of(block) == fill.seen;
        if !keeps {
            self.give_back(ticket);
            self.end_fill(ticket);
        }
        keeps
    }

    /// The block of the round that has ended is in its new place.
    pub(super) fn filled(&mut self, ticket: u64) {
        let flight = self.flights.get(ticket);
        if flight.fill.is_some_and(|fill| fill.phase == Phase::Write) {
            flight.at += 1;
            self.end_fill(ticket);
        }
    }

    /// The request needs its page of memory no more.
    pub(super) fn end_fill(&mut self, ticket: u64) {
        if let Some(fill) = self.flights.get(ticket).fill.take() {
            self.slots.push(fill.slot);
        }
    }
}

impl Overlay {
    /// The first round of a write whose next block is a part of one that the live layer does not have.
    pub(super) fn plan_fill(
        &self,
        live: &mut Live,
        ticket: u64,
        request: &Request,
        plan: &mut Plan<'_>,
    ) -> Result<Way, Errno> {
        let block = live.flights.get(ticket).at;
        let seen = live.place_of(block);
        let Some(slot) = live.slots.pop() else { return Ok(Way::Park) };
        let fill = Fill { slot, seen, phase: Phase::Read };
        live.flights.get(ticket).fill = Some(fill);
        self.plan_old(live, block, fill, plan)?;
        match plan.is_empty() {
            true => Self::plan_filled(live, (ticket, fill), request, plan),
            false => Ok(Way::Round),
        }
    }

    /// Reads a block as it is into the slot; without steps, if that is zeros.
    fn plan_old(
        &self,
        live: &Live,
        block: u64,
        fill: Fill,
        plan: &mut Plan<'_>,
    ) -> Result<(), Errno> {
        // SAFETY: inside the region, which has this many pages; no step under way uses the slot, and nobody else
        // has it.
        unsafe { self.pages.base().add(memory(fill.slot)).write_bytes(0, PAGE) };
        // Fits: inside the region.
        let at = u32::try_from(memory(fill.slot)).unwrap_or(u32::MAX);
        match fill.seen {
            Some(Place::At { layer, block }) => {
                let file = live.layers.place(layer);
                let read = live.step(StepKind::Read, BLOCK, block << BLOCK_SHIFT);
                plan.push(Step { file, place: targets::Place::Own, at, ..read });
            }
            Some(Place::Zero) => {}
            None => {
                let length = u32::try_from(BLOCK).unwrap_or(u32::MAX);
                let flags = targets::RequestFlags::default();
                let read = Request { op: Op::Read, flags, offset: block << BLOCK_SHIFT, length };
                plan.read_own(at, |plan| plan_below(&self.base, self.base_files, 0, &read, plan))?;
                plan.order_stages();
            }
        }
        Ok(())
    }

    /// Writes the block to a new place: bytes of the slot around those of the request.
    pub(super) fn plan_filled(
        live: &mut Live,
        (ticket, fill): (u64, Fill),
        request: &Request,
        plan: &mut Plan<'_>,
    ) -> Result<Way, Errno> {
        let block = live.flights.get(ticket).at;
        let mut parts = std::mem::take(&mut live.flights.get(ticket).parts);
        let piece = Piece { block, count: 1, place: fill.seen };
        let placed = live.head.places_of(piece, |part| parts.push(part));
        let grown = plan_growth(live, live.head.space().segment_blocks(), &parts, plan);
        let flight = live.flights.get(ticket);
        (flight.parts, flight.fill) = (parts, Some(Fill { phase: Phase::Write, ..fill }));
        if placed.is_err() {
            live.give_back(ticket);
            return Err(Errno(libc::ENOSPC));
        }
        let place = live.flights.get(ticket).parts[0].run.block << BLOCK_SHIFT;
        let stage = grown.into();
        let clip = clip(request, block, 1);
        let write = |from: u64, length| Step {
            stage,
            ..live.step(StepKind::Write { dsync: false }, length, place + from)
        };
        let end = clip.skipped + clip.length;
        for (from, length) in [(0, clip.skipped), (end, BLOCK - end)] {
            if length > 0 {
                // Fits: inside the region.
                let at = u32::try_from(memory(fill.slot) as u64 + from).unwrap_or(u32::MAX);
                plan.push(Step { place: targets::Place::Own, at, ..write(from, length) });
            }
        }
        let from = Step { at: clip.within, ..write(clip.skipped, clip.length) };
        plan.push(if request.op == Op::Write { from } else { of_zeros(from) });
        Ok(Way::Round)
    }
}
