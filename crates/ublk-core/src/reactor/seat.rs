//! A queue at a reactor.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::{io, mem};

use ublk_sys::{UBLK_F_QUIESCE, UBLK_F_UNPRIVILEGED_DEV};

use super::Waker;
use super::arrivals::Loan;
use super::asking::Asking;
use super::desk::Desk;
use super::gate::Gate;
use super::queue::Queue;
use super::service::{ExchangeMode, Listener, News, Part, QueueConfig, Service, Transfer};
use crate::buffers::{Arena, Buffers, Pool};
use crate::driver::{Completion, Descriptors, Driver, OpenFile, Ring};
use crate::engine::{Aids, Engine, Remotes, max_steps};
use crate::exchange::{Bypass, Exchange};
use crate::pass;
use crate::share::Share;
use crate::stats::Counters;
use crate::targets::Target;
use crate::targets::integrity::IntegrityFormat;
use crate::token::Token;

/// The parts that serve a queue.
pub(super) struct Seat<T> {
    // Fields drop in this order: files last (trap 30).
    pub(super) queue: Queue<T>,
    pub(super) counters: Arc<Counters>,
    pub(super) listener: Listener,
    pub(super) place: pass::Seat,
    pub(super) loan: Loan,
    pub(super) config: QueueConfig,
    /// The kernel accepts no more of some command: the seat may be about to end.
    pub(super) closing: bool,
    /// The errno of the first permanent refusal of a command by the kernel.
    pub(super) refused: Option<i32>,
    open: [OpenFile; 2],
}

impl<T> Seat<T> {
    /// The number of requests begun and not ended.
    pub(super) fn running(&self) -> u32 {
        self.queue.engine.running() + self.queue.exchange.away() + self.queue.gate.held()
    }

    /// The reactor leaves as soon as nothing is running.
    pub(super) fn wind_down(&mut self) {
        self.queue.exchange.wind_down();
        self.queue.gate.open();
    }

    /// How many of the running requests end here: the others are the next server's.
    pub(super) fn ending(&self) -> u32 {
        let left = self.queue.asking.as_ref().map_or(0, |asking| asking.port.left_over());
        self.running().saturating_sub(left)
    }

    /// Gives up memory that running requests may still use: no reactor will see these requests end.
    pub(super) fn abandon(&mut self) {
        if self.running() > 0 {
            self.queue.engine.abandon();
            self.queue.exchange.abandon();
        }
    }

    /// `/dev/ublkcN`.
    pub(super) fn char_device(&self) -> &OpenFile {
        &self.open[0]
    }

    pub(super) fn take_listener(&mut self) -> Listener {
        mem::take(&mut self.listener)
    }
}

impl<T: Target> Seat<T> {
    /// Sets everything up; the queue's files are in the table already.
    pub(super) fn new<D: Driver>(
        driver: &D,
        mut service: Service<T>,
        loan: Loan,
        bell: Option<&Waker>,
        stays: bool,
    ) -> io::Result<Self> {
        let asking = service
            .target
            .elsewhere()
            .zip(bell)
            .map(|(elsewhere, bell)| Asking::new(elsewhere, service.config.queue, bell));
        let (queue, batches) =
            (service.config.queue, service.config.exchange == ExchangeMode::Batch);
        let char_device = service.char_device.clone();
        service.target.memory().into_iter().for_each(|memory| driver.expect_memory(memory.clone()));
        let steps = usize::from(service.config.depth) * max_steps(&*service.target);
        let remotes = Remotes::begin(service.target.remotes(), steps)?;
        remotes.memory().for_each(|memory| driver.expect_memory(memory.clone()));
        let (descriptors, mut exchange, buffers, aids) = parts(driver, &mut service, &loan.slots)?;
        if let (Some(asking), Buffers::Copy(_), true) = (&asking, &buffers, batches) {
            asking.open(Bypass::new(driver.errands()?, queue, char_device));
        }
        if let Some((ear, bell)) = exchange.ear().zip(bell.cloned()) {
            ear.wake_by(move || bell.wake());
        }
        let apart = exchange.ear().is_some();
        let Service { char_device, zeros, config, target, throttle, counters, listener, .. } =
            service;
        let (name, rotates) = ((config.queue, config.depth), config.rotate_slots);
        // With requests in flight, by QUIESCE_DEV.
        let may_be_taken_away = config.features & UBLK_F_QUIESCE != 0;
        let says_landings = aids.landings.is_some();
        let all_known = config.exchange == ExchangeMode::PerIo || !stays && !may_be_taken_away;
        let ages = config.features & UBLK_F_UNPRIVILEGED_DEV != 0;
        Ok(Self {
            queue: Queue {
                ages,
                engine: Engine::new(target, name, buffers, aids, rotates, remotes),
                exchange,
                descriptors,
                asking,
                gate: Gate::new(throttle),
                // No links with rotating slots: a failed linked step continues with the slot named
                // by the commit. No links on zoned devices or with rings apart: a linked commit
                // cannot report an append's landing place, and cannot be another reactor's.
                links: config.links && all_known && !rotates && !says_landings && !apart,
            },
            counters,
            listener,
            place: pass::Seat { number: loan.number, files: loan.files.start },
            loan,
            config,
            closing: false,
            refused: None,
            open: [char_device, zeros],
        })
    }

    /// The kernel has taken the queue's first commands.
    pub(super) fn ready(&mut self) {
        self.listener.hear(News::Ready);
    }

    /// Lends the ring the queue's memory for deliveries, before the queue's first command.
    pub(super) fn enter<R: Ring>(&mut self, ring: &mut R) -> io::Result<()> {
        self.queue.exchange.enter(ring, self.place.number)
    }

    /// Asks for the queue's first requests.
    ///
    /// # Errors
    /// When the ring breaks.
    pub(super) fn arm<R: Ring>(&mut self, desk: &mut Desk<R>) -> io::Result<()> {
        let tags = (self.config.share, self.config.depth);
        let mut pass = desk.pass(&self.counters, self.place);
        self.queue.engine.enter_remotes(&mut pass);
        self.queue.exchange.arm(&mut pass, tags)
    }

    /// Whether nothing of the queue is in flight, nor can be any more. Closes the sessions with remotes
    /// when nothing else is.
    pub(super) fn has_ended(&mut self) -> bool {
        let open = self.queue.exchange.is_open() || self.queue.gate.waits();
        self.running() == 0 && !open && self.queue.engine.close_remotes()
    }

    /// Closes the sessions with remotes, unless requests end here that may need the sessions. Returns
    /// whether nothing of the sessions is in flight.
    pub(super) fn close_remotes(&mut self) -> bool {
        self.ending() == 0 && self.queue.engine.close_remotes()
    }

    /// Takes back the memory lent to the ring; nothing is in flight.
    pub(super) fn leave<R: Ring>(&mut self, ring: &mut R) -> io::Result<()> {
        self.queue.exchange.leave(ring, self.place.number)
    }

    /// Pushes everything put off until the end of the pass.
    #[inline]
    pub(super) fn flush<R: Ring>(&mut self, desk: &mut Desk<R>) -> io::Result<()> {
        self.queue.flush(&mut desk.pass(&self.counters, self.place))
    }

    /// Takes a completion of the queue, `lone` if there is no other, and all directly following
    /// completions of the queue. Returns the first completion of another queue.
    #[inline(always)]
    pub(super) fn take<const WATCHED: bool, R: Ring>(
        &mut self,
        desk: &mut Desk<R>,
        first: Completion,
        lone: bool,
    ) -> io::Result<Option<Completion>> {
        let mut pass = desk.pass(&self.counters, self.place);
        let (mut completion, mut attention) = (first, false);
        loop {
            let news = self.queue.take::<WATCHED, _>(&mut pass, completion, lone)?;
            if let Some(refused) = news {
                self.refused = self.refused.or(refused);
                self.closing = true;
                attention = true;
                self.queue.gate.open();
                // Whether anything is left is for us to say.
                self.queue.asking.iter().for_each(Asking::close);
            }
            match pass.ring.pop() {
                Some(next) if Token::seat(next.user_data) == self.place.number => completion = next,
                next => {
                    desk.attention |= attention;
                    return Ok(next);
                }
            }
        }
    }
}

fn parts<D: Driver, T: Target>(
    driver: &D,
    service: &mut Service<T>,
    slots: &[u16],
) -> io::Result<(Descriptors, Exchange, Buffers, Aids)> {
    /// Rooms for metadata begin at pages, so no two rooms share a page.
    const PAGE: u64 = 4096;
    let QueueConfig { queue, depth, share, .. } = service.config;
    let QueueConfig { max_io_bytes, descriptor_size, features, .. } = service.config;
    let descriptors =
        driver.map_descriptors(&service.char_device, queue, depth, descriptor_size)?;
    let geometry = *service.target.geometry();
    let count = share.count(depth);
    let (now, next) = slots.split_at(slots.len().min(count.into()));
    let arena = || Arena::new(count, max_io_bytes);
    let buffers = match service.config.transfer {
        Transfer::Auto => {
            Buffers::Auto { slots: by_tag(now, share, depth).map(Cell::new).collect() }
        }
        Transfer::Register { split } => Buffers::Register { split },
        Transfer::UserCopy => Buffers::UserCopy,
        Transfer::GetData => Buffers::GetData,
        Transfer::Copy => Buffers::Copy(match service.target.elsewhere() {
            Some(elsewhere) => Pool::lent(elsewhere.bridge().channel(queue), max_io_bytes)?,
            None if features & UBLK_F_UNPRIVILEGED_DEV != 0 => Pool::apart(depth, max_io_bytes)?,
            None => Pool::new(depth, max_io_bytes)?,
        }),
    };
    let fetching = match service.config.exchange {
        ExchangeMode::PerIo => Exchange::per_io(queue, depth, &buffers, features),
        ExchangeMode::Batch => Exchange::batch(queue, depth, &buffers)?,
    };
    let plain = match mem::replace(&mut service.part, Part::Whole) {
        Part::Whole => fetching,
        Part::Front(ends) => fetching.fronting(ends),
        Part::Back(ends) => Exchange::backing(ends),
    };
    let landings = geometry.zoned.map(|_| (0..depth).map(|_| Cell::new(0)).collect());
    let plain = match &landings {
        Some(landings) => plain.zoned(Rc::clone(landings)),
        None => plain,
    };
    let exchange = match &buffers {
        Buffers::GetData => Exchange::get_data(queue, depth, arena()?, features),
        Buffers::Auto { slots } if service.config.rotate_slots => {
            plain.rotating(Rc::clone(slots), by_tag(next, share, depth).collect())
        }
        _ => plain,
    };
    let copies = matches!(buffers, Buffers::UserCopy);
    let rooms = |format: IntegrityFormat| {
        let room = format.metadata_of(max_io_bytes.into()).next_multiple_of(PAGE);
        Pool::new(depth, u32::try_from(room).map_err(io::Error::other)?)
    };
    let lent = service.target.elsewhere().filter(|_| matches!(buffers, Buffers::UserCopy));
    let lent = lent.map(|one| Pool::lent(one.bridge().channel(queue), max_io_bytes));
    let aids = Aids {
        arena: copies.then(arena).transpose()?,
        shared: service.shared.clone(),
        metadata: geometry.integrity.map(rooms).transpose()?,
        lent: lent.transpose()?,
        landings,
    };
    Ok((descriptors, exchange, buffers, aids))
}

/// The slot of each tag; tags served by other reactors have an invalid slot.
fn by_tag(slots: &[u16], share: Share, depth: u16) -> impl Iterator<Item = u16> {
    let mut all = vec![u16::MAX; depth.into()];
    for (tag, &slot) in share.tags(depth).zip(slots) {
        all[tag.index()] = slot;
    }
    all.into_iter()
}
