//! The requests that nearly all requests are: a transfer in one piece of one file, which gives no block a new place.

use ublk_overlay::extent::{BLOCK_SHIFT, Extent, Place};

use super::super::{Errno, Op, Plan, Request, Step, StepKind};
use super::reads::plan_below;
use super::sectors::blocks;
use super::{Gate, Live, Overlay};

impl Overlay {
    /// Plans a read of one piece of a layer or of one block of the base, or a write of blocks that the live
    /// layer has. Answers whether the request is such; nothing has happened if not.
    #[inline]
    pub(super) fn plan_simple(
        &self,
        live: &mut Live,
        request: &Request,
        plan: &mut Plan<'_>,
    ) -> Result<bool, Errno> {
        let (from, to) = blocks(request);
        let kind = match request.op {
            Op::Read => StepKind::Read,
            Op::Write if live.gate != Gate::Closed => StepKind::Write { dsync: false },
            _ => return Ok(false),
        };
        match live.head.index().with(from) {
            Some(extent) if extent.end() >= to => {
                let Some(step) = live.transfer(request, kind, extent) else { return Ok(false) };
                plan.push(step);
            }
            None if kind == StepKind::Read && to == from + 1 => {
                plan_below(&self.base, self.base_files, 0, request, plan)?;
                plan.order_stages();
            }
            _ => return Ok(false),
        }
        let ticket = live.flights.begin(to, kind != StepKind::Read);
        live.flights.get(ticket).simple = true;
        plan.ask_last(ticket);
        Ok(true)
    }
}

impl Live {
    /// The step on the file that has the extent, unless a write is for a place of its own.
    fn transfer(&self, request: &Request, kind: StepKind, extent: Extent) -> Option<Step> {
        let Place::At { layer, block } = extent.place() else { return None };
        if kind != StepKind::Read && layer != self.head.layer() {
            return None;
        }
        let first = (block << BLOCK_SHIFT) + (request.offset - (extent.block() << BLOCK_SHIFT));
        let (file, length) = (self.layers.place(layer), request.length);
        Some(Step { kind, file, length, offset: first, ..Step::EMPTY })
    }
}
