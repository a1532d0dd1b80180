//! The ends of operations that other threads do for a session.
//!
//! A thread [tells](Ends::tell) an end and, unless earlier ends wait to be heard, rings a bell. The session has
//! one entry on the reactor's ring, a poll of the bell ([`Hearing`]), so one system call wakes the session for all
//! ends that have come meanwhile.

use std::io;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use io_uring::opcode;
use io_uring::types::Fd;

use super::Entries;
use crate::bell::Bell;

/// The number of the session's only entry.
const BELL: u8 = 0;

/// Ends that the session has not heard.
#[derive(Debug)]
pub(super) struct Ends<T> {
    bell: Bell,
    told: Mutex<Vec<T>>,
}

impl<T> Ends<T> {
    /// Room for so many operations at a time.
    pub(super) fn new(capacity: usize) -> io::Result<Self> {
        Ok(Self { bell: Bell::new()?, told: Mutex::new(Vec::with_capacity(capacity)) })
    }

    pub(super) fn tell(&self, end: T) {
        let first = {
            let mut told = self.lock();
            told.push(end);
            told.len() == 1
        };
        if first {
            self.bell.ring();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<T>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The session's side.
#[derive(Debug)]
pub(super) struct Hearing<T> {
    /// Empty; exchanged with the told ends.
    spare: Vec<T>,
    /// A poll of the bell is in flight.
    polls: bool,
    closing: bool,
}

impl<T> Hearing<T> {
    /// Room for so many operations at a time.
    pub(super) fn new(capacity: usize) -> Self {
        Self { spare: Vec::with_capacity(capacity), polls: false, closing: false }
    }

    /// Polls the bell, unless a poll is in flight or the session closes.
    pub(super) fn push(&mut self, ends: &Ends<T>, entries: &mut dyn Entries) -> io::Result<()> {
        if !self.polls && !self.closing {
            let events = u32::from(libc::POLLIN.cast_unsigned());
            let entry = opcode::PollAdd::new(Fd(ends.bell.fd()), events).build();
            // SAFETY: names no memory.
            unsafe { entries.push(entry, BELL)? };
            self.polls = true;
        }
        Ok(())
    }

    /// The poll has completed; returns what was told, for [`heard`](Self::heard) afterwards.
    pub(super) fn hear(&mut self, ends: &Ends<T>) -> Vec<T> {
        self.polls = false;
        ends.bell.silence();
        mem::replace(&mut *ends.lock(), mem::take(&mut self.spare))
    }

    /// Keeps the memory of a list for the next time.
    pub(super) fn heard(&mut self, mut told: Vec<T>) {
        told.clear();
        self.spare = told;
    }

    /// Lets the poll complete, for good. May be repeated.
    pub(super) fn close(&mut self, ends: &Ends<T>) {
        if !mem::replace(&mut self.closing, true) {
            ends.bell.ring();
        }
    }

    /// Whether no poll is in flight.
    pub(super) fn is_idle(&self) -> bool {
        !self.polls
    }
}
