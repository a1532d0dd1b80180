//! The way of nearly every request: one transfer that moves all of its bytes, in a buffer that is
//! registered already.
//!
//! Nothing is kept of such a transfer but its request: if it does all that it should, there is
//! nothing more to know. If it does not, the request is put on the way of all others, as a plan of
//! one step.

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
use crate::target::{Op, Plan, Remap, Request, Step, StepKind, Target};
use crate::token::{Kind, Token};

/// What a transfer and the commit behind it take up of the submission queue.
const ENTRIES: usize = 2;

impl<T: Target> Engine<T> {
    /// Starts a request that needs no plan; `alone` as for [`begin`](Self::begin). None: it does need
    /// one, and nothing has happened.
    #[inline(always)]
    pub(crate) fn express<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: u16,
        descriptor: &ublksrv_io_desc,
        alone: bool,
    ) -> Option<Outcome> {
        let request = Request::plain(descriptor)?;
        let remap = self.target.remap(&request);
        if remap == Remap::Plan {
            return None;
        }
        let slot = self.standing_slot(tag)?;
        if pass.ring.space() < ENTRIES {
            return None;
        }
        let flight = &mut self.flights[usize::from(tag)];
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

    /// Starts the only step of the plan that lies ready, if it can go this way.
    #[inline]
    pub(super) fn express_step<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: u16,
        request: &Request,
        alone: bool,
    ) -> Option<Outcome> {
        let step = self.steps[usize::from(tag) * self.max_steps];
        // What has to be durable is judged when it has ended, as a plan's.
        let plain = matches!(step.kind, StepKind::Read | StepKind::Write { dsync: false });
        let whole = plain && step.uses_buffer() && step.length == request.length;
        let lent = !request.flags.needs_registration() && !request.flags.is_shared();
        if !whole || !lent || pass.ring.space() < ENTRIES {
            return None;
        }
        let slot = self.standing_slot(tag)?;
        self.transfer(pass, tag, (&step, slot), alone);
        Some(if alone { Outcome::CommitLinked(self.succeed(pass, tag)) } else { Outcome::Running })
    }

    /// Starts a request that was asked for elsewhere and whose bytes are where `remap` says; `alone`
    /// as for [`begin`](Self::begin). None as for [`express`](Self::express).
    #[inline]
    pub(crate) fn express_asked<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: u16,
        alone: bool,
        remap: impl FnOnce(&T, &Request) -> Remap,
    ) -> Option<Outcome> {
        let request = self.flights[usize::from(tag)].request;
        if !request.is_plain() {
            return None;
        }
        let Remap::To { file, offset } = remap(&self.target, &request) else { return None };
        self.steps[usize::from(tag) * self.max_steps] = transfer_of(&request, file, offset);
        let flight = &mut self.flights[usize::from(tag)];
        (flight.held, flight.errno) = (false, 0);
        self.express_step(pass, tag, &request, alone)
    }

    /// Where the kernel has registered the request's buffer.
    #[inline(always)]
    fn standing_slot(&self, tag: u16) -> Option<u16> {
        match &self.buffers {
            Buffers::Auto { slots } => Some(slots[usize::from(tag)].get()),
            _ => None,
        }
    }

    /// Starts the transfer that a step describes. For a request that is alone the kernel goes on to
    /// the commit, which the caller pushes next, without waking us in between: the transfer answers
    /// only if it fails or is short, and the kernel then drops the commit, silently. That saves a
    /// call, and costs more than that among many.
    ///
    /// Only reads and writes go this way, and only they may: for fsync and fallocate io_uring
    /// never breaks a link, and swallows the error together with the completion.
    #[inline(always)]
    fn transfer<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: u16,
        (step, slot): (&Step, u16),
        alone: bool,
    ) {
        let flags = if alone { Flags::IO_LINK | Flags::SKIP_SUCCESS } else { Flags::empty() };
        let file = pass.seat.files + FIRST_OF_TARGET + u32::from(step.file);
        let entry = entry(step, file, slot, flags);
        let kind = if alone { Kind::Linked } else { Kind::Step };
        // SAFETY: the entry points into a lent buffer, which io_uring holds on to.
        unsafe { pass.push(entry, Token::new(kind, tag)) };
        self.flights[usize::from(tag)].way = if alone { Way::Linked } else { Way::Express };
    }

    /// The first step of a plan has ended. Answers what its request comes to if it went this way and
    /// is not to be judged: if none, [`completed`](Self::completed) takes the same completion.
    #[inline(always)]
    pub(crate) fn arrive<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: u16,
        result: i32,
    ) -> Option<Outcome> {
        let flight = &self.flights[usize::from(tag)];
        if flight.way != Way::Express || result.cast_unsigned() != flight.request.length {
            return None;
        }
        if count_plain(pass.counters, &flight.request, 1) {
            // It holds nothing that would have to be let go of.
            self.running -= 1;
            return Some(Outcome::Commit(result));
        }
        Some(Outcome::Commit(self.succeed(pass, tag)))
    }

    /// The transfer has not done what was hoped for: the request goes on as if it had never gone
    /// this way.
    #[cold]
    pub(super) fn derail<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: u16) {
        let flight = &mut self.flights[usize::from(tag)];
        let (request, way) = (flight.request, flight.way);
        *flight = Flight { pending: 1, planned: 1, started: 1, ..Flight::new(request) };
        let first = usize::from(tag) * self.max_steps;
        self.progress[first] = Progress::default();
        if let Remap::To { .. } = self.target.remap(&request) {
            // Other targets' plans lie where they put them.
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
