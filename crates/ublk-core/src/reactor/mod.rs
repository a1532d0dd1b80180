//! A thread with an io_uring and a buffer table: the loop that serves queues.
//!
//! Each queue has a seat. A pass takes every available completion. Completions of the exchange
//! become requests, started by the engine; completions of the engine may end requests, committed by
//! the exchange. All entries pushed in a pass go to the kernel in one call, which then waits for
//! the next completion.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use io_uring::opcode;
use io_uring::types::Fd;

use crate::buffers::Slots;
use crate::driver::{Completion, Driver, Ring};
use crate::stats;
use crate::targets::Target;
use crate::token::{Kind, Token};

mod arrivals;
mod asking;
mod clock;
mod desk;
mod gate;
mod listening;
mod look;
mod lost;
mod mailbox;
mod places;
mod pulse;
mod queue;
mod seat;
mod service;
mod spin;
#[cfg(test)]
mod tests;
mod throttle;

pub use crate::buffers::SharedMemory;
pub use crate::exchange::{Back, Front, apart};
pub use crate::share::Share;
pub(crate) use look::Looked;
pub use look::{Awaits, Look};
pub(crate) use lost::can_be_left;
pub(crate) use mailbox::WeakMailbox;
pub use mailbox::{Mailbox, NewFile, Waker};
pub use pulse::silent_reactors;
pub use service::{Capacity, ExchangeMode, Listener, News, Part, QueueConfig, Service, Transfer};
pub(crate) use service::{MAX_SLOTS, places};
pub use throttle::{Rates, Throttle, ThrottleLimits};

pub(crate) use clock::UNPRIVILEGED_LIMIT;

use clock::{CLOCK, Clock};
use desk::Desk;
use listening::BELL;
use lost::LostQueue;
use places::Places;
use pulse::Pulse;
use seat::Seat;
use spin::Spin;

/// The seat number in completions for the reactor itself.
const NOBODY: u16 = u16::MAX;
/// The tag of completions that announce mail.
const MAIL: u16 = 0;

/// Whether to call [`Reactor::turn`] again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Call [`Reactor::turn`] again.
    Serving,
    /// No queue is left; or the waker has requested the end, and no request is left that ends here.
    Ended,
}

/// Serves queues, on the thread where the reactor was made.
pub struct Reactor<D: Driver, T> {
    // Fields drop in this order: the ring before the memory used by the ring (see `drop`).
    desk: Desk<D::Ring>,
    seats: Vec<Option<Seat<T>>>,
    places: Places,
    mailbox: Mailbox<T>,
    /// Set by callers, and cleared each time the reactor takes its mail.
    pulse: Arc<Pulse>,
    /// Seats that receive messages from other threads.
    listening: Vec<u16>,
    /// Wakes the reactor for these messages; present once a seat listens.
    bell: Option<Waker>,
    /// The seat of the last completion; the reactor's system calls count for this seat.
    current: u16,
    /// Stays after the end of the last queue.
    stays: bool,
    spin: Option<Spin>,
    clock: Clock,
    driver: D,
}

impl<D: Driver, T> std::fmt::Debug for Reactor<D, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reactor").field("seats", &self.seats.len()).finish_non_exhaustive()
    }
}

impl<D: Driver, T: Target> Reactor<D, T> {
    /// A reactor that serves the queues arriving in the mailbox, until the waker requests the end.
    ///
    /// # Errors
    /// Errors of setting up the ring or the tables.
    pub fn new(driver: &D, capacity: Capacity, mailbox: Mailbox<T>) -> io::Result<Self> {
        let mut ring = driver.ring(capacity.ring)?;
        ring.register_files_sparse(capacity.files)?;
        if capacity.slots > 0 {
            ring.register_buffers_sparse(capacity.slots.into())?;
        }
        let mut this = Self {
            desk: Desk::new(ring, Slots::new(capacity.slots)),
            seats: Vec::new(),
            places: Places::new(capacity.files),
            pulse: Pulse::new(mailbox.waker()),
            mailbox,
            listening: Vec::new(),
            bell: None,
            current: 0,
            stays: true,
            spin: Spin::new(capacity.spin),
            clock: Clock::new(),
            driver: driver.clone(),
        };
        this.watch_mailbox()?;
        Ok(this)
    }

    /// A reactor that serves these queues and ends with the last queue.
    ///
    /// # Errors
    /// As [`new`](Self::new), and when none of the queues can be served; the services' listeners
    /// receive the error too.
    pub fn of(driver: &D, mailbox: Mailbox<T>, services: Vec<Service<T>>) -> io::Result<Self> {
        let mut this = match Self::new(driver, Capacity::of(&services), mailbox) {
            Ok(this) => this,
            Err(error) => {
                let listeners = services.into_iter().map(|service| service.listener);
                listeners.for_each(|listener| listener.ended(Err(copy(&error))));
                return Err(error);
            }
        };
        this.stays = false;
        for service in services {
            if let Err(error) = this.serve(service) {
                this.end(&Err(copy(&error)));
                return Err(error);
            }
        }
        // Without a queue nothing would ever wake the reactor.
        if this.seats.iter().all(Option::is_none) {
            return Err(io::Error::other("none of the queues can be served"));
        }
        Ok(this)
    }

    /// Waits for completions and handles all available completions.
    ///
    /// # Errors
    /// When the ring breaks, or the kernel permanently refuses a command: [`end`](Self::end) the
    /// reactor with the error.
    #[inline]
    pub fn turn(&mut self) -> io::Result<Turn> {
        if let Some(Some(seat)) = self.seats.get(usize::from(self.current)) {
            seat.counters.enters.add(1);
        }
        if self.listening.is_empty() {
            if let Some(spin) = &mut self.spin {
                spin.look(&mut self.desk.ring, || false)?;
            }
            // The first completion ends the wait, even a mere answer to a commit: the kernel may
            // have taken some of several elements, and perhaps no other completion comes before the
            // rest is sent again.
            self.desk.ring.submit_and_wait(1)?;
        } else {
            self.wait_and_listen()?;
        }
        self.take_completions()?;
        if self.desk.attention { self.attend() } else { Ok(Turn::Serving) }
    }

    /// Ends the reactor. The listeners of the remaining queues receive `result`, once the reactor
    /// holds nothing of the queues. Where other reactors serve the same devices, the listeners
    /// receive [`News::Lost`] while the ring is still there, and `result` when the devices have
    /// been stopped, or have been taken away from the other reactors (see `lost`).
    pub fn end(mut self, result: &io::Result<()>) {
        let (driver, stays) = (self.driver.clone(), self.stays);
        let (mut lost, mut listeners) = (Vec::new(), Vec::new());
        for seat in self.seats.iter_mut().flatten() {
            match result {
                Err(error)
                    if stays
                        && lost::has_company(seat.config.features)
                        && !seat.listener.lost(copy(error)) =>
                {
                    lost.push(LostQueue::of(seat));
                }
                _ => listeners.push(seat.take_listener()),
            }
        }
        drop(self);
        for listener in listeners {
            listener.ended(result.as_ref().map_err(copy).copied());
        }
        if let (Err(error), false) = (result, lost.is_empty()) {
            lost::fail_all(&driver, lost, error);
        }
    }

    #[inline]
    fn take_completions(&mut self) -> io::Result<()> {
        // The pass asks only once: without a watcher, watching has no other cost.
        if stats::is_anybody_watching() { self.take_watched() } else { self.take_all::<false>() }
    }

    #[cold]
    #[inline(never)]
    fn take_watched(&mut self) -> io::Result<()> {
        self.take_all::<true>()
    }

    /// `WATCHED`: there may be a watcher of requests.
    #[inline(always)]
    fn take_all<const WATCHED: bool>(&mut self) -> io::Result<()> {
        // Before the completions: a tag committed by the peer, past this reactor, may arrive anew
        // among the completions.
        if !self.listening.is_empty() {
            self.listen()?;
        }
        let lone = self.desk.ring.ready() <= 1;
        let mut next = self.desk.ring.pop();
        while let Some(completion) = next {
            let number = Token::seat(completion.user_data);
            next = match self.seats.get_mut(usize::from(number)) {
                Some(Some(seat)) => {
                    self.current = number;
                    seat.take::<WATCHED, _>(&mut self.desk, completion, lone)?
                }
                _ => {
                    self.woken(completion)?;
                    self.desk.ring.pop()
                }
            };
        }
        if !self.listening.is_empty() {
            self.show();
        }
        while let Some(number) = self.desk.put_off.pop() {
            if let Some(seat) = &mut self.seats[usize::from(number)] {
                seat.flush(&mut self.desk)?;
            }
        }
        Ok(())
    }

    #[cold]
    fn woken(&mut self, completion: Completion) -> io::Result<()> {
        let number = Token::unpack(completion.user_data).tag.number();
        if number == CLOCK {
            return self.tick();
        }
        check_poll(completion.result)?;
        if number == BELL {
            return self.bell_rang(completion);
        }
        self.desk.attention = true;
        self.mailbox.waker().drain();
        self.pulse.beat();
        self.watch_mailbox()
    }

    fn watch_mailbox(&mut self) -> io::Result<()> {
        watch(&mut self.desk.ring, self.mailbox.waker().fd(), false, MAIL)
    }
}

/// Lets a completion tell when `fd` can be read: once, or, `often`, each time.
fn watch<R: Ring>(ring: &mut R, fd: RawFd, often: bool, number: u16) -> io::Result<()> {
    while ring.space() < 1 {
        ring.submit()?;
    }
    let events = u32::from(libc::POLLIN.cast_unsigned());
    let entry = opcode::PollAdd::new(Fd(fd), events)
        .multi(often)
        .build()
        .user_data(Token::numbered(Kind::Wake, number).pack(NOBODY));
    // SAFETY: the entry points to nothing.
    unsafe { ring.push(&entry) };
    Ok(())
}

/// A poll with a permanent error wakes the reactor again as soon as the reactor polls again: the
/// reactor would never sleep, and no thread could wake the reactor.
fn check_poll(result: i32) -> io::Result<()> {
    match -result {
        libc::ENOMEM | libc::EAGAIN | libc::EINTR => Ok(()),
        errno if errno > 0 => Err(io::Error::from_raw_os_error(errno)),
        _ => Ok(()),
    }
}

impl<D: Driver, T> Drop for Reactor<D, T> {
    fn drop(&mut self) {
        self.mailbox.close();
        for seat in self.seats.iter_mut().flatten() {
            seat.queue.engine.abandon_remotes();
            if seat.running() == 0 {
                // The table would keep the character device open after the close (trap 30).
                let _gone_with_the_ring = self.desk.ring.empty_files(seat.loan.files.clone());
            } else {
                // The kernel still executes operations in flight, and frees the table only after
                // the last: freed earlier, the table would let old writes overtake the next server.
                seat.abandon();
            }
        }
    }
}

/// Errors of the system have no clone of their own.
fn copy(error: &io::Error) -> io::Error {
    let other = || io::Error::other(error.to_string());
    error.raw_os_error().map_or_else(other, io::Error::from_raw_os_error)
}

fn full(table: &str) -> io::Error {
    io::Error::other(format!("the reactor's {table} is full: let it serve fewer devices"))
}
