//! Seats with messages from other threads: from the peer of a bridge, or from the reactor at the other end of a
//! queue with rings apart.

use std::io;

use super::desk::Desk;
use super::queue::Queue;
use super::seat::Seat;
use super::{Reactor, Waker, watch};
use crate::driver::{Completion, Driver, Ring};
use crate::pass::Pass;
use crate::targets::Target;

/// The tag of completions that announce messages.
pub(super) const BELL: u16 = 1;
/// More completions of the same submission follow (`IORING_CQE_F_MORE`).
const MORE: u32 = 1 << 1;

impl<T: Target> Queue<T> {
    /// Takes the messages of other threads.
    #[inline]
    pub(super) fn listen<R: Ring>(&mut self, pass: &mut Pass<'_, R>) -> io::Result<()> {
        if self.asking.is_some() {
            return self.take_answers(pass);
        }
        while let Some(tag) = self.exchange.listen(pass)? {
            self.begin::<true, _>(pass, tag, false)?;
        }
        Ok(())
    }

    /// Shows other threads the messages for them.
    #[inline]
    fn show(&mut self) {
        match &mut self.asking {
            Some(asking) => asking.port.flush(),
            None => self.exchange.show(),
        }
    }

    fn has_word(&mut self) -> bool {
        match &mut self.asking {
            Some(asking) => asking.port.has_answers(),
            None => self.exchange.ear().is_some_and(|ear| ear.has_words()),
        }
    }

    fn may_sleep(&mut self) -> bool {
        match &mut self.asking {
            Some(asking) => asking.port.may_sleep(),
            None => self.exchange.ear().is_none_or(|ear| ear.may_sleep()),
        }
    }

    fn awake(&mut self) {
        match &mut self.asking {
            Some(asking) => asking.port.awake(),
            None => self.exchange.ear().into_iter().for_each(|ear| ear.awake()),
        }
    }
}

impl<T: Target> Seat<T> {
    pub(super) fn listens(&mut self) -> bool {
        self.queue.asking.is_some() || self.queue.exchange.ear().is_some()
    }

    /// Takes the messages of other threads.
    fn listen<R: Ring>(&mut self, desk: &mut Desk<R>) -> io::Result<()> {
        self.queue.listen(&mut desk.pass(&self.counters, self.place))?;
        if !self.queue.exchange.is_open() {
            // The front is gone.
            self.closing = true;
            desk.attention = true;
        }
        Ok(())
    }
}

impl<D: Driver, T: Target> Reactor<D, T> {
    /// Waits for completions, or for messages of other threads.
    pub(super) fn wait_and_listen(&mut self) -> io::Result<()> {
        if let Some(spin) = &mut self.spin {
            let (seats, listening) = (&mut self.seats, &self.listening);
            spin.look(&mut self.desk.ring, || {
                listening.iter().any(|&number| {
                    let seat = seats.get_mut(usize::from(number)).and_then(Option::as_mut);
                    seat.is_some_and(|seat| seat.queue.has_word())
                })
            })?;
        }
        let mut idle = true;
        for &number in &self.listening {
            if let Some(Some(seat)) = self.seats.get_mut(usize::from(number)) {
                idle &= seat.queue.may_sleep();
            }
        }
        if idle {
            self.desk.ring.submit_and_wait(1)?;
        }
        for &number in &self.listening {
            if let Some(Some(seat)) = self.seats.get_mut(usize::from(number)) {
                seat.queue.awake();
            }
        }
        Ok(())
    }

    /// Takes the messages of other threads.
    pub(super) fn listen(&mut self) -> io::Result<()> {
        for index in 0..self.listening.len() {
            if let Some(seat) = &mut self.seats[usize::from(self.listening[index])] {
                seat.listen(&mut self.desk)?;
            }
        }
        Ok(())
    }

    /// Shows other threads the messages for them.
    pub(super) fn show(&mut self) {
        for &number in &self.listening {
            if let Some(seat) = &mut self.seats[usize::from(number)] {
                seat.queue.show();
            }
        }
    }

    /// The bell that wakes this reactor for messages.
    pub(super) fn bell(&mut self) -> io::Result<Waker> {
        if let Some(bell) = &self.bell {
            return Ok(bell.clone());
        }
        let bell = Waker::new()?;
        watch(&mut self.desk.ring, bell.fd(), true, BELL)?;
        Ok(self.bell.insert(bell).clone())
    }

    /// Every pass takes the messages. Nobody empties the bell: a poll that goes on hears each ring, and a new poll
    /// hears one ring too many.
    #[inline]
    pub(super) fn bell_rang(&mut self, completion: Completion) -> io::Result<()> {
        if completion.flags & MORE == 0 { self.watch_bell() } else { Ok(()) }
    }

    fn watch_bell(&mut self) -> io::Result<()> {
        match &self.bell {
            Some(bell) => watch(&mut self.desk.ring, bell.fd(), true, BELL),
            None => Ok(()),
        }
    }
}
