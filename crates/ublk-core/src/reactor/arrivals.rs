//! Adds queues to a reactor, gives queues new files, and removes queues: the places and slots that a
//! reactor lends to a seat.

use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::{io, mem};

use super::mailbox::{Mail, NewFile};
use super::seat::Seat;
use super::{Listener, Reactor, Service, Turn, full};
use crate::driver::{Driver, OpenFile, Ring};
use crate::file_table::FIRST_OF_TARGET;
use crate::targets::Target;

/// Number, places and slots that a reactor has lent to a seat.
#[derive(Clone, Debug)]
pub(super) struct Loan {
    /// The number of the seat.
    pub(super) number: u16,
    /// Places in the reactor's file table.
    pub(super) files: Range<u32>,
    /// Slots in the reactor's buffer table.
    pub(super) slots: Box<[u16]>,
}

impl<D: Driver, T: Target> Reactor<D, T> {
    /// Adds a queue. The queue's listener gets `Ready`, or the error.
    ///
    /// # Errors
    /// When the ring fails: all queues of the reactor are lost.
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
            seat.arm(&mut self.desk)?;
        }
        self.run_clock()?;
        self.desk.ring.submit()?;
        // A refused fetch has completed by now. START_DEV would wait for the fetch for ever (trap 23).
        self.take_completions()?;
        // `turn` waits before `attend`: a message that arrives meanwhile must end the wait.
        if self.desk.attention {
            self.mailbox.waker().wake();
        }
        let seat = self.seats[number].as_mut();
        seat.filter(|seat| seat.refused.is_none()).into_iter().for_each(Seat::ready);
        Ok(())
    }

    /// Makes the seat of a queue before the first command to the kernel. A failure returns the loan.
    fn furnish(&mut self, service: Service<T>) -> io::Result<Seat<T>> {
        let bell = if service.listens() { Some(self.bell()?) } else { None };
        let loan = self.lend(&service)?;
        let made = self.register_files(&service, loan.files.start).and_then(|()| {
            let lent = loan.clone();
            let mut seat = Seat::new(&self.driver, service, lent, bell.as_ref(), self.stays)?;
            seat.enter(&mut self.desk.ring).map(|()| seat)
        });
        if made.is_err() {
            let _worse = self.take_back(loan);
        }
        made
    }

    /// Registers the files of a queue.
    fn register_files(&mut self, service: &Service<T>, first: u32) -> io::Result<()> {
        let (own, targets) = service.files();
        self.desk.ring.update_files(first, &own)?;
        self.register_of_target(targets, first + FIRST_OF_TARGET)
    }

    /// Registers files of a target for one queue. Each queue gets an own open file where a file can be
    /// reopened: the kernel reports a failed sync once per open file.
    fn register_of_target(&mut self, files: &[RawFd], first: u32) -> io::Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        let again: Vec<_> = files.iter().map(|&fd| self.driver.reopen(fd).ok()).collect();
        let fds = files.iter().zip(&again);
        let fds: Vec<_> = fds.map(|(&fd, again)| again.as_ref().map_or(fd, OpenFile::fd)).collect();
        let registered = self.desk.ring.update_files(first, &fds);
        // The file table keeps the files open.
        drop(again);
        registered
    }

    /// Gives a file to all queues that its target answers.
    fn give(&mut self, new: &NewFile<T>) -> io::Result<()> {
        let seats = self.seats.iter().flatten();
        let theirs = seats.filter(|seat| seat.queue.engine.serves(&new.target));
        let first: Vec<_> = theirs.map(|seat| seat.loan.files.start).collect();
        let place = FIRST_OF_TARGET + u32::from(new.place);
        first
            .into_iter()
            .try_for_each(|first| self.register_of_target(&[new.file.as_raw_fd()], first + place))
    }

    /// Lends number, places and slots to a queue; on failure lends nothing.
    fn lend(&mut self, service: &Service<T>) -> io::Result<Loan> {
        let number = self.seats.iter().position(Option::is_none).unwrap_or(self.seats.len());
        #[expect(clippy::cast_possible_truncation, reason = "as many as there are files at most")]
        let number = number as u16;
        let files = self.places.take(service.places()).ok_or_else(|| full("file table"))?;
        match self.desk.slots.take_many(service.standing_slots()) {
            Some(slots) => Ok(Loan { number, files, slots }),
            None => {
                self.places.put(files);
                Err(full("buffer table"))
            }
        }
    }

    /// Takes a loan back. The places are emptied, so that the files close with their last descriptor; the
    /// slots are empty already.
    fn take_back(&mut self, loan: Loan) -> io::Result<()> {
        loan.slots.iter().for_each(|&slot| self.desk.slots.put(slot));
        self.desk.ring.empty_files(loan.files.clone())?;
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

    /// Sees to the mail, and removes queues that have ended.
    #[cold]
    pub(super) fn attend(&mut self) -> io::Result<Turn> {
        self.desk.attention = false;
        for mail in self.mailbox.take() {
            match mail {
                Mail::Queue(service) => self.serve(service)?,
                Mail::File(file) => {
                    let given = self.give(&file);
                    // Whoever asked may have given up.
                    let _unheard = file.told.send(given);
                }
                Mail::Look(look) => self.look(&look),
            }
        }
        let quit = self.mailbox.waker().should_quit();
        if quit {
            self.seats.iter_mut().flatten().for_each(Seat::wind_down);
        }
        if self.hand_over(quit)? {
            self.desk.attention = true;
            return Ok(Turn::Serving);
        }
        for number in 0..self.seats.len() {
            let Some(seat) = &mut self.seats[number] else { continue };
            if seat.has_ended() {
                self.vacate(number)?;
            } else if seat.closing {
                self.desk.attention = true;
                seat.listener.closing();
                self.look_after(number)?;
            }
        }
        if !quit && (self.stays || self.seats.iter().any(Option::is_some)) {
            return Ok(Turn::Serving);
        }
        self.desk.attention = true;
        let mut seats = self.seats.iter_mut().flatten();
        if seats.any(|seat| seat.ending() > 0 || !seat.close_remotes()) {
            return Ok(Turn::Serving);
        }
        Ok(Turn::Ended)
    }

    /// Submits all entries: a seat may only be removed when none of its entries is in the submission
    /// queue. `all` runs deferred task work too, so that the reactor sees every request that the kernel
    /// has dispatched. Returns whether completions are ready.
    fn hand_over(&mut self, all: bool) -> io::Result<bool> {
        loop {
            if all {
                self.desk.ring.poll()?;
            } else {
                self.desk.ring.submit()?;
            }
            // Under memory pressure io_uring_enter submits a part of the entries, or none.
            if self.desk.ring.ready() > 0 || !self.desk.ring.has_queued() {
                return Ok(self.desk.ring.ready() > 0);
            }
        }
    }

    /// Deals with a queue whose commands the kernel refuses. A reactor that serves only this device ends
    /// with the error; a reactor of a pool reports the error, and the device is stopped.
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

    /// Removes a queue that has nothing in flight.
    fn vacate(&mut self, number: usize) -> io::Result<()> {
        let Some(mut seat) = self.seats[number].take() else { return Ok(()) };
        self.listening.retain(|&listening| usize::from(listening) != number);
        seat.leave(&mut self.desk.ring)?;
        self.take_back(seat.loan.clone())?;
        let listener = seat.take_listener();
        let refused = seat.refused;
        drop(seat);
        listener.ended(refused.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno))));
        Ok(())
    }
}
