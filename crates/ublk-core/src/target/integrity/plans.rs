//! What requests become.

use super::super::{Errno, Op, Plan, Request, Step, StepKind};
use super::journal::Headers;
use super::turns::Wish;
use super::{DATA, Integrity, METADATA};

/// At the notes of a plan: the request may have to wait; all that its record names is in the journal;
/// it has ended.
pub(super) const BEGIN: u32 = 0;
pub(super) const COMMIT: u32 = 1;
pub(super) const END: u32 = 2;

impl Integrity {
    /// Both are read while nobody writes them.
    pub(super) fn plan_read(
        &self,
        request: &Request,
        plan: &mut Plan<'_>,
    ) -> std::result::Result<(), Errno> {
        let (ticket, _) = self.turns.announce(wish(request, 0))?;
        let place = self.area.metadata(request.offset);
        plan.push(note(0, BEGIN, ticket));
        plan.push(at(1, data(StepKind::Read, DATA, request, request.offset)));
        plan.push(at(1, self.metadata(StepKind::ReadMetadata, request, place)));
        plan.push(at(2, self.metadata(StepKind::StoreMetadata, request, place)));
        plan.push(note(3, END, ticket));
        Ok(())
    }

    /// Both go into the journal, and then to their places.
    pub(super) fn plan_write(
        &self,
        request: &Request,
        plan: &mut Plan<'_>,
    ) -> std::result::Result<(), Errno> {
        let slots = self.area.slots(request.length);
        let (ticket, slot) = self.turns.announce(wish(request, slots))?;
        let write = StepKind::Write { dsync: false };
        let write_metadata = StepKind::WriteMetadata { dsync: false };
        let kept = self.area.slot_metadata(slot);
        let place = self.area.metadata(request.offset);
        let header = self.area.header(slot);
        plan.push(note(0, BEGIN, ticket));
        plan.push(at(1, data(write, METADATA, request, self.area.slot(slot))));
        plan.push(at(1, self.metadata(StepKind::FetchMetadata, request, kept)));
        plan.push(at(2, self.metadata(write_metadata, request, kept)));
        plan.push(at(3, sync(METADATA)));
        plan.push(Step { length: slot.into(), ..note(4, COMMIT, ticket) });
        plan.push(at(5, own(Headers::at(slot), header)));
        plan.push(at(6, sync(METADATA)));
        plan.push(at(7, data(write, DATA, request, request.offset)));
        plan.push(at(7, self.metadata(write_metadata, request, place)));
        plan.push(at(8, sync(DATA)));
        plan.push(at(8, sync(METADATA)));
        plan.push(at(9, own(Headers::zeros(), header)));
        plan.push(at(10, sync(METADATA)));
        plan.push(note(11, END, ticket));
        Ok(())
    }

    /// The metadata stays as it is, if whoever uses the device makes none.
    pub(super) fn plan_plain_write(
        &self,
        request: &Request,
        plan: &mut Plan<'_>,
    ) -> std::result::Result<(), Errno> {
        let (ticket, _) = self.turns.announce(wish(request, 0))?;
        let write = StepKind::Write { dsync: request.flags.fua() };
        plan.push(note(0, BEGIN, ticket));
        plan.push(at(1, data(write, DATA, request, request.offset)));
        plan.push(note(2, END, ticket));
        Ok(())
    }

    fn metadata(&self, kind: StepKind, request: &Request, offset: u64) -> Step {
        let length = self.format.metadata_of(request.length.into());
        // Fits: at most 255 bytes to each 512 of a request of 32 MiB.
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        Step { kind, file: METADATA, length, offset, ..Step::EMPTY }
    }
}

fn wish(request: &Request, slots: u16) -> Wish {
    let range = request.offset..request.offset + u64::from(request.length);
    Wish { range, writes: request.op == Op::Write, slots }
}

fn at(stage: u8, step: Step) -> Step {
    Step { stage, ..step }
}

fn note(stage: u8, what: u32, ticket: u64) -> Step {
    Step { kind: StepKind::Note, stage, at: what, offset: ticket, ..Step::EMPTY }
}

fn data(kind: StepKind, file: u16, request: &Request, offset: u64) -> Step {
    Step { kind, file, length: request.length, offset, ..Step::EMPTY }
}

pub(super) fn sync(file: u16) -> Step {
    Step { file, ..Step::EMPTY }
}

/// Writes a record's header from memory of the target's own.
fn own(at: u32, offset: u64) -> Step {
    Step {
        kind: StepKind::WriteOwn,
        file: METADATA,
        at,
        length: Headers::at(1),
        offset,
        ..Step::EMPTY
    }
}
