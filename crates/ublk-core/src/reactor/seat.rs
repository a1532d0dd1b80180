//! One queue at a reactor.

use std::ops::Range;
use std::sync::Arc;
use std::{io, mem};

use super::asking::Asking;
use super::service::{ExchangeMode, Listener, News, QueueConfig, Service, Transfer};
use super::{Waker, full};
use crate::buffers::{Buffers, Pool, Slots};
use crate::driver::{Completion, Descriptors, Driver, OpenFile, Ring};
use crate::engine::{Engine, Outcome};
use crate::exchange::{Arrival, Exchange, Tags};
use crate::pass::{self, Pass};
use crate::stats::Counters;
use crate::target::{Op, Request, Target};
use crate::token::{Kind, Token};

/// What a queue is served with.
pub(super) struct Seat<T> {
    // Fields drop in this order: files last (trap 30).
    pub(super) engine: Engine<T>,
    pub(super) exchange: Exchange,
    descriptors: Descriptors,
    pub(super) counters: Arc<Counters>,
    pub(super) listener: Listener,
    pub(super) place: pass::Seat,
    pub(super) files: Range<u32>,
    /// Whether a request's step may be linked to its commit. What is linked ends silently, so that
    /// a queue that leaves a ring with others must not: nobody knew when its memory may go. With
    /// an exchange of one command per request the next fetch's answer tells.
    pub(super) links: bool,
    /// The kernel wants no more of something: the seat may be about to end.
    pub(super) closing: bool,
    /// The first command that the kernel refused for good, with its errno.
    pub(super) refused: Option<i32>,
    /// Who is asked, where requests are answered elsewhere.
    pub(super) asking: Option<Asking>,
    _open: [OpenFile; 2],
}

/// What a reactor lends to its seats.
pub(super) struct Desk<'a, R> {
    pub(super) ring: &'a mut R,
    pub(super) slots: &'a mut Slots,
    pub(super) put_off: &'a mut Vec<u16>,
    pub(super) attention: &'a mut bool,
}

impl<T> Seat<T> {
    /// Requests that have begun and not ended.
    pub(super) fn running(&self) -> u32 {
        self.engine.running()
    }

    /// Nobody will see the running requests end: memory that they may still work on is given up.
    pub(super) fn abandon(&mut self) {
        if self.running() > 0 {
            self.engine.abandon();
        }
    }

    pub(super) fn take_listener(&mut self) -> Listener {
        mem::take(&mut self.listener)
    }
}

impl<T: Target> Seat<T> {
    /// Sets everything up; the queue's files are in the table already.
    pub(super) fn new<D: Driver>(
        driver: &D,
        service: Service<T>,
        (number, files): (u16, Range<u32>),
        (slots, bell): (&mut Slots, Option<&Waker>),
        stays: bool,
    ) -> io::Result<Self> {
        let asking = service
            .target
            .elsewhere()
            .zip(bell)
            .map(|(elsewhere, bell)| Asking::new(elsewhere, service.config.queue, bell));
        let (descriptors, exchange, buffers) = parts(driver, &service, slots)?;
        let Service { char_device, zeros, config, target, counters, listener } = service;
        Ok(Self {
            engine: Engine::new(target, config.queue, config.depth, buffers),
            exchange,
            descriptors,
            counters,
            listener,
            place: pass::Seat { number, files: files.start },
            files,
            links: !stays || config.exchange == ExchangeMode::PerIo,
            closing: false,
            refused: None,
            asking,
            _open: [char_device, zeros],
        })
    }

    /// The kernel has taken the queue's first commands.
    pub(super) fn ready(&mut self) {
        self.listener.hear(News::Ready);
    }

    /// Asks for the queue's first requests.
    pub(super) fn arm<R: Ring>(&mut self, desk: &mut Desk<'_, R>) -> io::Result<()> {
        self.exchange.arm(&mut pass!(self, desk))
    }

    /// Whether nothing of the queue is in flight, nor can be any more.
    pub(super) fn has_ended(&self) -> bool {
        self.running() == 0 && !self.exchange.is_open()
    }

    /// Gives back the slots of a queue that was not armed.
    pub(super) fn give_back(&mut self, slots: &mut Slots) {
        self.engine.leave(slots);
    }

    /// Gives back what the reactor lent; there is nothing in flight.
    pub(super) fn leave<R: Ring>(&mut self, desk: &mut Desk<'_, R>) -> io::Result<()> {
        self.engine.leave(desk.slots);
        self.exchange.leave(&mut pass!(self, desk))
    }

    /// Pushes what was put off until the end of the pass. Answers how many completions the next
    /// call of the kernel brings at once, and that nobody waits for.
    #[inline]
    pub(super) fn flush<R: Ring>(&mut self, desk: &mut Desk<'_, R>) -> io::Result<u32> {
        self.exchange.flush(&mut pass!(self, desk))
    }

    /// Takes one of the queue's completions; `lone` when there is no other.
    #[inline(always)]
    pub(super) fn take<const WATCHED: bool, R: Ring>(
        &mut self,
        desk: &mut Desk<'_, R>,
        completion: Completion,
        lone: bool,
    ) -> io::Result<()> {
        let token = Token::unpack(completion.user_data);
        match token.kind {
            Kind::Step | Kind::Register | Kind::Unregister => {
                let pass = &mut pass!(self, desk);
                let outcome = self.engine.completed(pass, token, completion.result)?;
                self.conclude::<WATCHED, _>(desk, token.tag, outcome)
            }
            _ => {
                let alone = lone && self.may_link::<WATCHED>() && self.engine.running() == 0;
                match self.exchange.completed(&mut pass!(self, desk), token, completion)? {
                    Arrival::Request(tag) => return self.begin::<WATCHED, _>(desk, tag, alone),
                    Arrival::Requests(tags) => {
                        return self.begin_all::<WATCHED, _>(desk, &tags, alone);
                    }
                    Arrival::Nothing => {}
                    Arrival::Closing => self.close(desk),
                    Arrival::Refused(errno) => {
                        self.refused.get_or_insert(errno);
                        self.close(desk);
                    }
                }
                Ok(())
            }
        }
    }

    #[cold]
    fn close<R: Ring>(&mut self, desk: &mut Desk<'_, R>) {
        self.closing = true;
        *desk.attention = true;
    }

    #[inline]
    fn begin_all<const WATCHED: bool, R: Ring>(
        &mut self,
        desk: &mut Desk<'_, R>,
        tags: &Tags,
        alone: bool,
    ) -> io::Result<()> {
        let alone = alone && tags.len() == 1;
        for index in 0..tags.len() {
            let tag = self.exchange.tag(tags, index);
            self.begin::<WATCHED, _>(desk, tag, alone)?;
        }
        self.exchange.emptied(&mut pass!(self, desk), tags)
    }

    #[inline(always)]
    fn begin<const WATCHED: bool, R: Ring>(
        &mut self,
        desk: &mut Desk<'_, R>,
        tag: u16,
        alone: bool,
    ) -> io::Result<()> {
        if WATCHED && self.counters.trace.is_on() {
            self.counters.trace.begin(tag);
        }
        let outcome = match Request::parse(&self.descriptors.read(tag)) {
            Ok(request) if self.asks(request.op) => return self.ask(desk, tag, request),
            Ok(request) => self.engine.begin(&mut pass!(self, desk), tag, request, alone)?,
            Err(errno) => {
                self.counters.errors.add(1);
                Outcome::Commit(-errno.0)
            }
        };
        self.conclude::<WATCHED, _>(desk, tag, outcome)
    }

    #[inline(always)]
    fn asks(&self, op: Op) -> bool {
        self.asking.as_ref().is_some_and(|asking| asking.asks(op))
    }

    /// Whether a request's step may be linked to its commit: not when somebody watches, since what
    /// is linked ends unseen.
    #[inline(always)]
    pub(super) fn may_link<const WATCHED: bool>(&self) -> bool {
        self.links && !(WATCHED && self.counters.trace.is_on())
    }

    /// What [`take`](Self::take) does with an outcome, for whoever has no `WATCHED`.
    #[inline]
    pub(super) fn settle<R: Ring>(
        &mut self,
        desk: &mut Desk<'_, R>,
        tag: u16,
        outcome: Outcome,
    ) -> io::Result<()> {
        self.conclude::<true, _>(desk, tag, outcome)
    }

    #[inline(always)]
    fn conclude<const WATCHED: bool, R: Ring>(
        &mut self,
        desk: &mut Desk<'_, R>,
        tag: u16,
        outcome: Outcome,
    ) -> io::Result<()> {
        match outcome {
            Outcome::Running => Ok(()),
            Outcome::Commit(result) => {
                if WATCHED && self.counters.trace.is_on() {
                    self.counters.trace.end(tag, self.engine.request(tag), result);
                }
                self.exchange.commit(&mut pass!(self, desk), tag, result)
            }
            Outcome::CommitLinked(result) => {
                self.exchange.commit_linked(&mut pass!(self, desk), tag, result);
                Ok(())
            }
            Outcome::Held(errno) => self.resume(desk, tag, errno),
        }
    }
}

fn parts<D: Driver, T: Target>(
    driver: &D,
    service: &Service<T>,
    slots: &mut Slots,
) -> io::Result<(Descriptors, Exchange, Buffers)> {
    let QueueConfig { queue, depth, transfer, exchange, max_io_bytes, descriptor_size } =
        service.config;
    let descriptors =
        driver.map_descriptors(&service.char_device, queue, depth, descriptor_size)?;
    let buffers = match transfer {
        Transfer::Copy => Buffers::Copy(match service.target.elsewhere() {
            Some(elsewhere) => Pool::lent(elsewhere.bridge().channel(queue), max_io_bytes)?,
            None => Pool::new(depth, max_io_bytes)?,
        }),
        Transfer::Register { split } => Buffers::Register { split },
        Transfer::Auto => {
            Buffers::Auto { slots: slots.take_many(depth).ok_or_else(|| full("buffer table"))? }
        }
    };
    let exchange = match exchange {
        ExchangeMode::PerIo => Exchange::per_io(queue, depth, &buffers),
        ExchangeMode::Batch => Exchange::batch(queue, depth, &buffers)?,
    };
    Ok((descriptors, exchange, buffers))
}
