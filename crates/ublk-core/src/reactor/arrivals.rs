//! Queues that come to a reactor, and go: what each is lent, and gives back.

use std::ops::Range;
use std::{io, mem};

use super::seat::{Desk, Seat};
use super::{Listener, Reactor, Service, Turn, full};
use crate::driver::{Driver, Ring};
use crate::file_table::FIRST_OF_TARGET;
use crate::target::Target;

/// What a reactor has lent to a seat.
#[derive(Clone, Debug)]
pub(super) struct Loan {
    /// The number of the seat.
    pub(super) number: u16,
    /// Its places in the file table.
    pub(super) files: Range<u32>,
    /// Its slots in the buffer table.
    pub(super) slots: Box<[u16]>,
}

impl<D: Driver, T: Target> Reactor<D, T> {
    /// Takes a queue in. Its listener hears that it is ready, or why it cannot be served.
    ///
    /// # Errors
    /// When the ring breaks: all its queues are lost.
    pub fn serve(&mut self, mut service: Service<T>) -> io::Result<()> {
        let listener = mem::take(&mut service.listener);
        let number = match self.furnish(service) {
            Ok(seat) => self.seat(seat, listener),
            Err(error) => {
                listener.ended(Err(error));
                return Ok(());
            }
        };
        if let Some(seat) = &mut self.seats[number] {
            seat.arm(&mut desk!(self))?;
        }
        self.run_clock()?;
        self.ring.submit()?;
        // A refused fetch has answered by now; START_DEV would wait for it for ever (trap 23).
        self.take_completions()?;
        // A turn waits before it attends to anything: what was told meanwhile must end that wait.
        if self.attention {
            self.mailbox.waker().wake();
        }
        let seat = self.seats[number].as_mut();
        seat.filter(|seat| seat.refused.is_none()).into_iter().for_each(Seat::ready);
        Ok(())
    }

    /// A seat for a queue, of which the kernel knows nothing yet. On failure nothing stays lent.
    fn furnish(&mut self, service: Service<T>) -> io::Result<Seat<T>> {
        let bell = if service.listens() { Some(self.bell()?) } else { None };
        let loan = self.lend(&service)?;
        let made = self.register_files(&service, loan.files.start).and_then(|()| {
            let lent = loan.clone();
            let mut seat = Seat::new(&self.driver, service, lent, bell.as_ref(), self.stays)?;
            seat.enter(&mut self.ring).map(|()| seat)
        });
        if made.is_err() {
            let _worse = self.take_back(loan);
        }
        made
    }

    /// Puts a queue's files into the table: of each of the target's an open file of the queue's own
    /// where that can be had, so that each queue hears of what a sync could not store.
    fn register_files(&mut self, service: &Service<T>, first: u32) -> io::Result<()> {
        let mut files = service.files();
        let own: Vec<_> = files[FIRST_OF_TARGET as usize..]
            .iter_mut()
            .filter_map(|fd| {
                let again = self.driver.reopen(*fd).ok()?;
                *fd = again.fd();
                Some(again)
            })
            .collect();
        let registered = self.ring.update_files(first, &files);
        // The table keeps them open.
        drop(own);
        registered
    }

    /// All that a queue needs, or nothing.
    fn lend(&mut self, service: &Service<T>) -> io::Result<Loan> {
        let number = self.seats.iter().position(Option::is_none).unwrap_or(self.seats.len());
        #[expect(clippy::cast_possible_truncation, reason = "as many as there are files at most")]
        let number = number as u16;
        let files = self.places.take(service.places()).ok_or_else(|| full("file table"))?;
        match self.slots.take_many(service.standing_slots()) {
            Some(slots) => Ok(Loan { number, files, slots }),
            None => {
                self.places.put(files);
                Err(full("buffer table"))
            }
        }
    }

    /// Empties the places and takes them back, so that their files close when their owners let go,
    /// and the slots, which are empty.
    fn take_back(&mut self, loan: Loan) -> io::Result<()> {
        loan.slots.iter().for_each(|&slot| self.slots.put(slot));
        self.ring.empty_files(loan.files.clone())?;
        self.places.put(loan.files);
        Ok(())
    }

    fn seat(&mut self, mut seat: Seat<T>, listener: Listener) -> usize {
        let number = usize::from(seat.loan.number);
        if seat.listens() {
            self.listening.push(seat.loan.number);
        }
        seat.listener = listener;
        if number == self.seats.len() {
            self.seats.push(None);
        }
        self.seats[number] = Some(seat);
        number
    }

    /// Lets queues in and out.
    #[cold]
    pub(super) fn attend(&mut self) -> io::Result<Turn> {
        self.attention = false;
        for service in self.mailbox.take() {
            self.serve(service)?;
        }
        let quit = self.mailbox.waker().should_quit();
        // What was pushed is in the kernel's hands, and what it refuses is here, before a seat goes;
        // before the reactor goes, also the requests that the kernel has handed over already.
        if quit {
            self.seats.iter_mut().flatten().for_each(Seat::wind_down);
            self.ring.poll()?;
        } else {
            self.ring.submit()?;
        }
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
        let mut seats = self.seats.iter().flatten().peekable();
        if !quit && (self.stays || seats.peek().is_some()) {
            return Ok(Turn::Serving);
        }
        self.attention = true;
        if seats.any(|seat| seat.ending() > 0) {
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

    /// Nothing of a queue is in flight: lets go of all that it had.
    fn vacate(&mut self, number: usize) -> io::Result<()> {
        let Some(mut seat) = self.seats[number].take() else { return Ok(()) };
        self.listening.retain(|&listening| usize::from(listening) != number);
        seat.leave(&mut self.ring)?;
        self.take_back(seat.loan.clone())?;
        let listener = seat.take_listener();
        let refused = seat.refused;
        drop(seat);
        listener.ended(refused.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno))));
        Ok(())
    }
}
