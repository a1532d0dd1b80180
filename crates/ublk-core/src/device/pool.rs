//! Reactors that many devices share.

use std::fmt;
use std::iter;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::options::validate_spin;
use super::serve::{self, Place};
use crate::driver::{Driver, RingSize};
use crate::error::{Code, Error, Result};
use crate::reactor::{Capacity, Listener, MAX_SLOTS, Mailbox, News, Service};
use crate::targets::Target;

/// Files of a reactor: three or more per queue, 67 per queue of an overlay.
const FILES: u32 = 1 << 15;

/// What [`Pool::new`] is asked for.
#[derive(Clone, Copy, Debug)]
pub struct PoolOptions {
    /// The number of reactors at the start, 1 to 1024; each reactor is a thread.
    pub reactors: u16,
    /// The number of reactors up to which the pool adds a reactor for a device that has no room in the
    /// tables of the others, from `reactors` to 1024.
    pub max_reactors: u16,
    /// How long each looks for work before it sleeps, at most a second; 0: not at all. See
    /// [`DeviceOptions::spin`](super::DeviceOptions::spin).
    pub spin: Duration,
}

impl PoolOptions {
    /// So many reactors, now and later, which do not spin.
    pub fn of(reactors: u16) -> Self {
        Self { reactors, max_reactors: reactors, spin: Duration::ZERO }
    }
}

/// Reactors that serve the queues of many devices: an idle device costs the memory of its tags and no
/// thread. The reactors' threads end when the pool is [closed](Self::close), or with the last clone of
/// the pool and the last of the pool's devices.
///
/// A reactor takes as many queues as its tables hold: 16,384 tags with zero copy, and as many
/// files as the process may have open, up to 32,768. Queues that share a reactor share its CPU, and
/// its fate if the kernel breaks its ring.
#[derive(Debug)]
pub struct Pool<T> {
    shared: Arc<Shared<T>>,
}

#[derive(Debug)]
struct Shared<T> {
    members: Mutex<Members<T>>,
    max_reactors: usize,
    make: Make<T>,
}

#[derive(Debug)]
struct Members<T> {
    /// All members that there have been: a lost reactor keeps its place.
    all: Vec<Arc<Member<T>>>,
    is_closed: bool,
}

/// Starts the reactor with a number.
struct Make<T>(Box<dyn Fn(usize) -> Result<Member<T>> + Send + Sync>);

impl<T> fmt::Debug for Make<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Make")
    }
}

#[derive(Debug)]
struct Member<T> {
    mailbox: Mailbox<T>,
    load: Arc<Mutex<Load>>,
    /// What its tables hold.
    room: Berth,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What a queue, or a share of one, takes of a reactor's tables.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Berth {
    /// Places of its file table.
    pub(super) files: u32,
    /// Slots of its buffer table.
    pub(super) slots: u32,
}

impl Berth {
    fn of<T: Target>(service: &Service<T>) -> Self {
        Self { files: service.places(), slots: service.standing_slots().into() }
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self { files: self.files + other.files, slots: self.slots + other.slots }
    }
}

/// What a reactor has taken in.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    queues: usize,
    taken: Berth,
}

impl Load {
    fn fits(&self, berth: Berth, room: Berth) -> bool {
        self.taken.files + berth.files <= room.files && self.taken.slots + berth.slots <= room.slots
    }

    fn add(&mut self, berth: Berth) {
        self.queues += 1;
        self.taken.files += berth.files;
        self.taken.slots += berth.slots;
    }

    fn remove(&mut self, berth: Berth) {
        self.queues -= 1;
        self.taken.files -= berth.files;
        self.taken.slots -= berth.slots;
    }
}

impl<T: Target> Pool<T> {
    /// Starts the reactors.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`]; what io_uring_setup(2) says.
    pub fn new<D: Driver>(driver: &D, options: PoolOptions) -> Result<Self> {
        if !(1..=1024).contains(&options.reactors) {
            let message = format!("reactors is {}; it must be from 1 to 1024", options.reactors);
            return Err(Error::new(Code::InvalidArgument, message));
        }
        if !(options.reactors..=1024).contains(&options.max_reactors) {
            let message = format!(
                "the most reactors are {}; it must be from {} (the reactors at the start) to 1024",
                options.max_reactors, options.reactors
            );
            return Err(Error::new(Code::InvalidArgument, message));
        }
        validate_spin(options.spin)?;
        let (driver, spin) = (driver.clone(), options.spin);
        let make = Make(Box::new(move |number| Member::new(&driver, number, spin)));
        let all = (0..options.reactors.into()).map(|number| (make.0)(number).map(Arc::new));
        let members = Members { all: all.collect::<Result<_>>()?, is_closed: false };
        let max_reactors = options.max_reactors.into();
        Ok(Self { shared: Arc::new(Shared { members: Mutex::new(members), max_reactors, make }) })
    }

    /// The number of reactors now, without lost ones.
    pub fn reactors(&self) -> usize {
        lock(&self.shared.members).living().count()
    }

    /// Ends the reactors, whatever clones there are, and waits until their threads are gone. A pool
    /// that has been closed has ended: doing so again does nothing, and devices cannot be created.
    ///
    /// # Errors
    /// [`Code::Busy`] while it serves a device; it goes on then.
    pub fn close(&self) -> Result<()> {
        let mut members = lock(&self.shared.members);
        let queues: usize = members.all.iter().map(|one| lock(&one.load).queues).sum();
        if queues > 0 {
            let message = format!("the pool still serves {queues} queues");
            return Err(Error::new(Code::Busy, message).hint("close its devices first"));
        }
        members.is_closed = true;
        members.all.iter().for_each(|one| one.mailbox.waker().quit());
        let threads: Vec<_> = members.all.iter().map(|one| lock(&one.thread).take()).collect();
        drop(members);
        for thread in threads.into_iter().flatten() {
            // A reactor hands its panics to its devices.
            let _ended = thread.join();
        }
        Ok(())
    }

    /// Makes sure that the living reactors, and those that the pool may add, can take in `count` queues,
    /// shares, or groups of them that go together, that each take `berth`; the device has queues of `depth`
    /// tags.
    ///
    /// # Errors
    /// [`Code::Resources`]; [`Code::Closed`] where there is no reactor.
    pub(super) fn check(&self, count: usize, berth: Berth, depth: u16) -> Result<()> {
        let members = lock(&self.shared.members);
        let room = members.all.first().map_or(Berth::default(), |one| one.room);
        let to_add = self.shared.may_add(&members);
        let added = iter::repeat_n((Load::default(), room), to_add.min(count));
        let living = members.living().map(|one| (*lock(&one.load), one.room));
        let mut loads: Vec<_> = living.chain(added).collect();
        for _ in 0..count {
            let fitting = loads.iter_mut().filter(|(load, room)| load.fits(berth, *room));
            let Some((load, _)) = fitting.min_by_key(|(load, _)| load.queues) else {
                return Err(self.shared.full(&members, count, berth, depth));
            };
            load.add(berth);
        }
        Ok(())
    }

    /// Gives queues, or shares of them, to the living reactor that has the fewest of those that have
    /// room for all of these, or to a new one; answers the reactor's mailbox.
    ///
    /// # Errors
    /// As [`check`](Self::check); those of [`new`](Self::new).
    pub(super) fn assign(&self, services: Vec<Service<T>>) -> Result<Mailbox<T>> {
        let berths = services.iter().map(Berth::of);
        let together = berths.fold(Berth::default(), Berth::and);
        let mut members = lock(&self.shared.members);
        let fitting = members.living().filter(|one| lock(&one.load).fits(together, one.room));
        let fewest = fitting.min_by_key(|one| lock(&one.load).queues).map(Arc::clone);
        let member = match fewest {
            Some(member) => member,
            None if self.shared.may_add(&members) > 0 => {
                let member = Arc::new((self.shared.make.0)(members.all.len())?);
                members.all.push(Arc::clone(&member));
                member
            }
            None => {
                let depth = services.first().map_or(0, |service| service.config.depth);
                return Err(self.shared.full(&members, 1, together, depth));
            }
        };
        services.into_iter().for_each(|service| self.give(&member, service));
        Ok(member.mailbox.clone())
    }

    fn give(&self, member: &Member<T>, mut service: Service<T>) {
        let berth = Berth::of(&service);
        lock(&member.load).add(berth);
        let (load, pool) = (Arc::clone(&member.load), Arc::clone(&self.shared));
        let mut maker = std::mem::take(&mut service.listener);
        service.listener = Listener::new(move |news| {
            // The pool lives as long as its last queue.
            let _kept = &pool;
            if matches!(news, News::Ended(_)) {
                lock(&load).remove(berth);
            }
            maker.hear(news);
        });
        member.mailbox.send(service);
    }
}

impl<T> Members<T> {
    fn living(&self) -> impl Iterator<Item = &Arc<Member<T>>> {
        self.all.iter().filter(|one| one.mailbox.is_open())
    }
}

impl<T> Shared<T> {
    fn may_add(&self, members: &Members<T>) -> usize {
        if members.is_closed { 0 } else { self.max_reactors - members.all.len() }
    }

    fn full(&self, members: &Members<T>, count: usize, berth: Berth, depth: u16) -> Error {
        let (all, living) = (members.all.len(), members.living().count());
        if living == 0 {
            return Error::new(
                Code::Closed,
                "the pool has no reactor any more: it was closed, or lost them",
            );
        }
        let left: Vec<_> = members.living().map(|one| (*lock(&one.load), one.room)).collect();
        let files = left.iter().map(|(load, room)| room.files - load.taken.files).max();
        let slots = left.iter().map(|(load, room)| room.slots - load.taken.slots).max();
        let message = format!(
            "the pool is full: {count} x {} places for files and {} for buffers are wanted (depth \
             {depth}); of its {all} reactors {living} live, and have at most {} and {} left",
            berth.files,
            berth.slots,
            files.unwrap_or_default(),
            slots.unwrap_or_default(),
        );
        Error::new(Code::Resources, message).hint(
            "give the pool more `reactors` or `maxReactors`, or the device a smaller `depth`; a \
             reactor has 32,768 places for files, or as many as `ulimit -n` allows, and 16,384 for \
             buffers",
        )
    }
}

fn lock<S>(state: &Mutex<S>) -> MutexGuard<'_, S> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Clone for Pool<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T: Target> Member<T> {
    fn new<D: Driver>(driver: &D, number: usize, spin: Duration) -> Result<Self> {
        let cannot =
            |call| move |error| Error::os(Code::Kernel, "cannot start a reactor", call, &error);
        let mailbox = Mailbox::new().map_err(cannot("eventfd"))?;
        let (told, outcome) = channel();
        let place = Place { name: format!("ublk-pool{number}"), affinity: None };
        let (theirs, capacity) = (mailbox.clone(), capacity(spin));
        let thread = serve::spawn(driver.clone(), place, theirs, capacity, move |result| {
            // The maker waits for it.
            let _heard = told.send(result);
        })
        .map_err(cannot("clone"))?;
        let gone = |_| std::io::Error::other("its thread is gone");
        let started = outcome.recv().map_err(gone).and_then(|result| result);
        started.map_err(cannot("io_uring_setup"))?;
        let room = Berth { files: capacity.files, slots: capacity.slots.into() };
        Ok(Self { mailbox, load: Arc::default(), room, thread: Mutex::new(Some(thread)) })
    }
}

impl<T> Drop for Member<T> {
    fn drop(&mut self) {
        self.mailbox.waker().quit();
    }
}

fn capacity(spin: Duration) -> Capacity {
    Capacity {
        // What is in flight beyond that, the kernel keeps.
        ring: RingSize { submissions: 1024, completions: 1 << 14, tells_of_work: !spin.is_zero() },
        files: FILES.min(may_open()),
        slots: MAX_SLOTS,
        spin,
    }
}

/// The kernel lets no file table be larger than a process's descriptors.
fn may_open() -> u32 {
    // SAFETY: fills a struct of ours.
    let limit = unsafe {
        let mut limit = std::mem::zeroed::<libc::rlimit>();
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur
    };
    u32::try_from(limit).unwrap_or(FILES).max(1)
}
