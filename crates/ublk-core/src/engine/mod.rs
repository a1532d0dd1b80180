//! Runs plans.
//!
//! A request comes in with [`Engine::begin`]; each completion of its steps and registrations
//! with [`Engine::completed`]. Either call answers the result to commit once the request has
//! ended: its full length, or a negative errno, never less (trap 1).
//!
//! Where we register buffers ourselves, register → steps → unregister are pushed together and
//! without links. That is in order: all three are issued inline, in turn, and a step takes its
//! own reference to the buffer when it is issued, so the unregistration behind it cannot take the
//! buffer away (traps 4 and 5). No `IOSQE_ASYNC`, no drain, no link may come near them.

use std::io;
use std::mem;
use std::sync::Arc;

use io_uring::squeue::Flags;

use crate::driver::Ring;
use crate::reactor::slots::Slots;
use crate::stats::Counters;
use crate::target::{Errno, Op, Plan, Request, Step, Target};
use crate::token::{Kind, Token};

pub(crate) mod buffer;
pub(crate) mod entries;
mod flight;
mod verdict;

use buffer::Buffers;
use entries::Place;
use flight::{Flight, Lease, Progress};
use verdict::{Verdict, judge};

/// How often a buffer's registration is tried again before its request fails.
const MAX_ATTACH_FAILURES: u8 = 4;
/// How often a buffer's unregistration is tried again before its slot is given up.
const MAX_DETACH_FAILURES: u8 = 16;

/// What the engine works with during one call.
pub(crate) struct Io<'a, R> {
    pub(crate) ring: &'a mut R,
    pub(crate) slots: &'a mut Slots,
    pub(crate) counters: &'a Counters,
}

impl<R: Ring> Io<'_, R> {
    /// Makes room for `count` entries, so that what belongs together goes in together.
    #[inline]
    pub(crate) fn reserve(&mut self, count: usize) -> io::Result<()> {
        while self.ring.space() < count {
            self.counters.enters.add(1);
            self.ring.submit()?;
        }
        Ok(())
    }
}

/// Runs the plans of one queue.
#[derive(Debug)]
pub(crate) struct Engine<T> {
    target: Arc<T>,
    queue: u16,
    buffers: Buffers,
    /// What a continuation's offset must be a multiple of.
    block: u32,
    max_steps: usize,
    flights: Box<[Flight]>,
    steps: Box<[Step]>,
    progress: Box<[Progress]>,
    running: u32,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It goes on.
    Running,
    /// This is to be committed: it has ended, or is linked to the commit, which must be pushed
    /// next (see `Engine::link`).
    Commit(i32),
}

type Settled = io::Result<Outcome>;

impl<T: Target> Engine<T> {
    pub(crate) fn new(target: Arc<T>, queue: u16, depth: u16, buffers: Buffers) -> Self {
        let max_steps = target.max_steps();
        assert!(max_steps <= 255, "a plan of {max_steps} steps");
        let block = target.geometry().logical_block;
        let all_steps = usize::from(depth) * max_steps;
        Self {
            target,
            queue,
            buffers,
            block,
            max_steps,
            flights: vec![Flight::IDLE; depth.into()].into(),
            steps: vec![Step::EMPTY; all_steps].into(),
            progress: vec![Progress::default(); all_steps].into(),
            running: 0,
        }
    }

    /// Requests that have begun and not ended.
    pub(crate) fn running(&self) -> u32 {
        self.running
    }

    /// Starts a request; `alone` when no other is there, to be started or to be committed.
    #[inline]
    pub(crate) fn begin<R: Ring>(
        &mut self,
        io: &mut Io<'_, R>,
        tag: u16,
        request: Request,
        alone: bool,
    ) -> Settled {
        self.running += 1;
        self.flights[usize::from(tag)] = Flight::new(request);
        let first = usize::from(tag) * self.max_steps;
        let mut plan = Plan::new(&mut self.steps[first..first + self.max_steps]);
        let planned = self.target.plan(&request, &mut plan);
        let steps = plan.len();
        match planned {
            Ok(()) if alone && steps == 1 && self.can_link(tag) => self.link(io, tag),
            Ok(()) => self.launch(io, tag, steps),
            Err(errno) => Ok(Outcome::Commit(self.fail(io, tag, errno))),
        }
    }

    /// Takes a completion of this queue's steps or registrations.
    #[inline]
    pub(crate) fn completed<R: Ring>(
        &mut self,
        io: &mut Io<'_, R>,
        token: Token,
        result: i32,
    ) -> Settled {
        match token.kind {
            Kind::Step => self.step_ended(io, token, result),
            Kind::Register => self.registered(io, token.tag, result),
            Kind::Unregister => self.unregistered(io, token.tag, result),
            Kind::Fetch | Kind::Wake => unreachable!("not the engine's: {token:?}"),
        }
    }

    /// Starts the plan that lies ready.
    #[inline]
    fn launch<R: Ring>(&mut self, io: &mut Io<'_, R>, tag: u16, steps: usize) -> Settled {
        let first = usize::from(tag) * self.max_steps;
        let plan = &self.steps[first..first + steps];
        let touched = plan.iter().any(Step::uses_buffer);
        self.progress[first..first + steps].fill(Progress::default());
        let flight = &mut self.flights[usize::from(tag)];
        #[expect(clippy::cast_possible_truncation, reason = "at most 255, checked in new")]
        {
            flight.planned = steps as u8;
        }
        flight.started = 0;
        flight.errno = 0;
        flight.attach_errno = 0;
        if touched && flight.lease == Lease::Standing && self.registers(tag) {
            self.flights[usize::from(tag)].lease = Lease::Wanted;
        }
        self.advance(io, tag)
    }

    /// Whether this request's buffer must be registered by us.
    #[inline]
    fn registers(&self, tag: u16) -> bool {
        match &self.buffers {
            Buffers::Register { .. } => true,
            Buffers::Auto { .. } => {
                self.flights[usize::from(tag)].request.flags.needs_registration()
            }
            Buffers::Copy(_) => false,
        }
    }

    /// Our own memory must not go while a step works on it, and a linked step does not say when
    /// it has ended. Only reads and writes break their link when they fail: for fsync and
    /// fallocate io_uring never does, and swallows the error together with the completion.
    fn can_link(&self, tag: u16) -> bool {
        let step = &self.steps[usize::from(tag) * self.max_steps];
        matches!(self.buffers, Buffers::Auto { .. }) && step.uses_buffer() && !self.registers(tag)
    }

    /// Pushes the only step so that the kernel goes on to the commit, which the caller pushes
    /// next, without waking us in between. The step answers only if it fails or is short: the
    /// kernel drops the commit then, silently, and the request goes on as if never linked.
    ///
    /// It saves a call for a request that is alone, and costs more than that among many.
    fn link<R: Ring>(&mut self, io: &mut Io<'_, R>, tag: u16) -> Settled {
        io.reserve(2)?;
        let first = usize::from(tag) * self.max_steps;
        self.progress[first] = Progress::default();
        let flight = &mut self.flights[usize::from(tag)];
        (flight.planned, flight.started) = (1, 1);
        flight.linked = true;
        self.push_step(io, tag, 0);
        Ok(Outcome::Commit(self.succeed(io, tag)))
    }

    /// A linked step failed or was short after all.
    #[cold]
    fn unlink<R: Ring>(&mut self, io: &mut Io<'_, R>, tag: u16) {
        let flight = &mut self.flights[usize::from(tag)];
        flight.linked = false;
        self.running += 1;
        let request = flight.request;
        self.count(io.counters, &request, 1_u64.wrapping_neg());
    }

    fn split(&self) -> bool {
        matches!(self.buffers, Buffers::Register { split: true })
    }

    /// Nothing is pending: starts the next stage, or ends the request.
    #[inline]
    fn advance<R: Ring>(&mut self, io: &mut Io<'_, R>, tag: u16) -> Settled {
        let flight = &self.flights[usize::from(tag)];
        if flight.started == flight.planned || flight.errno != 0 {
            return self.finish(io, tag);
        }
        let stage = self.next_stage(tag);
        io.reserve(stage.len() + 2)?;
        if matches!(self.flights[usize::from(tag)].lease, Lease::Wanted | Lease::Empty(_)) {
            if !self.attach(io, tag) {
                self.flights[usize::from(tag)].errno = libc::ENOBUFS;
                return self.finish(io, tag);
            }
            if self.split() {
                self.flights[usize::from(tag)].pending = 1;
                return Ok(Outcome::Running);
            }
        }
        for step in stage.clone() {
            self.push_step(io, tag, step);
        }
        let flight = &mut self.flights[usize::from(tag)];
        flight.started = stage.end;
        let last = stage.end == flight.planned;
        if last && !self.split() {
            self.detach(io, tag);
        }
        Ok(Outcome::Running)
    }

    fn next_stage(&self, tag: u16) -> std::ops::Range<u8> {
        let flight = &self.flights[usize::from(tag)];
        let first = usize::from(tag) * self.max_steps;
        let plan = &self.steps[first..first + usize::from(flight.planned)];
        let stage = plan[usize::from(flight.started)].stage;
        let more =
            plan[usize::from(flight.started)..].iter().take_while(|step| step.stage == stage);
        #[expect(clippy::cast_possible_truncation, reason = "at most 255, checked in new")]
        let count = more.count() as u8;
        flight.started..flight.started + count
    }

    #[inline]
    fn push_step<R: Ring>(&mut self, io: &mut Io<'_, R>, tag: u16, step: u8) {
        let index = usize::from(tag) * self.max_steps + usize::from(step);
        let flight = &mut self.flights[usize::from(tag)];
        let place = match (&self.buffers, flight.lease) {
            (Buffers::Copy(pool), _) => Place::Memory(pool.at(tag, 0)),
            (_, Lease::Empty(slot) | Lease::Attached(slot)) => Place::Slot(slot),
            (Buffers::Auto { slots }, _) => Place::Slot(slots[usize::from(tag)]),
            // No step of this plan uses the buffer.
            (Buffers::Register { .. }, _) => Place::Slot(0),
        };
        let token = Token { kind: Kind::Step, tag, step };
        let mut entry = entries::step(&self.steps[index], &self.progress[index], place, token);
        if flight.linked {
            entry = entry.flags(Flags::IO_LINK | Flags::SKIP_SUCCESS);
        }
        flight.pending += 1;
        // SAFETY: the entry points into a lent buffer, which io_uring holds on to, or into our
        // pool, which outlives the ring's last completion (see `Reactor`).
        unsafe { io.ring.push(&entry) };
    }

    /// Registers the request's buffer; false when no slot is left.
    fn attach<R: Ring>(&mut self, io: &mut Io<'_, R>, tag: u16) -> bool {
        let split = self.split();
        let flight = &mut self.flights[usize::from(tag)];
        let Some(slot) = flight.lease.slot().or_else(|| io.slots.take()) else { return false };
        flight.lease = Lease::Attached(slot);
        io.counters.registrations.add(1);
        let entry = entries::register(self.queue, tag, slot, split);
        // SAFETY: the entry points to nothing.
        unsafe { io.ring.push(&entry) };
        true
    }

    /// Unregisters the request's buffer, if we registered it; the answer is pending then.
    #[inline]
    fn detach<R: Ring>(&mut self, io: &mut Io<'_, R>, tag: u16) {
        let flight = &mut self.flights[usize::from(tag)];
        let Lease::Attached(slot) = flight.lease else { return };
        flight.lease = Lease::Empty(slot);
        flight.detaching = true;
        flight.pending += 1;
        let entry = entries::unregister(self.queue, tag, slot);
        // SAFETY: the entry points to nothing.
        unsafe { io.ring.push(&entry) };
    }

    #[inline]
    fn step_ended<R: Ring>(&mut self, io: &mut Io<'_, R>, token: Token, result: i32) -> Settled {
        let tag = token.tag;
        let index = usize::from(tag) * self.max_steps + usize::from(token.step);
        if self.flights[usize::from(tag)].linked {
            self.unlink(io, tag);
        }
        let flight = &mut self.flights[usize::from(tag)];
        flight.pending -= 1;
        match judge(&self.steps[index], &mut self.progress[index], result, self.block) {
            Verdict::Complete => {}
            Verdict::Failed(errno) => {
                flight.errno = if flight.errno == 0 { errno } else { flight.errno };
            }
            Verdict::Continue => self.continue_step(io, token)?,
        }
        match self.flights[usize::from(tag)].pending {
            0 => self.advance(io, tag),
            _ => Ok(Outcome::Running),
        }
    }

    /// Does what is left of a step that was short or interrupted.
    #[cold]
    fn continue_step<R: Ring>(&mut self, io: &mut Io<'_, R>, token: Token) -> io::Result<()> {
        io.counters.short_results.add(1);
        let tag = token.tag;
        let index = usize::from(tag) * self.max_steps + usize::from(token.step);
        let (step, progress) = (self.steps[index], self.progress[index]);
        if progress.zeroing {
            io.counters.zero_filled_bytes.add(u64::from(step.length - progress.from));
            if let Buffers::Copy(pool) = &self.buffers {
                pool.zero(tag, step.at + progress.from, step.length - progress.from);
                return Ok(());
            }
        }
        let flight = &self.flights[usize::from(tag)];
        if step.uses_buffer() && matches!(flight.lease, Lease::Empty(_)) {
            // The unregistration went in with the step, and another goes in with its continuation:
            // not before the first has answered, for if it failed, the slot is still taken.
            self.progress[index].waiting = true;
            return if flight.detaching { Ok(()) } else { self.continue_waiting(io, tag) };
        }
        io.reserve(1)?;
        self.push_step(io, tag, token.step);
        Ok(())
    }

    /// The slot is empty: goes on with the steps that waited for that.
    #[cold]
    fn continue_waiting<R: Ring>(&mut self, io: &mut Io<'_, R>, tag: u16) -> io::Result<()> {
        let flight = &self.flights[usize::from(tag)];
        let first = usize::from(tag) * self.max_steps;
        let count = self.progress[first..first + usize::from(flight.planned)]
            .iter()
            .filter(|progress| progress.waiting)
            .count();
        if count == 0 || flight.errno != 0 {
            return Ok(());
        }
        io.reserve(count + 2)?;
        self.attach(io, tag);
        for step in 0..self.flights[usize::from(tag)].planned {
            if mem::take(&mut self.progress[first + usize::from(step)].waiting) {
                self.push_step(io, tag, step);
            }
        }
        self.detach(io, tag);
        Ok(())
    }

    /// A registration failed, or, split, answered. Unsplit it is not among the pending, and
    /// comes before the completions of the steps that then fail for want of a buffer.
    #[cold]
    fn registered<R: Ring>(&mut self, io: &mut Io<'_, R>, tag: u16, result: i32) -> Settled {
        let split = self.split();
        let flight = &mut self.flights[usize::from(tag)];
        if result < 0 {
            flight.attach_errno = -result;
            flight.attach_failures = flight.attach_failures.saturating_add(1);
            if let Lease::Attached(slot) = flight.lease {
                flight.lease = Lease::Empty(slot);
            }
            if result == -libc::EBUSY {
                // Somebody else's buffer sits there. The slot is never used again.
                flight.lease = Lease::Wanted;
            }
        }
        if !split {
            return Ok(Outcome::Running);
        }
        flight.pending -= 1;
        if result < 0 {
            flight.errno = -result;
        }
        self.advance(io, tag)
    }

    #[inline]
    fn unregistered<R: Ring>(&mut self, io: &mut Io<'_, R>, tag: u16, result: i32) -> Settled {
        let flight = &mut self.flights[usize::from(tag)];
        flight.pending -= 1;
        flight.detaching = false;
        if result < 0 && flight.attach_errno == 0 {
            self.unregister_again(io, tag)?;
        } else {
            self.continue_waiting(io, tag)?;
        }
        match self.flights[usize::from(tag)].pending {
            0 => self.advance(io, tag),
            _ => Ok(Outcome::Running),
        }
    }

    /// The kernel could not unregister (short of memory, say). The request cannot complete while
    /// its buffer is registered, so there is no giving up early.
    #[cold]
    fn unregister_again<R: Ring>(&mut self, io: &mut Io<'_, R>, tag: u16) -> io::Result<()> {
        let flight = &mut self.flights[usize::from(tag)];
        flight.detach_failures += 1;
        let Lease::Empty(slot) = flight.lease else { return Ok(()) };
        if flight.detach_failures > MAX_DETACH_FAILURES {
            flight.lease = Lease::Wanted;
            flight.errno = libc::EIO;
            return Ok(());
        }
        io.reserve(1)?;
        flight.lease = Lease::Attached(slot);
        self.detach(io, tag);
        Ok(())
    }

    /// All steps have ended, or one has failed: lets go of the buffer, then settles.
    #[inline]
    fn finish<R: Ring>(&mut self, io: &mut Io<'_, R>, tag: u16) -> Settled {
        if let Lease::Attached(_) = self.flights[usize::from(tag)].lease {
            io.reserve(1)?;
            self.detach(io, tag);
            return Ok(Outcome::Running);
        }
        let flight = &mut self.flights[usize::from(tag)];
        if flight.errno == 0 {
            return Ok(Outcome::Commit(self.succeed(io, tag)));
        }
        self.recover(io, tag)
    }

    /// A plan failed: for want of a buffer, so it is run once more, or for a reason that the
    /// target may know a way around.
    #[cold]
    fn recover<R: Ring>(&mut self, io: &mut Io<'_, R>, tag: u16) -> Settled {
        let flight = &mut self.flights[usize::from(tag)];
        if flight.attach_errno != 0 && flight.attach_failures <= MAX_ATTACH_FAILURES {
            let steps = usize::from(flight.planned);
            return self.launch(io, tag, steps);
        }
        let (request, errno, round) = (flight.request, Errno(flight.errno), flight.round);
        flight.round = flight.round.saturating_add(1);
        let first = usize::from(tag) * self.max_steps;
        let mut plan = Plan::new(&mut self.steps[first..first + self.max_steps]);
        let retried = match round {
            u8::MAX => Err(errno),
            _ => self.target.retry(&request, errno, round, &mut plan),
        };
        let steps = plan.len();
        match retried {
            Ok(()) => self.launch(io, tag, steps),
            Err(errno) => Ok(Outcome::Commit(self.fail(io, tag, errno))),
        }
    }

    #[inline]
    fn succeed<R: Ring>(&mut self, io: &mut Io<'_, R>, tag: u16) -> i32 {
        let request = self.flights[usize::from(tag)].request;
        self.count(io.counters, &request, 1);
        self.release(io, tag);
        // Fits: a request with data is at most 32 MiB; of the others the kernel reads the sign.
        if request.op.has_data() { request.length.cast_signed() } else { 0 }
    }

    /// Counts a request `times` over; -1, wrapped, takes it back.
    #[inline]
    fn count(&self, counters: &Counters, request: &Request, times: u64) {
        let bytes = u64::from(request.length).wrapping_mul(times);
        match request.op {
            Op::Read => {
                counters.reads.add(times);
                counters.read_bytes.add(bytes);
            }
            Op::Write => {
                counters.writes.add(times);
                counters.write_bytes.add(bytes);
            }
            Op::Flush => counters.flushes.add(times),
            Op::Discard => counters.discards.add(times),
            Op::WriteZeroes => counters.write_zeroes.add(times),
        }
        match self.buffers {
            _ if !request.op.has_data() => {}
            Buffers::Copy(_) => counters.copied_bytes.add(bytes),
            _ => counters.zero_copy_bytes.add(bytes),
        }
    }

    #[cold]
    fn fail<R: Ring>(&mut self, io: &mut Io<'_, R>, tag: u16, errno: Errno) -> i32 {
        io.counters.errors.add(1);
        self.release(io, tag);
        -for_client(errno.0)
    }

    #[inline]
    fn release<R: Ring>(&mut self, io: &mut Io<'_, R>, tag: u16) {
        self.running -= 1;
        let flight = &mut self.flights[usize::from(tag)];
        if let Some(slot) = flight.lease.slot() {
            io.slots.put(slot);
        }
        flight.lease = Lease::Standing;
    }
}

/// What a client may be told. `EAGAIN` would read as "a non-blocking request would block"
/// (trap 48), and an errno without a block status of its own reads as an I/O error anyway.
fn for_client(errno: i32) -> i32 {
    match errno {
        libc::ENOSPC | libc::EDQUOT => libc::ENOSPC,
        libc::EOPNOTSUPP | libc::ETIMEDOUT | libc::ENOLINK | libc::ENODATA | libc::EILSEQ => errno,
        _ => libc::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_never_see_a_request_to_try_again() {
        assert_eq!(for_client(libc::EAGAIN), libc::EIO);
        assert_eq!(for_client(libc::ENOSPC), libc::ENOSPC);
    }
}
