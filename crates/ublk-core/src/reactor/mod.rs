//! One thread, one io_uring, one buffer table: the loop that serves a queue.
//!
//! A pass takes every completion that is there: the exchange's become requests, which the engine
//! starts; the engine's may end requests, which the exchange commits. All that a pass pushes goes
//! to the kernel in one call, which then waits for the next completion.

use std::io;
use std::sync::Arc;

use io_uring::opcode;
use io_uring::types::Fd;

use crate::buffers::{Buffers, Pool, Slots};
use crate::driver::{Completion, Descriptors, Driver, OpenFile, Ring, RingSize};
use crate::engine::{Engine, Outcome};
use crate::exchange::{Arrival, Exchange, Tags};
use crate::pass::Pass;
use crate::stats::Counters;
use crate::target::{Request, Target};
use crate::token::{Kind, Token};

mod wake;

pub use wake::Waker;

/// How a queue's requests reach their data; see [`BufferMode`](crate::device::BufferMode).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// Registered by the kernel; by us where it could not.
    Auto,
    /// Registered by us.
    Register {
        /// Wait for each of register, I/O, unregister before the next is submitted.
        split: bool,
    },
    /// Copied by the kernel.
    Copy,
}

/// How a queue's requests come and how their results go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeMode {
    /// One command per request.
    PerIo,
    /// One command for many (`UBLK_F_BATCH_IO`, Linux 7.0).
    Batch,
}

/// The queue that a reactor serves, as the kernel described it after `ADD_DEV`.
#[derive(Clone, Copy, Debug)]
pub struct QueueConfig {
    /// Its number.
    pub queue: u16,
    /// Its tags.
    pub depth: u16,
    /// How its requests reach their data.
    pub transfer: Transfer,
    /// How its requests come and go.
    pub exchange: ExchangeMode,
    /// The largest request, in bytes.
    pub max_io_bytes: u32,
    /// How far apart its descriptors are, in bytes.
    pub descriptor_size: usize,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Call [`Reactor::turn`] again.
    Serving,
    /// The device has stopped, or the waker said so, and no request is left.
    Ended,
}

/// What a reactor lends to its exchange and its engine; a macro, since a method would borrow all
/// of the reactor.
macro_rules! pass {
    ($this:expr) => {
        Pass { ring: &mut $this.ring, slots: &mut $this.slots, counters: &$this.counters }
    };
}

/// Serves one queue, on the thread that made it.
pub struct Reactor<R: Ring, T> {
    // Fields drop in this order: the ring before the memory that it works on (see `drop`), and its
    // files last (trap 30).
    ring: R,
    engine: Engine<T>,
    descriptors: Descriptors,
    slots: Slots,
    exchange: Exchange,
    counters: Arc<Counters>,
    waker: Waker,
    /// Completions that the next call of the kernel brings at once, and that nobody waits for.
    at_once: u32,
    /// The first command that the kernel refused, with its errno.
    refused: Option<i32>,
    _files: [OpenFile; 2],
}

impl<R: Ring, T: std::fmt::Debug> std::fmt::Debug for Reactor<R, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reactor").field("exchange", &self.exchange).finish_non_exhaustive()
    }
}

impl<R: Ring, T: Target> Reactor<R, T> {
    /// Sets everything up and asks for the queue's first requests. `char_device` and `zeros` come
    /// from `driver`.
    ///
    /// # Errors
    /// What setting up the ring, the tables or the mapping says; the errno of a refused fetch.
    pub fn new<D: Driver<Ring = R>>(
        driver: &D,
        char_device: OpenFile,
        zeros: OpenFile,
        config: QueueConfig,
        target: Arc<T>,
        counters: Arc<Counters>,
    ) -> io::Result<Self> {
        let QueueConfig { queue, depth, .. } = config;
        let descriptors =
            driver.map_descriptors(&char_device, queue, depth, config.descriptor_size)?;
        let mut ring = driver.ring(ring_size(depth, target.max_steps()))?;
        let files: Vec<_> = [char_device.fd(), zeros.fd()]
            .into_iter()
            .chain(target.files().iter().copied())
            .collect();
        ring.register_files(&files)?;
        let mut slots = Slots::new(0);
        let buffers = match config.transfer {
            Transfer::Copy => Buffers::Copy(Pool::new(depth, config.max_io_bytes)?),
            Transfer::Register { split } => {
                slots = table(&mut ring, depth)?;
                Buffers::Register { split }
            }
            Transfer::Auto => {
                // As many again for requests whose automatic registration fails.
                slots = table(&mut ring, depth * 2)?;
                Buffers::Auto { slots: (0..depth).filter_map(|_| slots.take()).collect() }
            }
        };
        let exchange = match config.exchange {
            ExchangeMode::PerIo => Exchange::per_io(queue, depth, &buffers),
            ExchangeMode::Batch => Exchange::batch(queue, depth, &buffers)?,
        };
        let engine = Engine::new(target, queue, depth, buffers);
        let mut this = Self {
            ring,
            engine,
            descriptors,
            slots,
            exchange,
            counters,
            waker: Waker::new()?,
            at_once: 0,
            refused: None,
            _files: [char_device, zeros],
        };
        this.arm()?;
        Ok(this)
    }

    /// What ends this reactor from another thread.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Waits for completions and deals with all that are there.
    ///
    /// # Errors
    /// When the ring breaks, or the kernel refuses a command for good: the queue is lost, and the
    /// device must be stopped.
    #[inline]
    pub fn turn(&mut self) -> io::Result<Turn> {
        self.counters.enters.add(1);
        self.ring.submit_and_wait(1 + self.at_once)?;
        self.take_completions()?;
        let quit = self.waker.should_quit() || self.refused.is_some();
        if self.engine.running() == 0 && (!self.exchange.is_open() || quit) {
            // What has ended is answered even when the queue is given up.
            self.ring.submit()?;
            return self
                .refused
                .map_or(Ok(Turn::Ended), |errno| Err(io::Error::from_raw_os_error(errno)));
        }
        Ok(Turn::Serving)
    }

    fn arm(&mut self) -> io::Result<()> {
        self.watch_waker()?;
        let mut pass = pass!(self);
        self.exchange.arm(&mut pass)?;
        self.ring.submit()?;
        // A refused fetch has answered by now; START_DEV would wait for it for ever (trap 23).
        self.take_completions()?;
        self.refused.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
    }

    #[inline]
    fn take_completions(&mut self) -> io::Result<()> {
        let alone = self.ring.ready() == 1 && self.engine.running() == 0;
        while let Some(completion) = self.ring.pop() {
            self.take(completion, alone)?;
        }
        self.at_once = self.exchange.flush(&mut pass!(self))?;
        Ok(())
    }

    #[inline(always)]
    fn take(&mut self, completion: Completion, alone: bool) -> io::Result<()> {
        let token = Token::unpack(completion.user_data);
        match token.kind {
            Kind::Step | Kind::Register | Kind::Unregister => {
                let outcome = self.engine.completed(&mut pass!(self), token, completion.result)?;
                self.settle(token.tag, outcome)
            }
            Kind::Fetch | Kind::Prepare | Kind::Commit | Kind::CommitOne => {
                match self.exchange.completed(&mut pass!(self), token, completion)? {
                    Arrival::Request(tag) => self.begin(tag, alone),
                    Arrival::Requests(tags) => self.begin_all(&tags, alone),
                    Arrival::Nothing => Ok(()),
                    Arrival::Refused(errno) => {
                        self.refused.get_or_insert(errno);
                        Ok(())
                    }
                }
            }
            Kind::Wake => {
                self.waker.drain();
                self.watch_waker()
            }
        }
    }

    #[inline]
    fn begin_all(&mut self, tags: &Tags, alone: bool) -> io::Result<()> {
        let alone = alone && tags.len() == 1;
        for index in 0..tags.len() {
            let tag = self.exchange.tag(tags, index);
            self.begin(tag, alone)?;
        }
        self.exchange.emptied(&mut pass!(self), tags)
    }

    #[inline(always)]
    fn begin(&mut self, tag: u16, alone: bool) -> io::Result<()> {
        let outcome = match Request::parse(&self.descriptors.read(tag)) {
            Ok(request) => self.engine.begin(&mut pass!(self), tag, request, alone)?,
            Err(errno) => {
                self.counters.errors.add(1);
                Outcome::Commit(-errno.0)
            }
        };
        self.settle(tag, outcome)
    }

    #[inline(always)]
    fn settle(&mut self, tag: u16, outcome: Outcome) -> io::Result<()> {
        match outcome {
            Outcome::Running => Ok(()),
            Outcome::Commit(result) => self.exchange.commit(&mut pass!(self), tag, result),
            Outcome::CommitLinked(result) => {
                self.exchange.commit_linked(&mut pass!(self), tag, result);
                Ok(())
            }
        }
    }

    fn watch_waker(&mut self) -> io::Result<()> {
        let mut pass = pass!(self);
        pass.reserve(1)?;
        let events = u32::from(libc::POLLIN.cast_unsigned());
        let entry = opcode::PollAdd::new(Fd(self.waker.fd()), events)
            .build()
            .user_data(Token::new(Kind::Wake, 0).pack());
        // SAFETY: the entry points to nothing.
        unsafe { pass.ring.push(&entry) };
        Ok(())
    }
}

impl<R: Ring, T> Drop for Reactor<R, T> {
    fn drop(&mut self) {
        // A ring that closes ends its operations later, behind our back.
        if self.engine.running() > 0 {
            self.engine.abandon();
        }
        // A file table would keep the character device open beyond its close (trap 30).
        let _gone_with_the_ring = self.ring.unregister_files();
    }
}

fn table<R: Ring>(ring: &mut R, count: u16) -> io::Result<Slots> {
    ring.register_buffers_sparse(count.into())?;
    Ok(Slots::new(count))
}

/// Submissions: what a pass usually pushes, without a call in between. Completions: everything
/// that can be in flight, so that none is ever lost.
fn ring_size(depth: u16, max_steps: usize) -> RingSize {
    #[expect(clippy::cast_possible_truncation, reason = "at most 255, checked by the engine")]
    let steps = max_steps as u32;
    let depth = u32::from(depth);
    RingSize {
        submissions: (depth * 2).max(steps + 3).next_power_of_two().clamp(64, 4096),
        completions: (depth * (steps + 3) + 1).next_power_of_two().max(128),
    }
}
