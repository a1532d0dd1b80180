//! What requests become.
//!
//! A request that reads or writes metadata begins with a round without steps, in which it waits for its
//! turn; its ticket is its place in the book of turns.

use super::super::{Errno, Next, Op, Place, Plan, Request, Step, StepKind};
use super::journal::{Headers, Record};
use super::turns::{Turn, Wish};
use super::{DATA, Integrity, METADATA};

const WRITE: StepKind = StepKind::Write { dsync: false };

impl Integrity {
    /// Lets a request wait for its turn.
    pub(super) fn announce(
        &self,
        request: &Request,
        plan: &mut Plan<'_>,
    ) -> std::result::Result<(), Errno> {
        let journaled = request.op == Op::Write && request.flags.has_metadata();
        let slots = if journaled { self.area.slots(request.length) } else { 0 };
        let range = request.offset..request.offset + u64::from(request.length);
        let wish = Wish { range, writes: request.op == Op::Write, slots };
        plan.ask(self.turns.announce(wish)?);
        Ok(())
    }

    /// Looks whether it is the turn of the request with this ticket, and begins it then.
    pub(super) fn begin(&self, request: &Request, ticket: u64, plan: &mut Plan<'_>) -> Next {
        match self.turns.begin(ticket) {
            Turn::Wait(microseconds) => return Next::Park(microseconds),
            Turn::Never(errno) => {
                self.turns.fail(ticket);
                return Next::Fail(errno);
            }
            Turn::Now(_) if request.op == Op::Read => self.plan_read(request, plan),
            Turn::Now(slot) if request.flags.has_metadata() => {
                self.plan_journal(request, slot, plan);
            }
            Turn::Now(_) => {
                // The metadata stays as it is, if whoever uses the device makes none.
                let write = StepKind::Write { dsync: request.flags.fua() };
                plan.push(data(write, DATA, request, request.offset));
            }
        }
        plan.ask(ticket);
        Next::Round
    }

    /// The round after the first one with steps.
    pub(super) fn go_on(
        &self,
        request: &Request,
        (ticket, round): (u64, u16),
        plan: &mut Plan<'_>,
    ) -> Next {
        let journaled = request.op == Op::Write && request.flags.has_metadata();
        if round > 1 || !journaled {
            self.turns.end(ticket);
            return Next::Done;
        }
        let slot = self.turns.commit(ticket);
        let Request { offset, length, .. } = *request;
        self.headers.put(slot, Record { offset, length });
        self.plan_both(request, slot, plan);
        plan.ask(ticket);
        Next::Round
    }

    /// Both are read while nobody writes them.
    fn plan_read(&self, request: &Request, plan: &mut Plan<'_>) {
        let place = self.area.metadata(request.offset);
        plan.push(data(StepKind::Read, DATA, request, request.offset));
        plan.push(self.metadata(StepKind::Read, request, place));
        plan.push(at(1, self.metadata(StepKind::StoreMetadata, request, place)));
    }

    /// Both go into the journal.
    fn plan_journal(&self, request: &Request, slot: u16, plan: &mut Plan<'_>) {
        let kept = self.area.slot_metadata(slot);
        plan.push(data(WRITE, METADATA, request, self.area.slot(slot)));
        plan.push(self.metadata(StepKind::FetchMetadata, request, kept));
        plan.push(at(1, self.metadata(WRITE, request, kept)));
        plan.push(at(2, sync(METADATA)));
    }

    /// Both go to their places, while a record of the journal names them.
    fn plan_both(&self, request: &Request, slot: u16, plan: &mut Plan<'_>) {
        let place = self.area.metadata(request.offset);
        let header = self.area.header(slot);
        plan.push(at(0, own(Headers::at(slot), header)));
        plan.push(at(1, sync(METADATA)));
        plan.push(at(2, data(WRITE, DATA, request, request.offset)));
        plan.push(at(2, self.metadata(WRITE, request, place)));
        plan.push(at(3, sync(DATA)));
        plan.push(at(3, sync(METADATA)));
        plan.push(at(4, own(Headers::zeros(), header)));
        plan.push(at(5, sync(METADATA)));
    }

    fn metadata(&self, kind: StepKind, request: &Request, offset: u64) -> Step {
        let length = self.format.metadata_of(request.length.into());
        // Fits: at most 255 bytes to each 512 of a request of 32 MiB.
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        Step { kind, place: Place::Metadata, file: METADATA, length, offset, ..Step::EMPTY }
    }
}

fn at(stage: u8, step: Step) -> Step {
    Step { stage, ..step }
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
        kind: WRITE,
        place: Place::Own,
        file: METADATA,
        at,
        length: Headers::at(1),
        offset,
        ..Step::EMPTY
    }
}
