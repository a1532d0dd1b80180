//! The replies to a client's requests.

use ublk_nbd::Request;
use ublk_nbd::server::negotiation::{ALLOCATION, Contexts, DIFF};
use ublk_nbd::server::reply::{Extent, To, error_of};
use ublk_nbd::wire::{allocation, bitmap, command};

use super::connection::Connection;
use super::jobs::Job;
use super::outbox::{Body, Reply};
use super::tags::Part;
use crate::allocation::Allocation;
use crate::tag::Tag;

impl Connection {
    /// Answers a request without data. `errno` is positive; 0: no error.
    pub(super) fn answer(&mut self, request: &Request, errno: i32) {
        let error = if errno == 0 { 0 } else { error_of(errno) };
        let header = To::request(request, self.headers).end(error);
        self.outbox.push(Reply { header: Some(header), body: Body::Empty });
    }

    /// Sends the data of a part of a read. The connection gives the tag back after the data has been sent.
    pub(super) fn answer_part(&mut self, job: &mut Job, part: &Part, tag: Tag, address: u64) {
        let Part { offset, length, .. } = *part;
        let body = Body::Tag { tag, address, length };
        let to = To::request(&job.request, self.headers);
        let last = job.is_over();
        if self.headers.have_chunks() {
            let last = last && job.errno == 0;
            job.answered |= last;
            let header = Some(to.data(last, offset, length));
            return self.outbox.push(Reply { header, body });
        }
        let header = (!job.answered).then(|| to.end(0));
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
            self.answer(&job.request, job.errno);
        }
        true
    }

    /// Answers a `BLOCK_STATUS`: a chunk for each chosen context.
    pub(super) fn answer_status(&mut self, request: &Request, extents: &[Allocation]) {
        let Contexts { allocation, diff } = self.contexts;
        let to = To::request(request, self.headers);
        if allocation {
            self.push_status(to, ALLOCATION, !diff, extents, |extent| {
                let hole = if extent.hole { allocation::HOLE } else { 0 };
                hole | if extent.zero { allocation::ZERO } else { 0 }
            });
        }
        if diff {
            self.push_status(to, DIFF, true, extents, |extent| {
                if extent.changed { bitmap::DIRTY } else { 0 }
            });
        }
    }

    /// Sends a chunk of extents. Adjoining extents with the same `flags` become one extent.
    fn push_status(
        &mut self,
        to: To,
        context: u32,
        last: bool,
        extents: &[Allocation],
        flags: impl Fn(&Allocation) -> u32,
    ) {
        let mut told: Vec<Extent> = Vec::new();
        for extent in extents {
            match told.last_mut() {
                Some((sum, state)) if *state == flags(extent) => *sum += extent.length,
                _ => told.push((extent.length, flags(extent))),
            }
        }
        let (header, bytes) = to.status(last, context, &told);
        self.outbox.push(Reply { header: Some(header), body: Body::Bytes(bytes) });
    }
}
