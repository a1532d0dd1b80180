//! The reads of the sessions, each on a thread for work that may block.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{io, mem, thread};

use super::Http;
use super::client::Failure;
use crate::aside;
use crate::bell::Bell;
use crate::remote::{Job, Ticket};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A job with the way back to its session.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) job: Job,
    pub(super) line: Arc<Line>,
}

// SAFETY: the job's memory stays until the session has answered the job, and until then nobody but the thread
// that has the read writes there.
unsafe impl Send for Read {}

/// From the threads to a session.
#[derive(Debug)]
pub(super) struct Line {
    bell: Bell,
    ends: Mutex<Vec<(Ticket, i32)>>,
}

impl Line {
    pub(super) fn new(capacity: usize) -> io::Result<Arc<Self>> {
        let ends = Mutex::new(Vec::with_capacity(capacity));
        Ok(Arc::new(Self { bell: Bell::new()?, ends }))
    }

    pub(super) fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Silences the bell, and exchanges the list of ends for an empty list.
    pub(super) fn take(&self, empty: &mut Vec<(Ticket, i32)>) {
        self.bell.silence();
        mem::swap(&mut *self.ends.lock().unwrap_or_else(PoisonError::into_inner), empty);
    }

    fn tell(&self, ticket: Ticket, result: i32) {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.push((ticket, result));
        // The bell rings already for the ends before.
        if ends.len() == 1 {
            self.bell.ring();
        }
    }
}

impl Http {
    /// Lets a thread do the read, as soon as fewer than all connections are in use.
    pub(super) fn submit(self: &Arc<Self>, read: Read) {
        let mut reads = self.lock();
        reads.waiting.push_back(read);
        if reads.threads == self.options.connections {
            return;
        }
        let this = Arc::clone(self);
        if aside::run(move || this.work()).is_ok() {
            reads.threads += 1;
        } else if reads.threads == 0 {
            // Nobody would ever take the reads.
            for Read { job, line } in reads.waiting.drain(..) {
                line.tell(job.ticket, -libc::EAGAIN);
            }
        }
    }

    /// Does reads until none waits.
    fn work(&self) {
        let mut bytes = Vec::new();
        loop {
            let read = {
                let mut reads = self.lock();
                match reads.waiting.pop_front() {
                    Some(read) => read,
                    None => {
                        reads.threads -= 1;
                        return;
                    }
                }
            };
            let result = self.fetch(&read.job, &mut bytes);
            read.line.tell(read.job.ticket, result);
        }
    }

    /// Reads a job's bytes, trying again what may pass; the number of bytes, or a negative errno.
    pub(super) fn fetch(&self, job: &Job, bytes: &mut Vec<u8>) -> i32 {
        let deadline = Instant::now() + self.options.retry_timeout;
        let mut pause = FIRST_PAUSE;
        loop {
            let failure = match self.client.read((job.offset, job.length), &self.version, bytes) {
                Ok(()) => {
                    // SAFETY: the job's memory has room for its length, which is the number of bytes (`read`);
                    // nobody else uses the memory before the answer.
                    unsafe { job.memory.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
                    return i32::try_from(job.length).unwrap_or(i32::MAX);
                }
                Err(failure) => failure,
            };
            let wait = failure.pause().unwrap_or(pause).max(pause);
            if !failure.may_pass() || Instant::now() + wait >= deadline {
                return match failure {
                    Failure::Changed => -libc::ESTALE,
                    _ => -libc::EIO,
                };
            }
            thread::sleep(wait);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}
