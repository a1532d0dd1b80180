//! One thread, one io_uring, one buffer table: the loop that serves queues.
//!
//! Each queue has a seat. A pass takes every completion that is there: the exchange's become
//! requests, which the engine starts; the engine's may end requests, which the exchange commits.
//! All that a pass pushes goes to the kernel in one call, which then waits for the next completion.

use std::ops::Range;
use std::os::fd::RawFd;
use std::{io, mem};

use io_uring::opcode;
use io_uring::types::Fd;

use crate::buffers::Slots;
use crate::driver::{Completion, Driver, Ring};
use crate::stats;
use crate::target::Target;
use crate::token::{Kind, Token};

/// A macro, since a method would borrow all of the reactor.
macro_rules! desk {
    ($this:expr) => {
        Desk {
            ring: &mut $this.ring,
            slots: &mut $this.slots,
            put_off: &mut $this.put_off,
            attention: &mut $this.attention,
        }
    };
}

/// A macro, since a method would borrow all of the seat.
macro_rules! pass {
    ($this:expr, $desk:expr) => {
        Pass {
            ring: &mut *$desk.ring,
            slots: &mut *$desk.slots,
            put_off: &mut *$desk.put_off,
            counters: &$this.counters,
            seat: $this.place,
        }
    };
}

mod asking;
mod mailbox;
mod places;
mod queue;
mod seat;
mod service;
mod spin;

pub use crate::buffers::SharedMemory;
pub use mailbox::{Mailbox, Waker};
pub(crate) use service::MAX_SLOTS;
pub use service::{Capacity, ExchangeMode, Listener, News, QueueConfig, Service, Transfer};

use asking::BELL;
use places::Places;
use seat::{Desk, Seat};
use spin::Spin;

/// The seat of completions that are the reactor's own.
const NOBODY: u16 = u16::MAX;
/// The tag of completions that tell of mail.
const MAIL: u16 = 0;

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Call [`Reactor::turn`] again.
    Serving,
    /// There is no queue any more, or the waker said so, and no request is left.
    Ended,
}

/// Serves queues, on the thread that made it.
pub struct Reactor<D: Driver, T> {
    // Fields drop in this order: the ring before the memory that it works on (see `drop`).
    ring: D::Ring,
    seats: Vec<Option<Seat<T>>>,
    slots: Slots,
    places: Places,
    mailbox: Mailbox<T>,
    /// Seats whose requests are answered elsewhere.
    asking: Vec<u16>,
    /// Wakes for answers; there once somebody is asked.
    bell: Option<Waker>,
    /// Seats that have put something off until the end of the pass.
    put_off: Vec<u16>,
    /// Completions that the next call of the kernel brings at once, and that nobody waits for.
    at_once: u32,
    /// The seat that the last completion was for: it counts our calls.
    current: u16,
    /// Something other than requests is to be seen to.
    attention: bool,
    /// Goes on when the last queue has ended.
    stays: bool,
    spin: Option<Spin>,
    driver: D,
}

impl<D: Driver, T> std::fmt::Debug for Reactor<D, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reactor").field("seats", &self.seats.len()).finish_non_exhaustive()
    }
}

impl<D: Driver, T: Target> Reactor<D, T> {
    /// A reactor that serves the queues that arrive in its mailbox until its waker says quit.
    ///
    /// # Errors
    /// What setting up the ring and its tables says.
    pub fn new(driver: &D, capacity: Capacity, mailbox: Mailbox<T>) -> io::Result<Self> {
        let mut ring = driver.ring(capacity.ring)?;
        ring.register_files_sparse(capacity.files)?;
        if capacity.slots > 0 {
            ring.register_buffers_sparse(capacity.slots.into())?;
        }
        let mut this = Self {
            ring,
            seats: Vec::new(),
            slots: Slots::new(capacity.slots),
            places: Places::new(capacity.files),
            mailbox,
            asking: Vec::new(),
            bell: None,
            put_off: Vec::new(),
            at_once: 0,
            current: 0,
            attention: false,
            stays: true,
            spin: Spin::new(capacity.spin),
            driver: driver.clone(),
        };
        this.watch_mailbox()?;
        Ok(this)
    }

    /// A reactor that serves these queues and ends with the last of them.
    ///
    /// # Errors
    /// As [`new`](Self::new); the services' listeners hear it too.
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
        Ok(this)
    }

    /// Takes a queue in. Its listener hears that it is ready, or why it cannot be served.
    ///
    /// # Errors
    /// When the ring breaks: all its queues are lost.
    pub fn serve(&mut self, service: Service<T>) -> io::Result<()> {
        let number = match self.seat(service) {
            Ok(number) => number,
            Err((listener, error)) => {
                listener.ended(Err(error));
                return Ok(());
            }
        };
        self.ring.submit()?;
        // A refused fetch has answered by now; START_DEV would wait for it for ever (trap 23).
        self.take_completions()?;
        let seat = self.seats[usize::from(number)].as_mut();
        seat.filter(|seat| seat.refused.is_none()).into_iter().for_each(Seat::ready);
        Ok(())
    }

    /// Waits for completions and deals with all that are there.
    ///
    /// # Errors
    /// When the ring breaks, or the kernel refuses a command for good: [`end`](Self::end) the
    /// reactor with it.
    #[inline]
    pub fn turn(&mut self) -> io::Result<Turn> {
        if let Some(Some(seat)) = self.seats.get(usize::from(self.current)) {
            seat.counters.enters.add(1);
        }
        if self.asking.is_empty() {
            let wanted = 1 + self.at_once;
            if let Some(spin) = &mut self.spin {
                spin.look(&mut self.ring, wanted, || false)?;
            }
            self.ring.submit_and_wait(wanted)?;
        } else {
            self.wait_with_answers()?;
        }
        self.take_completions()?;
        if self.attention { self.attend() } else { Ok(Turn::Serving) }
    }

    /// Ends the reactor. The listeners of queues that it still has hear `result`, once nothing of
    /// the queues is left.
    pub fn end(mut self, result: &io::Result<()>) {
        let seats = self.seats.iter_mut().flatten();
        let listeners: Vec<_> = seats.map(Seat::take_listener).collect();
        drop(self);
        for listener in listeners {
            listener.ended(result.as_ref().map_err(copy).copied());
        }
    }

    #[inline]
    fn take_completions(&mut self) -> io::Result<()> {
        // One look for the whole pass: while nobody watches, that is all that watching costs.
        if stats::is_anybody_watching() { self.take_watched() } else { self.take_all::<false>() }
    }

    #[cold]
    #[inline(never)]
    fn take_watched(&mut self) -> io::Result<()> {
        self.take_all::<true>()
    }

    /// `WATCHED`: somebody may want to know what becomes of requests.
    #[inline(always)]
    fn take_all<const WATCHED: bool>(&mut self) -> io::Result<()> {
        // Beside what was bound to come.
        let lone = self.ring.ready() <= 1 + self.at_once as usize;
        while let Some(completion) = self.ring.pop() {
            let number = Token::seat(completion.user_data);
            match self.seats.get_mut(usize::from(number)) {
                Some(Some(seat)) => {
                    seat.take::<WATCHED, _>(&mut desk!(self), completion, lone)?;
                    self.current = number;
                }
                _ => self.woken(completion)?,
            }
        }
        if !self.asking.is_empty() {
            self.take_answers()?;
        }
        self.at_once = 0;
        while let Some(number) = self.put_off.pop() {
            if let Some(seat) = &mut self.seats[usize::from(number)] {
                self.at_once += seat.flush(&mut desk!(self))?;
            }
        }
        Ok(())
    }

    #[cold]
    fn woken(&mut self, completion: Completion) -> io::Result<()> {
        if Token::unpack(completion.user_data).tag == BELL {
            return self.bell_rang(completion);
        }
        self.attention = true;
        self.mailbox.waker().drain();
        self.watch_mailbox()
    }

    /// Lets queues in and out.
    #[cold]
    fn attend(&mut self) -> io::Result<Turn> {
        self.attention = false;
        for service in self.mailbox.take() {
            self.serve(service)?;
        }
        // What was pushed is in the kernel's hands, and what it refuses is here, before a seat goes.
        self.ring.submit()?;
        // With it came what the next call would have brought at once: waiting for it there again
        // would be waiting for ever.
        self.at_once = 0;
        if self.ring.ready() > 0 {
            self.attention = true;
            return Ok(Turn::Serving);
        }
        for number in 0..self.seats.len() {
            let Some(seat) = &mut self.seats[number] else { continue };
            if seat.has_ended() {
                self.vacate(number)?;
            } else if seat.closing {
                self.attention = true;
                seat.listener.closing();
                self.look_after(number)?;
            }
        }
        let quit = self.mailbox.waker().should_quit();
        let mut seats = self.seats.iter().flatten().peekable();
        if !quit && (self.stays || seats.peek().is_some()) {
            return Ok(Turn::Serving);
        }
        self.attention = true;
        if seats.any(|seat| seat.running() > 0) {
            return Ok(Turn::Serving);
        }
        Ok(Turn::Ended)
    }

    /// A queue whose commands the kernel refuses is lost. Where it is the only one, so is the
    /// ring; where it is not, somebody must stop its device.
    fn look_after(&mut self, number: usize) -> io::Result<()> {
        let Some(seat) = &mut self.seats[number] else { return Ok(()) };
        let Some(errno) = seat.refused else { return Ok(()) };
        if self.stays {
            seat.listener.refused(errno);
            return Ok(());
        }
        if seat.running() > 0 {
            return Ok(());
        }
        Err(io::Error::from_raw_os_error(errno))
    }

    fn seat(&mut self, mut service: Service<T>) -> Result<u16, (Listener, io::Error)> {
        let listener = mem::take(&mut service.listener);
        let number = self.seats.iter().position(Option::is_none).unwrap_or(self.seats.len());
        let Some(files) = self.places.take(service.places()) else {
            return Err((listener, full("file table")));
        };
        if number == self.seats.len() {
            self.seats.push(None);
        }
        #[expect(clippy::cast_possible_truncation, reason = "as many as there are files at most")]
        let name = number as u16;
        let bell = match service.target.elsewhere().map(|_| self.bell()).transpose() {
            Ok(bell) => bell,
            Err(error) => return Err((listener, error)),
        };
        let asks = bell.is_some();
        let made = self.ring.update_files(files.start, &service.files()).and_then(|()| {
            let place = (name, files.clone());
            let mut seat = Seat::new(
                &self.driver,
                service,
                place,
                (&mut self.slots, bell.as_ref()),
                self.stays,
            )?;
            match seat.arm(&mut desk!(self)) {
                Ok(()) => Ok(seat),
                Err(error) => {
                    seat.give_back(&mut self.slots);
                    Err(error)
                }
            }
        });
        match made {
            Ok(mut seat) => {
                seat.listener = listener;
                self.seats[number] = Some(seat);
                if asks {
                    self.asking.push(name);
                }
                Ok(name)
            }
            Err(error) => {
                let _worse = self.clear(files);
                Err((listener, error))
            }
        }
    }

    /// Nothing of a queue is in flight: lets go of all that it had.
    fn vacate(&mut self, number: usize) -> io::Result<()> {
        let Some(mut seat) = self.seats[number].take() else { return Ok(()) };
        self.asking.retain(|&asking| usize::from(asking) != number);
        seat.leave(&mut desk!(self))?;
        self.clear(seat.files.clone())?;
        let listener = seat.take_listener();
        let refused = seat.refused;
        drop(seat);
        listener.ended(refused.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno))));
        Ok(())
    }

    /// Empties places of the file table, so that their files close when their owners let go.
    fn clear(&mut self, files: Range<u32>) -> io::Result<()> {
        let nothing = vec![-1; files.len()];
        self.ring.update_files(files.start, &nothing)?;
        self.places.put(files);
        Ok(())
    }

    fn watch_mailbox(&mut self) -> io::Result<()> {
        watch(&mut self.ring, self.mailbox.waker().fd(), false, MAIL)
    }
}

/// Lets a completion tell when `fd` can be read: once, or, `often`, each time.
fn watch<R: Ring>(ring: &mut R, fd: RawFd, often: bool, tag: u16) -> io::Result<()> {
    while ring.space() < 1 {
        ring.submit()?;
    }
    let events = u32::from(libc::POLLIN.cast_unsigned());
    let entry = opcode::PollAdd::new(Fd(fd), events)
        .multi(often)
        .build()
        .user_data(Token::new(Kind::Wake, tag).pack(NOBODY));
    // SAFETY: the entry points to nothing.
    unsafe { ring.push(&entry) };
    Ok(())
}

impl<D: Driver, T> Drop for Reactor<D, T> {
    fn drop(&mut self) {
        self.mailbox.close();
        // A ring that closes ends its operations later, behind our back.
        self.seats.iter_mut().flatten().for_each(Seat::abandon);
        // A file table would keep the character devices open beyond their close (trap 30).
        let _gone_with_the_ring = self.ring.unregister_files();
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
