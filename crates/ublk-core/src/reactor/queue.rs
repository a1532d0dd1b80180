//! The way of a request between exchange and engine.

use std::io;

use ublk_sys::ublksrv_io_desc;

use super::asking::Asking;
use super::gate::{Gate, Held};
use crate::driver::{Completion, Descriptors, Ring};
use crate::engine::{Engine, Outcome};
use crate::exchange::{Arrival, Exchange, Tags};
use crate::pass::Pass;
use crate::tag::Tag;
use crate::targets::{Op, Request, RequestFlags, Target};
use crate::token::{Kind, Token};

/// A queue's exchange and engine, and the descriptors of its requests.
pub(super) struct Queue<T> {
    // The memory that the ring works on is the first two's: a seat drops them when it may.
    pub(super) engine: Engine<T>,
    pub(super) exchange: Exchange,
    pub(super) descriptors: Descriptors,
    /// Who is asked, where requests are answered elsewhere.
    pub(super) asking: Option<Asking>,
    /// Holds requests back where the device has limits.
    pub(super) gate: Gate,
    /// Whether a request's step may be linked to its commit. What is linked ends silently, so that
    /// a queue that leaves a ring with others must not: nobody knew when its memory may go. With
    /// an exchange of one command per request the next fetch's answer tells.
    pub(super) links: bool,
    /// Whether its requests fail before they are too old for the kernel.
    pub(super) ages: bool,
}

/// The kernel wants no more of something; in there, the errno of what it refuses for good.
type Closing = Option<Option<i32>>;

impl<T: Target> Queue<T> {
    /// Takes one completion; `lone` when there is no other.
    #[inline(always)]
    pub(super) fn take<const WATCHED: bool, R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        completion: Completion,
        lone: bool,
    ) -> io::Result<Closing> {
        let Completion { user_data, result, .. } = completion;
        if let Some(tag) = Token::first_step(user_data)
            && let Some(outcome) = self.engine.arrive(pass, tag, result)
        {
            self.conclude::<WATCHED, _>(pass, tag, outcome)?;
            return Ok(None);
        }
        let token = Token::unpack(user_data);
        if token.kind.is_engines() {
            if token.kind == Kind::Gate {
                return self.let_go(pass).map(|()| None);
            }
            if token.kind == Kind::Session {
                self.engine.remote_completed(pass, token, completion.result);
                return self.hear_remotes::<WATCHED, _>(pass).map(|()| None);
            }
            let outcome = self.engine.completed(pass, token, completion.result)?;
            self.conclude::<WATCHED, _>(pass, token.tag, outcome)?;
            return Ok(None);
        }
        let alone = lone && self.may_link::<WATCHED>(pass) && self.engine.running() == 0;
        match self.exchange.completed(pass, token, completion)? {
            Arrival::Request(tag) => self.begin::<WATCHED, _>(pass, tag, alone)?,
            Arrival::Requests(tags) => self.begin_all::<WATCHED, _>(pass, tags, alone)?,
            Arrival::Nothing => {}
            Arrival::RequestIn { tag, address, announced } => {
                self.begin_in(pass, tag, (address, announced))?;
            }
            Arrival::Wants(tag) => self.want(pass, tag)?,
            Arrival::Closing => return Ok(Some(None)),
            Arrival::Refused(errno) => return Ok(Some(Some(errno))),
        }
        Ok(None)
    }

    /// Takes the answers of sessions with remotes.
    #[cold]
    fn hear_remotes<const WATCHED: bool, R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
    ) -> io::Result<()> {
        while let Some((tag, outcome)) = self.engine.answered(pass)? {
            self.conclude::<WATCHED, _>(pass, tag, outcome)?;
        }
        Ok(())
    }

    /// Does what was put off until the end of the pass: for the sessions, or for the exchange, each of
    /// which asks once.
    pub(super) fn flush<R: Ring>(&mut self, pass: &mut Pass<'_, R>) -> io::Result<()> {
        if self.engine.push_remotes(pass)? {
            // Without a connection, a session answers at once.
            return self.hear_remotes::<true, _>(pass);
        }
        self.exchange.flush(pass)
    }

    #[inline]
    fn begin_all<const WATCHED: bool, R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tags: Tags,
        alone: bool,
    ) -> io::Result<()> {
        let alone = alone && tags.len() == 1;
        for index in 0..tags.len() {
            let tag = tags.get(index);
            self.begin::<WATCHED, _>(pass, tag, alone)?;
        }
        self.exchange.emptied(pass, tags);
        Ok(())
    }

    #[inline(always)]
    pub(super) fn begin<const WATCHED: bool, R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        alone: bool,
    ) -> io::Result<()> {
        let descriptor = self.descriptors.read(tag);
        if WATCHED && pass.counters.trace.is_on() {
            pass.counters.trace.begin(tag);
        }
        if self.gate.is_watching() && self.hold_back(pass, tag, &descriptor, None)? {
            return Ok(());
        }
        match self.engine.express(pass, tag, &descriptor, alone) {
            Some(outcome) => self.conclude::<WATCHED, _>(pass, tag, outcome),
            None => self.begin_planned::<WATCHED, _>(pass, tag, &descriptor, alone),
        }
    }

    /// A request whose bytes are where the exchange says, if its descriptor does not name a place
    /// in shared memory. A write that is shorter than the kernel has announced fails: the kernel could
    /// not copy all of the data, and would take a success for the whole write (trap 63).
    #[cold]
    fn begin_in<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        (address, announced): (u64, u32),
    ) -> io::Result<()> {
        let mut descriptor = self.descriptors.read(tag);
        if descriptor.nr_sectors < announced {
            pass.counters.errors.add(1);
            return self.conclude::<false, _>(pass, tag, Outcome::Commit(-libc::EIO));
        }
        if !is_shared(&descriptor) {
            descriptor.addr = address;
        }
        if pass.counters.trace.is_on() {
            pass.counters.trace.begin(tag);
        }
        let address = Some(descriptor.addr);
        if self.gate.is_watching() && self.hold_back(pass, tag, &descriptor, address)? {
            return Ok(());
        }
        self.begin_planned::<true, _>(pass, tag, &descriptor, false)
    }

    /// Starts a request that was held back.
    pub(super) fn go_on<R: Ring>(&mut self, pass: &mut Pass<'_, R>, held: Held) -> io::Result<()> {
        let mut descriptor = self.descriptors.read(held.tag);
        descriptor.addr = held.address.unwrap_or(descriptor.addr);
        self.begin_planned::<true, _>(pass, held.tag, &descriptor, false)
    }

    /// A write's data must be asked for.
    #[cold]
    fn want<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag) -> io::Result<()> {
        let descriptor = self.descriptors.read(tag);
        let place = is_shared(&descriptor).then_some(descriptor.addr);
        self.exchange.want(pass, tag, place, descriptor.nr_sectors)
    }

    /// Starts a request on the way that all can go.
    #[inline(never)]
    fn begin_planned<const WATCHED: bool, R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        descriptor: &ublksrv_io_desc,
        alone: bool,
    ) -> io::Result<()> {
        let address = descriptor.addr;
        if self.ages && self.engine.has_given_up(tag) {
            pass.counters.errors.add(1);
            return self.conclude::<WATCHED, _>(pass, tag, Outcome::Commit(-libc::ETIMEDOUT));
        }
        let outcome = match Request::parse(descriptor) {
            Ok(request) if self.asks(request.op) => return self.ask(pass, tag, request, address),
            Ok(request) => self.engine.begin(pass, tag, (request, address), alone)?,
            Err(errno) => {
                pass.counters.errors.add(1);
                Outcome::Commit(-errno.0)
            }
        };
        self.conclude::<WATCHED, _>(pass, tag, outcome)
    }

    #[inline(always)]
    fn asks(&self, op: Op) -> bool {
        self.asking.as_ref().is_some_and(|asking| asking.asks(op))
    }

    /// Whether a request's step may be linked to its commit: not when somebody watches, since what
    /// is linked ends unseen.
    #[inline(always)]
    pub(super) fn may_link<const WATCHED: bool>(&self, pass: &Pass<'_, impl Ring>) -> bool {
        self.links && !(WATCHED && pass.counters.trace.is_on())
    }

    /// What [`take`](Self::take) does with an outcome, for whoever has no `WATCHED`.
    #[inline]
    pub(super) fn settle<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        outcome: Outcome,
    ) -> io::Result<()> {
        self.conclude::<true, _>(pass, tag, outcome)
    }

    #[inline(always)]
    fn conclude<const WATCHED: bool, R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        outcome: Outcome,
    ) -> io::Result<()> {
        match outcome {
            Outcome::Running => Ok(()),
            Outcome::Commit(result) => {
                if WATCHED && pass.counters.trace.is_on() {
                    pass.counters.trace.end(tag, self.engine.request(tag), result);
                }
                self.exchange.commit(pass, tag, result)
            }
            Outcome::CommitLinked(result) => {
                self.exchange.commit_linked(pass, tag, result);
                Ok(())
            }
            Outcome::Held(errno) => self.resume(pass, tag, errno),
        }
    }
}

fn is_shared(descriptor: &ublksrv_io_desc) -> bool {
    RequestFlags(descriptor.op_flags).is_shared()
}
