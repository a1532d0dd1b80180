//! Reads: each block from the highest layer that has it, or from the base.

use ublk_overlay::extent::{BLOCK_SHIFT, Place};

use super::super::native::Native;
use super::super::{Errno, Part, Plan, Request, Step, StepKind, Target};
use super::sectors::{Clip, blocks, clip};
use super::{Live, Overlay};

impl Overlay {
    /// As many pieces as a round has room for.
    pub(super) fn plan_read(
        &self,
        live: &mut Live,
        ticket: u64,
        request: &Request,
        plan: &mut Plan<'_>,
    ) -> Result<(), Errno> {
        let (_, to) = blocks(request);
        let mut at = live.flights.get(ticket).at;
        let (base_steps, _) = self.base_plans;
        for piece in live.head.index().pieces(at, to) {
            if plan.room() < base_steps {
                break;
            }
            let Clip { within, skipped, length } = clip(request, piece.block, piece.count);
            let offset = (piece.block << BLOCK_SHIFT) + skipped;
            let mut planned = length;
            match piece.place {
                Some(Place::At { layer, block }) => {
                    let read = live.step(StepKind::Read, length, (block << BLOCK_SHIFT) + skipped);
                    plan.push(Step { file: live.layers.place(layer), at: within, ..read });
                }
                Some(Place::Zero) => {
                    plan.push(Step { at: within, ..live.step(StepKind::Zeros, length, 0) });
                }
                None => planned = self.plan_base(request, (offset, length), plan)?,
            }
            if planned < length {
                // The base's chunks are whole blocks.
                at = (offset + planned) >> BLOCK_SHIFT;
                break;
            }
            at = piece.block + piece.count;
        }
        plan.order_stages();
        live.flights.get(ticket).at = at;
        Ok(())
    }

    /// A piece in no layer, cut where the base wants requests to be cut. Answers how many bytes of the piece
    /// the plan has room for: not none, if there is room for a plan of the base.
    fn plan_base(
        &self,
        request: &Request,
        (offset, length): (u64, u64),
        plan: &mut Plan<'_>,
    ) -> Result<u64, Errno> {
        let (most, chunk) = self.base_plans;
        let mut planned = 0;
        while planned < length && plan.room() >= most {
            let from = offset + planned;
            let rest = length - planned;
            let now = if chunk == 0 { rest } else { rest.min(chunk - from % chunk) };
            // Fits: inside the request.
            let bytes = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
            let at = bytes(from - request.offset);
            let piece = Request { offset: from, length: bytes(now), ..*request };
            plan_below(&self.base, self.base_files, at, &piece, plan)?;
            planned += now;
        }
        Ok(planned)
    }
}

/// Adds the base's plan of a read, whose bytes begin at byte `at` of the device's request. `files` is the place of
/// the base's first file.
pub(super) fn plan_below(
    base: &Native,
    files: u16,
    at: u32,
    read: &Request,
    plan: &mut Plan<'_>,
) -> Result<(), Errno> {
    let before = plan.len();
    plan.part(Part { files, at, ..Part::default() }, |plan| base.plan(read, plan))?;
    if plan.len() == before {
        // A base that stores nothing reads as zeros.
        plan.push(Step { at, length: read.length, kind: StepKind::Zeros, ..Step::EMPTY });
    }
    Ok(())
}
