//! Runs plans.
//!
//! [`Engine::begin`] takes a request; [`Engine::completed`] takes each completion of the request's
//! steps and registrations. Either call returns the result to commit once the request has ended: the
//! full length or a negative errno, never a shorter length (trap 1).
//!
//! Where the engine registers buffers, the engine pushes register → steps → unregister together and
//! without links. The order holds: the kernel issues all three inline, in turn, and a step takes a
//! reference to the buffer when issued, so the unregistration behind the step cannot remove the
//! buffer (traps 4 and 5). Register, steps and unregister must never use `IOSQE_ASYNC`, a drain or a
//! link.

use std::io;
use std::mem;
use std::sync::Arc;

use io_uring::types::Timespec;

use crate::buffers::Buffers;
use crate::driver::Ring;
use crate::memory::Region;
use crate::pass::Pass;
use crate::tag::Tag;
use crate::targets::{Plan, Request, Step, Target, Ticket};
use crate::token::{Kind, Token};

mod age;
mod elsewhere;
mod ends;
mod entries;
mod express;
mod flight;
mod lease;
mod remotes;
mod rounds;
mod settle;
mod severed;
mod special;
mod staging;
mod steps;
mod verdict;
mod waiting;

pub(crate) use elsewhere::After;
use flight::{Flight, Lease, Progress};
pub(crate) use remotes::Remotes;
pub(crate) use settle::for_client;
use special::Waits;
pub(crate) use staging::Aids;
use staging::Staging;

/// Retries of a buffer's registration before the request fails.
const MAX_ATTACH_FAILURES: u8 = 4;
/// Retries of a buffer's unregistration before the slot is given up.
const MAX_DETACH_FAILURES: u8 = 16;

/// Runs the plans of one queue.
#[derive(Debug)]
pub(crate) struct Engine<T> {
    target: Arc<T>,
    queue: u16,
    buffers: Buffers,
    aids: Aids,
    /// No request needs staging: the buffer is in place, or is registered together with the steps.
    direct: bool,
    /// A released slot is reused only after all other free slots.
    rotates: bool,
    /// Alignment of a continuation's offset, in bytes: the target's logical block size.
    block: u32,
    max_steps: usize,
    flights: Box<[Flight]>,
    steps: Box<[Step]>,
    progress: Box<[Progress]>,
    waits: Waits,
    /// The target's own memory.
    own: Option<Arc<Region>>,
    staging: Box<[Staging]>,
    remotes: Remotes,
    running: u32,
    /// Buffers of requests that were given up, with the tags; steps in flight may still use a buffer.
    given_up: Vec<(Tag, Arc<Region>)>,
    /// [`Target::deserted`], for methods without the bound `T: Target`.
    desert: fn(&T),
}

/// The state of a request after a call of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The request is still running.
    Running,
    /// The request has ended; the caller commits this result.
    Commit(i32),
    /// The request's step is linked to the next entry: the caller must push the commit of this result
    /// next. See `Engine::express`.
    CommitLinked(i32),
    /// The steps asked for by the bridge's peer have ended, with a positive errno or 0; the request
    /// waits for the next plan or the answer.
    Held(i32),
}

type Settled = io::Result<Outcome>;

impl<T> Engine<T> {
    /// The number of requests that have begun and not ended.
    pub(crate) fn running(&self) -> u32 {
        self.running
    }

    /// Gives `tag` another buffer; the request with the old buffer fails. Returns whether the kernel
    /// copies to the buffer.
    pub(crate) fn move_buffer(&mut self, tag: Tag, buffer: Arc<Region>) -> bool {
        self.lend(tag, buffer);
        matches!(self.buffers, Buffers::Copy(_))
    }

    /// Gives `tag` another buffer and returns the old buffer; `None` if the tag has no buffer to replace.
    fn lend(&mut self, tag: Tag, buffer: Arc<Region>) -> Option<Arc<Region>> {
        match (&mut self.buffers, &mut self.aids.lent) {
            (Buffers::Copy(pool), _) => pool.lend(tag, buffer),
            (_, Some(pool)) => pool.lend(tag, buffer),
            _ => None,
        }
    }

    /// Whether `target` plans the requests.
    pub(crate) fn serves(&self, target: &Arc<T>) -> bool {
        Arc::ptr_eq(&self.target, target)
    }

    /// The last request of `tag`.
    pub(crate) fn request(&self, tag: Tag) -> Request {
        self.flights[tag.index()].request
    }

    /// Called when the reactor ends before the running requests: leaks all memory that steps in flight
    /// may still use, and reports the end to the target.
    pub(crate) fn abandon(&mut self) {
        (self.desert)(&self.target);
        let nothing = Buffers::Register { split: false };
        mem::forget(mem::replace(&mut self.buffers, nothing));
        mem::forget(mem::take(&mut self.aids));
        mem::forget(mem::take(&mut self.given_up));
        mem::forget(self.own.take());
        self.remotes.abandon();
    }
}

/// The most steps of a request at a time. A pause between two rounds takes a step.
pub(crate) fn max_steps<T: Target>(target: &T) -> usize {
    target.max_steps().max(usize::from(target.takes_rounds()))
}

impl<T: Target> Engine<T> {
    pub(crate) fn new(
        target: Arc<T>,
        (queue, depth): (u16, u16),
        buffers: Buffers,
        aids: Aids,
        rotates: bool,
        remotes: Remotes,
    ) -> Self {
        let max_steps = max_steps(&*target);
        assert!(max_steps <= 255, "a plan of {max_steps} steps");
        let block = target.geometry().logical_block;
        let all_steps = usize::from(depth) * max_steps;
        let staged = matches!(
            buffers,
            Buffers::UserCopy | Buffers::GetData | Buffers::Register { split: true }
        );
        Self {
            direct: !staged && aids.are_none(),
            rotates,
            aids,
            staging: vec![Staging::EMPTY; depth.into()].into(),
            own: target.memory().cloned(),
            target,
            queue,
            buffers,
            block,
            max_steps,
            flights: vec![Flight::IDLE; depth.into()].into(),
            steps: vec![Step::EMPTY; all_steps].into(),
            progress: vec![Progress::default(); all_steps].into(),
            waits: vec![Timespec::new(); all_steps].into(),
            remotes,
            running: 0,
            given_up: Vec::new(),
            desert: T::deserted,
        }
    }

    /// Starts a request. `address` is the address in the descriptor, or of the buffer that the exchange
    /// has found. `alone`: no other request is running, about to start or about to be committed, so
    /// the request's step may be linked to the commit.
    #[inline(never)]
    pub(crate) fn begin<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        (request, address): (Request, u64),
        alone: bool,
    ) -> Settled {
        self.running += 1;
        self.flights[tag.index()] = Flight::new(request);
        let first = tag.index() * self.max_steps;
        let mut plan = Plan::new(&mut self.steps[first..first + self.max_steps]);
        let planned = self.target.plan(&request, &mut plan);
        let (steps, ticket) = (plan.len(), plan.ticket());
        if let Err(errno) = planned {
            return Ok(Outcome::Commit(self.fail(pass, tag, errno)));
        }
        if !self.direct {
            self.staging[tag.index()] = Staging::at(address);
        }
        if let Some(Ticket { last, .. }) = ticket {
            self.flights[tag.index()].take(ticket);
            if steps == 1 && last && self.express_told(pass, tag, &request) {
                return Ok(Outcome::Running);
            }
            return self.launch_round(pass, tag, steps);
        }
        match steps {
            0 => return Ok(Outcome::Commit(self.succeed(pass, tag))),
            1 => {
                if let Some(outcome) = self.express_step(pass, tag, &request, alone) {
                    return Ok(outcome);
                }
                if self.direct {
                    return self.start_only_step(pass, tag);
                }
            }
            _ if self.direct => return self.launch(pass, tag, steps),
            _ => {}
        }
        self.begin_placed(pass, tag, steps)
    }

    /// Takes a completion of this queue: of a registration, of a copy, or of a step for which
    /// [`arrive`](Self::arrive) has returned `None`.
    #[inline(always)]
    pub(crate) fn completed<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        token: Token,
        result: i32,
    ) -> Settled {
        match token.kind {
            Kind::Step => self.step_ended(pass, token, result),
            Kind::Register => self.registered(pass, token.tag, result),
            Kind::Unregister => self.unregistered(pass, token.tag, result),
            Kind::Copy => self.copied(pass, token.tag, result),
            Kind::Linked => self.linked_ended(pass, token.tag, result),
            Kind::Severed => self.severed(pass, token.tag),
            Kind::TakeBack => self.taken_back(pass, token, result),
            _ => unreachable!("not the engine's: {token:?}"),
        }
    }

    /// Starts the plan that the first `steps` entries of the tag's `self.steps` hold.
    #[inline]
    fn launch<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag, steps: usize) -> Settled {
        let first = tag.index() * self.max_steps;
        let plan = &self.steps[first..first + steps];
        let touched = plan.iter().any(Step::uses_buffer);
        self.progress[first..first + steps].fill(Progress::default());
        let flight = &mut self.flights[tag.index()];
        #[expect(clippy::cast_possible_truncation, reason = "at most 255, checked in new")]
        {
            flight.planned = steps as u8;
        }
        flight.started = 0;
        flight.errno = 0;
        flight.attach_errno = 0;
        flight.waiting = false;
        if touched && flight.lease == Lease::Standing && self.registers(tag) {
            self.flights[tag.index()].lease = Lease::Wanted;
        }
        self.advance(pass, tag)
    }

    /// Continues or ends a request after a completion, unless further completions are pending.
    #[inline(always)]
    fn settle_or_advance<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag) -> Settled {
        let flight = &self.flights[tag.index()];
        if flight.pending > 0 {
            return Ok(Outcome::Running);
        }
        if flight.has_succeeded() {
            return Ok(Outcome::Commit(self.succeed(pass, tag)));
        }
        self.advance(pass, tag)
    }

    /// Starts the next stage of a request without pending completions, or ends the request.
    #[inline]
    fn advance<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag) -> Settled {
        let flight = &self.flights[tag.index()];
        if flight.started == flight.planned || flight.errno != 0 {
            return self.finish(pass, tag);
        }
        let stage = self.next_stage(tag);
        pass.reserve(stage.len() + 2)?;
        if matches!(self.flights[tag.index()].lease, Lease::Wanted | Lease::Empty(_)) {
            if !self.attach(pass, tag) {
                self.flights[tag.index()].errno = libc::ENOBUFS;
                return self.finish(pass, tag);
            }
            if self.split() {
                self.flights[tag.index()].pending = 1;
                return Ok(Outcome::Running);
            }
        }
        for step in stage.clone() {
            self.push_step(pass, tag, step);
        }
        let flight = &mut self.flights[tag.index()];
        flight.started = stage.end;
        let last = stage.end == flight.planned;
        if last && !flight.held && !self.split() {
            self.detach(pass, tag);
        }
        Ok(Outcome::Running)
    }

    fn next_stage(&self, tag: Tag) -> std::ops::Range<u8> {
        let flight = &self.flights[tag.index()];
        let first = tag.index() * self.max_steps;
        let plan = &self.steps[first..first + usize::from(flight.planned)];
        let stage = plan[usize::from(flight.started)].stage;
        let more =
            plan[usize::from(flight.started)..].iter().take_while(|step| step.stage == stage);
        #[expect(clippy::cast_possible_truncation, reason = "at most 255, checked in new")]
        let count = more.count() as u8;
        flight.started..flight.started + count
    }
}
