//! Writes: in place where the live layer has the blocks, and to new places elsewhere.

use ublk_overlay::extent::BLOCK_SHIFT;
use ublk_overlay::head::Target as Part;
use ublk_overlay::space::Run;

use super::super::{Errno, Op, Plan, Request, Step, StepKind};
use super::history::MOST_AT_ONCE;
use super::sectors::{Clip, blocks, clip, is_partial};
use super::unused::segments;
use super::{Live, Overlay, Way, fills};

/// The most parts of a round, and the most segments of its blocks: with the steps that allocate these,
/// fewer steps than a round has.
const MOST_PARTS: usize = MOST_AT_ONCE;
const MOST_SEGMENTS: u64 = 4;

impl Overlay {
    /// As many blocks as a round has room for. Missing space is allocated before. Of zeros, one part of a block.
    pub(super) fn plan_write(
        &self,
        live: &mut Live,
        ticket: u64,
        request: &Request,
        plan: &mut Plan<'_>,
    ) -> Result<Way, Errno> {
        let (_, mut to) = blocks(request);
        let lacks = |live: &Live, block| is_partial(request, block) && !live.has(block);
        let first = live.flights.get(ticket).at;
        if let Some(fill) = live.take_read(ticket) {
            return Self::plan_filled(live, (ticket, fill), request, plan);
        }
        if lacks(live, first) {
            return self.plan_fill(live, ticket, request, plan);
        }
        if request.op == Op::WriteZeroes {
            to = first + 1;
        } else if lacks(live, to - 1) {
            // A round of its own.
            to -= 1;
        }
        let flight = live.flights.get(ticket);
        let (mut at, mut parts) = (flight.at, std::mem::take(&mut flight.parts));
        let segment = live.head.space().segment_blocks();
        let end = to.min(at + MOST_SEGMENTS * segment);
        let mut full = false;
        // A piece of at most a segment goes to two places at most.
        while at < end && parts.len() + 2 <= MOST_PARTS && !full {
            let Some(mut piece) = live.head.index().pieces(at, end).next() else { break };
            piece.count = piece.count.min(segment);
            full = live.head.places_of(piece, |part| push(&mut parts, part)).is_err();
            at += piece.count;
        }
        let grown = plan_growth(live, segment, &parts, plan);
        for part in &parts {
            let Clip { within, skipped, length } = clip(request, part.block, part.run.count.into());
            let (place, _) = bytes(part.run);
            let write = live.step(StepKind::Write { dsync: false }, length, place + skipped);
            let from = Step { at: within, stage: grown.into(), ..write };
            plan.push(if request.op == Op::Write { from } else { fills::of_zeros(from) });
        }
        let flight = live.flights.get(ticket);
        (flight.at, flight.parts) = (at, parts);
        if full {
            live.give_back(ticket);
            return Err(Errno(libc::ENOSPC));
        }
        Ok(Way::Round)
    }
}

/// Offset and length of a run in the file, in bytes.
pub(super) fn bytes(run: Run) -> (u64, u64) {
    (run.block << BLOCK_SHIFT, u64::from(run.count) << BLOCK_SHIFT)
}

/// Adds a part; joins the last part and a part that follows on the disk and in the file.
fn push(parts: &mut Vec<Part>, part: Part) {
    if let Some(last) = parts.last_mut() {
        let count = u64::from(last.run.count);
        let continues =
            last.block + count == part.block && last.run.block + count == part.run.block;
        if continues && last.fresh == part.fresh {
            last.run.count += part.run.count;
            return;
        }
    }
    parts.push(part);
}

/// Allocates the missing segments, from the first block of the parts on. Answers whether there are any.
pub(super) fn plan_growth(live: &Live, segment: u64, parts: &[Part], plan: &mut Plan<'_>) -> bool {
    let mut last = None;
    for run in parts.iter().filter(|part| part.fresh).map(|part| part.run) {
        for missing in segments(run, segment).filter(|&segment| !live.allocated.has(segment)) {
            // A later part of a segment lies behind an earlier one.
            if last.replace(missing) == Some(missing) {
                continue;
            }
            let first = u64::from(missing) * segment;
            let from = run.block.max(first);
            let length = (first + segment - from) << BLOCK_SHIFT;
            plan.push(live.step(StepKind::Allocate, length, from << BLOCK_SHIFT));
        }
    }
    !plan.is_empty()
}
