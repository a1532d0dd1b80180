//! The replies to a client's requests.

use ublk_nbd::server::negotiation::{ALLOCATION, Contexts, DIFF};
use ublk_nbd::server::reply::{self, error_of};
use ublk_nbd::wire::{allocation, bitmap, command};

use super::connection::Connection;
use super::jobs::Job;
use super::outbox::{Body, Reply};
use super::tags::Part;
use crate::allocation::Allocation;
use crate::tag::Tag;

impl Connection {
    /// Answers a request without data. `errno` is positive; 0: no error.
    pub(super) fn answer(&mut self, cookie: u64, errno: i32) {
        let error = if errno == 0 { 0 } else { error_of(errno) };
        let header = match (self.structured, error) {
            (false, error) => reply::simple(cookie, error),
            (true, 0) => reply::done(cookie),
            (true, error) => reply::failed(cookie, error),
        };
        self.outbox.push(Reply { header: Some(header), body: Body::Empty });
    }

    /// Sends the data of a part of a read. The connection gives the tag back after the data has been sent.
    pub(super) fn answer_part(&mut self, job: &mut Job, part: &Part, tag: Tag, address: u64) {
        let Part { offset, length, .. } = *part;
        let body = Body::Tag { tag, address, length };
        let cookie = job.request.cookie;
        let last = job.is_over();
        if self.structured {
            let last = last && job.errno == 0;
            job.answered |= last;
            let header = Some(reply::data(cookie, last, offset, length));
            return self.outbox.push(Reply { header, body });
        }
        let header = (!job.answered).then(|| reply::simple(cookie, 0));
        job.answered = true;
        let reply = Reply { header, body };
        if job.streams { self.outbox.push_part(reply, last) } else { self.outbox.push(reply) }
    }

    /// Answers a job whose parts have ended, unless the reply is complete. Returns false where no
    /// answer is possible: the header of a simple reply has announced data, and a later part failed.
    pub(super) fn conclude(&mut self, job: &Job) -> bool {
        let complete = job.answered && job.errno == 0;
        if !complete && job.answered {
            return false;
        }
        let silent = complete || job.request.command == command::BLOCK_STATUS && job.errno == 0;
        if !silent {
            self.answer(job.request.cookie, job.errno);
        }
        true
    }

    /// Answers a `BLOCK_STATUS`: a chunk for each chosen context.
    pub(super) fn answer_status(&mut self, cookie: u64, extents: &[Allocation]) {
        let Contexts { allocation, diff } = self.contexts;
        if allocation {
            self.push_status(cookie, ALLOCATION, !diff, extents, |extent| {
                let hole = if extent.hole { allocation::HOLE } else { 0 };
                hole | if extent.zero { allocation::ZERO } else { 0 }
            });
        }
        if diff {
            self.push_status(cookie, DIFF, true, extents, |extent| {
                if extent.changed { bitmap::DIRTY } else { 0 }
            });
        }
    }

    /// Sends a chunk of extents. Adjoining extents with the same `flags` become one extent.
    fn push_status(
        &mut self,
        cookie: u64,
        context: u32,
        last: bool,
        extents: &[Allocation],
        flags: impl Fn(&Allocation) -> u32,
    ) {
        let mut told: Vec<(u32, u32)> = Vec::new();
        for extent in extents {
            // Fits: all extents together are within a request.
            let length = u32::try_from(extent.length).unwrap_or_default();
            match told.last_mut() {
                Some((sum, state)) if *state == flags(extent) => *sum += length,
                _ => told.push((length, flags(extent))),
            }
        }
        let count = u32::try_from(told.len()).unwrap_or_default();
        let words = told.iter().flat_map(|(length, state)| [length, state]);
        let bytes = words.flat_map(|word| word.to_be_bytes()).collect();
        let header = Some(reply::status(cookie, last, context, count));
        self.outbox.push(Reply { header, body: Body::Bytes(bytes) });
    }
}
