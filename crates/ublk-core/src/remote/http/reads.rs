//! The reads of the sessions, each on a thread for work that may block.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::Http;
use super::client::Failure;
use crate::aside;
use crate::remote::ends::Ends;
use crate::remote::{Job, Ticket};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The end of a job: the number of bytes, or a negative errno.
pub(super) type End = (Ticket, i32);

/// A job with the way back to its session.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) job: Job,
    pub(super) ends: Arc<Ends<End>>,
}

// SAFETY: the job's memory stays until the session has answered the job, and until then nobody but the thread
// that has the read writes there.
unsafe impl Send for Read {}

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
            for Read { job, ends } in reads.waiting.drain(..) {
                ends.tell((job.ticket, -libc::EAGAIN));
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
            // A panic of a library must not leave the request without an answer.
            let fetch = AssertUnwindSafe(|| self.fetch(&read.job, &mut bytes));
            let result = catch_unwind(fetch).unwrap_or(-libc::EIO);
            read.ends.tell((read.job.ticket, result));
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
