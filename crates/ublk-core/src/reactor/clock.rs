//! The clock of queues whose requests must not become too old (those of unprivileged devices), and of
//! queues with remotes, whose sessions give up servers that fall silent.

use std::io;
use std::time::Duration;

use io_uring::opcode;
use io_uring::types::Timespec;

use super::desk::Desk;
use super::queue::Queue;
use super::seat::Seat;
use super::{NOBODY, Reactor};
use crate::driver::{Driver, Ring};
use crate::engine::Outcome;
use crate::pass::Pass;
use crate::tag::Tag;
use crate::targets::Target;
use crate::token::{Kind, Token};

/// How old a request of an unprivileged device may become: the kernel kills its server, with SIGKILL
/// and all of the server's devices, when a request is 30 s old (`ublk_timeout`).
pub(crate) const UNPRIVILEGED_LIMIT: Duration = Duration::from_secs(20);
/// In units of the clock, which are seconds.
const LIMIT: u8 = 20;

/// The tag of completions that tell that a unit of time has passed.
pub(super) const CLOCK: u16 = 2;

/// A timeout on the reactor's ring, while there are queues that need it.
#[derive(Debug)]
pub(super) struct Clock {
    /// Where the kernel reads how long to wait.
    unit: Box<Timespec>,
    runs: bool,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { unit: Box::new(Timespec::new().sec(1)), runs: false }
    }

    fn start<R: Ring>(&mut self, ring: &mut R) -> io::Result<()> {
        if std::mem::replace(&mut self.runs, true) {
            return Ok(());
        }
        while ring.space() < 1 {
            ring.submit()?;
        }
        let token = Token::numbered(Kind::Wake, CLOCK).pack(NOBODY);
        let entry = opcode::Timeout::new(&raw const *self.unit).build().user_data(token);
        // SAFETY: the entry points to the clock's own memory, which stays where it is as long as the
        // reactor, and is read when the entry is submitted.
        unsafe { ring.push(&entry) };
        Ok(())
    }
}

impl<D: Driver, T: Target> Reactor<D, T> {
    /// Lets the clock run if a queue needs it.
    pub(super) fn run_clock(&mut self) -> io::Result<()> {
        let needed = self.seats.iter().flatten().any(|seat| seat.queue.needs_clock());
        if needed { self.clock.start(&mut self.desk.ring) } else { Ok(()) }
    }

    /// A unit of time has passed.
    #[cold]
    pub(super) fn tick(&mut self) -> io::Result<()> {
        self.clock.runs = false;
        for number in 0..self.seats.len() {
            if let Some(seat) = &mut self.seats[number] {
                seat.tick(&mut self.desk)?;
            }
        }
        self.run_clock()
    }
}

impl<T: Target> Seat<T> {
    fn tick<R: Ring>(&mut self, desk: &mut Desk<R>) -> io::Result<()> {
        self.queue.tick(&mut desk.pass(&self.counters, self.place))
    }
}

impl<T: Target> Queue<T> {
    fn needs_clock(&self) -> bool {
        self.ages || self.engine.has_remotes()
    }

    fn tick<R: Ring>(&mut self, pass: &mut Pass<'_, R>) -> io::Result<()> {
        if self.ages {
            self.give_up_old(pass)?;
        }
        // The answers come at the end of the pass.
        self.engine.tick_remotes(pass);
        Ok(())
    }

    /// Fails requests whose backend does not answer. Those that wait for a handler the bridge ends.
    fn give_up_old<R: Ring>(&mut self, pass: &mut Pass<'_, R>) -> io::Result<()> {
        self.engine.grow_older();
        let mut from = Tag::default();
        while let Some(tag) = self.engine.next_old(from, LIMIT) {
            self.give_up(pass, tag)?;
            from = tag.next();
        }
        Ok(())
    }

    fn give_up<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag) -> io::Result<()> {
        let buffer = match &mut self.asking {
            Some(asking) => asking.port.renew_buffer(tag),
            None => self.engine.spare_buffer(),
        };
        // Without memory for another buffer the request keeps its own, and the next tick tries again.
        let Some(buffer) = buffer else { return Ok(()) };
        let place = buffer.base();
        if !self.engine.give_up(tag, buffer) {
            return Ok(());
        }
        self.exchange.move_buffer(tag, place);
        pass.counters.errors.add(1);
        self.settle(pass, tag, Outcome::Commit(-libc::ETIMEDOUT))
    }
}
