//! Operations that wait: for a descriptor, or for a time.

use std::os::fd::RawFd;
use std::time::Duration;

use crate::driver::sim::config::Waiting;
use crate::driver::sim::model::Model;
use crate::driver::sim::storage::files::FileRef;
use crate::driver::sim::storage::io::read_stream;
use crate::driver::sim::storage::memory;
use crate::driver::sim::uring::ring::Work;
use crate::driver::sim::uring::sockets;
use crate::driver::sim::uring::sqe::{OP_POLL_ADD, OP_TIMEOUT, Sqe};

const POLL_MULTISHOT: u32 = 1;
const CQE_F_MORE: u32 = 2;
/// IORING_TIMEOUT_ETIME_SUCCESS.
const ETIME_IS_SUCCESS: u32 = 1 << 5;
/// IORING_TIMEOUT_ABS and the clocks other than CLOCK_MONOTONIC.
const UNKNOWN_TIMEOUT_FLAGS: u32 = !ETIME_IS_SUCCESS;

impl Model {
    pub(crate) fn set_deadline(&mut self, ring: usize, operation: usize) {
        let sqe = self.ring(ring).ops[operation].sqe;
        if sqe.op_flags & UNKNOWN_TIMEOUT_FLAGS != 0 || sqe.off != 0 {
            let what = format!("the model does not know {sqe:?}");
            self.violate(crate::driver::sim::violation::Rule::Operation, what);
        }
        let mut time = [0_u8; 16];
        memory::load(sqe.addr, &mut time);
        let half = |at: usize| u64::from_ne_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| time[at + i]));
        let nanoseconds = u32::try_from(half(8)).unwrap_or(0);
        let wait = Duration::new(half(0), nanoseconds);
        let deadline = self.now() + wait / self.config.kernel.speed;
        self.ring(ring).ops[operation].deadline = Some(deadline);
    }

    /// The time since the beginning. Where the model is stepped, a move takes a microsecond, and the seed
    /// decides which of two timeouts ends first.
    pub(crate) fn now(&self) -> Duration {
        match self.config.waiting {
            Waiting::Stepping => self.slept + Duration::from_micros(self.moves),
            Waiting::Blocking => self.since.elapsed(),
        }
    }

    /// The operations whose descriptor is ready.
    pub(crate) fn ready_waits(&mut self, ring: usize) -> Vec<usize> {
        let uring = self.ring(ring);
        let ready = |operation: &usize| {
            let op = &uring.ops[*operation];
            match op.file.as_ref().and_then(FileRef::real) {
                Some(fd) if op.sqe.opcode == OP_POLL_ADD => poll(fd, op.sqe.op_flags) != 0,
                Some(fd) => poll(fd, sockets::awaited(op.sqe.opcode)) != 0,
                None => op.sqe.opcode == OP_POLL_ADD,
            }
        };
        uring.waits.iter().copied().filter(ready).collect()
    }

    /// Completes a wait whose descriptor is ready.
    pub(crate) fn end_wait(&mut self, ring: usize, operation: usize) {
        let op = &self.ring(ring).ops[operation];
        let (sqe, fd) = (op.sqe, op.file.as_ref().and_then(FileRef::real));
        if sqe.opcode == OP_POLL_ADD {
            let events = fd.map_or(sqe.op_flags & 0xffff, |fd| poll(fd, sqe.op_flags));
            let events = i32::try_from(events).unwrap_or(0);
            if sqe.len & POLL_MULTISHOT != 0 {
                // Wake-ups come with each write, whether or not the server has read since. The model
                // does not see writes, so it takes what was written: nobody else needs it.
                fd.map(|fd| read_stream(fd, 8));
                self.post(ring, sqe.user_data, events, CQE_F_MORE);
                return;
            }
            self.remove_wait(ring, operation);
            self.finish(ring, operation, events);
            return;
        }
        if sqe.is_of_socket() {
            if let Some(result) = fd.map_or(Some(-libc::EBADF), |fd| self.move_on_socket(&sqe, fd))
            {
                self.remove_wait(ring, operation);
                self.finish(ring, operation, result);
            }
            return;
        }
        self.remove_wait(ring, operation);
        let bytes = fd.map_or(Err(libc::EBADF), |fd| read_stream(fd, sqe.len));
        let result = match bytes {
            Ok(bytes) => {
                memory::store(sqe.addr, &bytes);
                i32::try_from(bytes.len()).unwrap_or(0)
            }
            Err(errno) => -errno,
        };
        self.finish(ring, operation, result);
    }

    /// The timeout that ends first, if it has come or if nothing else will.
    pub(crate) fn next_timeout(&mut self, ring: usize, anyway: bool) -> Option<usize> {
        let now = self.now();
        let uring = self.ring(ring);
        let timed = uring.waits.iter().filter(|&&op| uring.ops[op].sqe.opcode == OP_TIMEOUT);
        let first = timed.min_by_key(|&&op| uring.ops[op].deadline).copied()?;
        let due = uring.ops[first].deadline.is_none_or(|at| at <= now);
        (due || anyway).then_some(first)
    }

    pub(crate) fn expire(&mut self, ring: usize, operation: usize) {
        let deadline = self.ring(ring).ops[operation].deadline.unwrap_or_default();
        // Where no clock runs, the time comes because nothing else is left to happen.
        self.slept += deadline.saturating_sub(self.now());
        self.remove_wait(ring, operation);
        let uring = self.ring(ring);
        for &busy in uring.in_flight.iter().chain(&uring.workers) {
            uring.ops[busy].cancelled_in_vain = false;
        }
        if self.ring(ring).ops[operation].sqe.op_flags & ETIME_IS_SUCCESS != 0 {
            self.settle(
                ring,
                operation,
                &crate::driver::sim::uring::ops::Issued::Quiet(-libc::ETIME),
            );
        } else {
            self.ring(ring).work.push_back(Work::Complete(operation, -libc::ETIME));
        }
    }

    fn remove_wait(&mut self, ring: usize, operation: usize) {
        self.ring(ring).waits.retain(|&waiting| waiting != operation);
    }
}

/// io_poll_add: the answer to a poll of a descriptor that is ready when it is asked about.
pub(crate) fn ready_now(sqe: &Sqe, fd: RawFd) -> Option<i32> {
    let events = poll(fd, sqe.op_flags);
    (sqe.len & POLL_MULTISHOT == 0 && events != 0).then(|| i32::try_from(events).unwrap_or(0))
}

/// What of `events` a descriptor is ready for, now.
fn poll(fd: RawFd, events: u32) -> u32 {
    let events = i16::from_ne_bytes([events.to_ne_bytes()[0], events.to_ne_bytes()[1]]);
    let mut poll = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: one struct of ours; a timeout of 0 does not wait.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    if ready > 0 { u32::from(poll.revents.cast_unsigned()) } else { 0 }
}
