//! The way of nearly every request: a single transfer of all the request's bytes, in a buffer
//! already registered.
//!
//! The engine keeps only the request of such a transfer: after a complete transfer there is nothing
//! more to know, but for a target that wants to hear of the end ([`Way::Told`]). After any other
//! result, the request goes the usual way, as a plan of a single step.

use io_uring::squeue::Flags;
use ublk_sys::ublksrv_io_desc;

use super::flight::{Flight, Progress, Way};
use super::settle::count_plain;
use super::{Engine, Outcome};
use crate::buffers::Buffers;
use crate::driver::Ring;
use crate::file_table::FIRST_OF_TARGET;
use crate::pass::Pass;
use crate::sqe;
use crate::tag::Tag;
use crate::targets::{Ended, Next, Op, Plan, Remap, Request, Step, StepKind, Target};
use crate::token::{Kind, Token};

/// The submission entries of a transfer and the commit behind the transfer.
const ENTRIES: usize = 2;

impl<T: Target> Engine<T> {
    /// Starts a request that needs no plan; `alone` as for [`begin`](Self::begin). None: the
    /// request needs a plan, and nothing has happened.
    #[inline(always)]
    pub(crate) fn express<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        descriptor: &ublksrv_io_desc,
        alone: bool,
    ) -> Option<Outcome> {
        // First: without such a slot no request goes this way.
        let slot = self.standing_slot(tag)?;
        let request = Request::plain(descriptor)?;
        let remap = self.target.remap(&request);
        if remap == Remap::Plan {
            return None;
        }
        if pass.ring.space() < ENTRIES {
            return None;
        }
        let flight = &mut self.flights[tag.index()];
        flight.request = request;
        if let Remap::To { file, offset } = remap {
            let step = transfer_of(&request, file, offset);
            self.transfer(pass, tag, (&step, slot), alone);
            if alone {
                count_plain(pass.counters, &request, 1);
                return Some(Outcome::CommitLinked(request.length.cast_signed()));
            }
            self.running += 1;
            return Some(Outcome::Running);
        }
        count_plain(pass.counters, &request, 1);
        Some(Outcome::Commit(request.length.cast_signed()))
    }

    /// Starts the only step of the prepared plan, if the step can go the express way.
    #[inline]
    pub(super) fn express_step<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        request: &Request,
        alone: bool,
    ) -> Option<Outcome> {
        let slot = self.standing_slot(tag)?;
        let step = self.steps[tag.index() * self.max_steps];
        // A durable write stays a plan: the engine judges the write at the end.
        let plain = matches!(step.kind, StepKind::Read | StepKind::Write { dsync: false });
        let whole = plain && step.uses_buffer() && step.length == request.length;
        let lent = !request.flags.needs_registration() && !request.flags.is_shared();
        if !whole || !lent || pass.ring.space() < ENTRIES {
            return None;
        }
        self.transfer(pass, tag, (&step, slot), alone);
        Some(if alone { Outcome::CommitLinked(self.succeed(pass, tag)) } else { Outcome::Running })
    }

    /// Starts the only step of a request's last round, of whose end the target hears, if the step can go
    /// the express way. Not linked to the commit: a linked transfer tells nobody of its success.
    #[inline]
    pub(super) fn express_told<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        request: &Request,
    ) -> bool {
        let starts = self.express_step(pass, tag, request, false).is_some();
        if starts {
            self.flights[tag.index()].way = Way::Told;
        }
        starts
    }

    /// Starts a request with a plan from beyond the bridge, whose bytes are where `remap` says;
    /// `alone` as for [`begin`](Self::begin). None as for [`express`](Self::express).
    #[inline]
    pub(crate) fn express_asked<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        alone: bool,
        remap: impl FnOnce(&T, &Request) -> Remap,
    ) -> Option<Outcome> {
        let request = self.flights[tag.index()].request;
        if !request.is_plain() {
            return None;
        }
        let Remap::To { file, offset } = remap(&self.target, &request) else { return None };
        self.steps[tag.index() * self.max_steps] = transfer_of(&request, file, offset);
        let flight = &mut self.flights[tag.index()];
        (flight.held, flight.errno) = (false, 0);
        self.express_step(pass, tag, &request, alone)
    }

    /// The slot where the kernel has registered the request's buffer.
    #[inline(always)]
    fn standing_slot(&self, tag: Tag) -> Option<u16> {
        match &self.buffers {
            Buffers::Auto { slots } => Some(slots[tag.index()].get()),
            _ => None,
        }
    }

    /// Starts the transfer of a step. For a lone request the caller links the commit to the
    /// transfer: the kernel goes from the transfer to the commit without waking the reactor in
    /// between. The transfer answers only after a failure or a short result; the kernel then drops
    /// the commit silently. The link saves a system call; among many requests, the link costs more
    /// than a call.
    ///
    /// Only reads and writes may go this way: for fsync and fallocate io_uring never breaks a link,
    /// and swallows the error together with the completion.
    #[inline(always)]
    fn transfer<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        (step, slot): (&Step, u16),
        alone: bool,
    ) {
        let flags = if alone { Flags::IO_LINK | Flags::SKIP_SUCCESS } else { Flags::empty() };
        let file = pass.seat.files + FIRST_OF_TARGET + u32::from(step.file);
        let entry = entry(step, file, slot, flags);
        let kind = if alone { Kind::Linked } else { Kind::Step };
        // SAFETY: the entry points into a lent buffer, and io_uring holds on to the buffer.
        unsafe { pass.push(entry, Token::new(kind, tag)) };
        self.flights[tag.index()].way = if alone { Way::Linked } else { Way::Express };
    }

    /// Handles the completion of a plan's first step. Returns the outcome of a complete express
    /// transfer; after None, the caller passes the same completion to
    /// [`completed`](Self::completed).
    #[inline(always)]
    pub(crate) fn arrive<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        result: i32,
    ) -> Option<Outcome> {
        let flight = &self.flights[tag.index()];
        if result.cast_unsigned() != flight.request.length {
            return None;
        }
        match flight.way {
            Way::Express => {}
            Way::Told => return Some(self.tell(pass, tag)),
            _ => return None,
        }
        if count_plain(pass.counters, &flight.request, 1) {
            // The request holds nothing to be released.
            self.running -= 1;
            return Some(Outcome::Commit(result));
        }
        Some(Outcome::Commit(self.succeed(pass, tag)))
    }

    /// A transfer is complete of whose end the target hears. Not inlined: `arrive` is in the queue loop.
    #[inline(never)]
    fn tell<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag) -> Outcome {
        let Flight { request, ticket, round, .. } = self.flights[tag.index()];
        let ended = Ended { result: Ok(()), ticket, round };
        let next = self.target.next(&request, ended, &mut Plan::new(&mut []));
        debug_assert_eq!(next, Next::Done, "after the last round of {request:?}");
        Outcome::Commit(self.succeed(pass, tag))
    }

    /// The transfer has failed or is short: the request continues as if never sent the express way.
    #[cold]
    pub(super) fn derail<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag) {
        let flight = &mut self.flights[tag.index()];
        let Flight { request, way, ticket, .. } = *flight;
        let told = way == Way::Told;
        let (asks, ticket) = (told, if told { ticket } else { 0 });
        *flight =
            Flight { asks, ticket, pending: 1, planned: 1, started: 1, ..Flight::new(request) };
        let first = tag.index() * self.max_steps;
        self.progress[first] = Progress::default();
        if let Remap::To { .. } = self.target.remap(&request) {
            // Without a remap, the planned step is still in `steps`.
            let mut plan = Plan::new(&mut self.steps[first..first + 1]);
            let planned = self.target.plan(&request, &mut plan);
            debug_assert!(planned.is_ok() && plan.len() == 1, "{request:?}: {planned:?}");
        }
        if way == Way::Linked {
            self.running += 1;
            self.count(pass.counters, &request, 1_u64.wrapping_neg());
        }
    }
}

/// All of a request's bytes, at `offset` of a file.
#[inline(always)]
fn transfer_of(request: &Request, file: u16, offset: u64) -> Step {
    let kind = match request.op {
        Op::Read => StepKind::Read,
        _ => StepKind::Write { dsync: false },
    };
    Step { kind, file, length: request.length, offset, ..Step::EMPTY }
}

#[inline(always)]
fn entry(step: &Step, file: u32, slot: u16, flags: Flags) -> io_uring::squeue::Entry {
    let transfer = sqe::Transfer {
        file,
        slot,
        offset: step.offset,
        at: step.at,
        length: step.length,
        flags: flags.bits(),
    };
    match step.kind {
        StepKind::Write { .. } => transfer.write(0),
        _ => transfer.read(),
    }
}
