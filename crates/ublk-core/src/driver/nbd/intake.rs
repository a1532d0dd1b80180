//! From the bytes of a client to requests of the device.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ublk_nbd::Request;
use ublk_nbd::server::limits::MAX_LENGTH;
use ublk_nbd::wire::{command, flag};
use ublk_sys::{UBLK_IO_RES_OK, ublksrv_io_desc};

use super::connection::Phase;
use super::door::Found;
use super::jobs::{Job, Piece, Source};
use super::receiving::OutOfStep;
use super::server::{MOST_REPLIES, Server, connection};
use super::tags::Part;
use super::{buffer, status};
use crate::allocation::Allocation;
use crate::aside;
use crate::driver::Completion;
use crate::tag::Tag;

impl Server {
    /// Takes what the client has sent as far as possible.
    pub(super) fn proceed(&mut self, number: u32) {
        loop {
            let connection = connection(&mut self.connections, number);
            let goes_on = match connection.phase {
                _ if connection.dead => false,
                Phase::Ended | Phase::Look(_) => false,
                Phase::Header if connection.outbox.waiting() >= MOST_REPLIES => false,
                Phase::Header => match connection.receiving.take_request(connection.headers) {
                    Ok(None) => false,
                    Ok(Some(request)) => {
                        self.begin(number, request);
                        true
                    }
                    Err(OutOfStep) => {
                        self.kill(number);
                        true
                    }
                },
                Phase::Skip(left) => {
                    let left = left - connection.receiving.skip(left);
                    connection.phase = if left > 0 { Phase::Skip(left) } else { Phase::Header };
                    left == 0
                }
                Phase::Payload { job, tag, at } => self.fill(number, (job, tag, at)),
                Phase::Issue(job) => self.issue(number, job),
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Begins a request of the client.
    pub(super) fn begin(&mut self, number: u32, request: Request) {
        let connection = connection(&mut self.connections, number);
        if request.command == command::DISC {
            connection.phase = Phase::Ended;
            return;
        }
        // The data of a longer write could keep the connection busy without end.
        let payload = u32::try_from(request.payload(connection.headers)).unwrap_or(u32::MAX);
        if payload > MAX_LENGTH {
            return self.kill(number);
        }
        let size = self.shared.size.load(Ordering::Relaxed);
        let checked = connection.limits(&self.facts, size).check(&request);
        let long = request.length > self.facts.transfer(request.offset, u64::MAX);
        let errno = match checked {
            _ if self.stopping => libc::ESHUTDOWN,
            Err(error) => error.cast_signed(),
            // One chunk is one request of the device.
            Ok(()) if long && request.command == command::READ && request.has(flag::DF) => {
                libc::EOVERFLOW
            }
            Ok(()) if request.command == command::FLUSH && !self.facts.cache => 0,
            Ok(()) => {
                let streams =
                    long && request.command == command::READ && !connection.headers.have_chunks();
                let job = self.jobs.add(Job { streams, ..Job::new(number, request) });
                connection.jobs += 1;
                connection.phase = Phase::Issue(job);
                if request.command == command::BLOCK_STATUS {
                    connection.phase = Phase::Look(job);
                    self.look(job, &request);
                }
                return;
            }
        };
        connection.answer(&request, errno);
        connection.phase = if payload > 0 { Phase::Skip(payload) } else { Phase::Header };
    }

    /// Lets another thread look for extents: the system calls may block.
    pub(super) fn look(&mut self, job: u32, request: &Request) {
        let door = Arc::clone(&self.door);
        let one = request.has(flag::REQ_ONE);
        let (offset, length) = (request.offset, request.length);
        let Some(find_one) = self.shared.find_allocation() else {
            return self.found(Found { job, extents: Ok(vec![Allocation::data(length)]) });
        };
        let started = aside::run(move || {
            let extents = status::find(&*find_one, offset, length, one);
            door.send(|mail| mail.found.push(Found { job, extents }));
        });
        if let Err(error) = started {
            self.found(Found { job, extents: Err(error) });
        }
    }

    /// Makes parts of a job, as far as there are tags. Returns whether the connection goes on.
    pub(super) fn issue(&mut self, number: u32, job: u32) -> bool {
        loop {
            let state = self.jobs.get(job);
            let connection = connection(&mut self.connections, number);
            // Before `has_more`: no other read may begin to stream until the last part has ended.
            if state.streams && state.pending > 0 {
                return false;
            }
            if !state.has_more() {
                connection.phase = Phase::Header;
                return true;
            }
            let Some(tag) = self.tags.take(connection.tags) else {
                if !connection.waits {
                    connection.waits = true;
                    self.waiting.push_back(number);
                }
                return false;
            };
            connection.tags += 1;
            let piece = state.next(&self.facts);
            match piece.source {
                Source::Client => {
                    connection.phase = Phase::Payload { job, tag, at: 0 };
                    return true;
                }
                Source::Zeroes => {
                    let place = buffer(self.tags.get(tag).address);
                    // SAFETY: the buffer of a tag without a request, as long as the longest request.
                    unsafe { place.write_bytes(0, piece.length as usize) };
                }
                Source::None => {}
            }
            self.start(tag, job, piece);
        }
    }

    /// Fills the buffer of a part of a write. Returns whether the connection goes on.
    pub(super) fn fill(&mut self, number: u32, (job, tag, at): (u32, Tag, u32)) -> bool {
        let connection = connection(&mut self.connections, number);
        if connection.receiving.in_flight {
            return false;
        }
        let piece = self.jobs.get(job).next(&self.facts);
        let place = buffer(self.tags.get(tag).address).wrapping_add(at as usize);
        // SAFETY: the buffer of a tag without a request, as long as the longest request; `at` is below
        // the length of the part.
        let at = at + unsafe { connection.receiving.move_to(place, piece.length - at) };
        connection.phase = Phase::Payload { job, tag, at };
        if at < piece.length {
            return false;
        }
        connection.phase = Phase::Issue(job);
        self.start(tag, job, piece);
        true
    }

    /// Hands a request to the code above.
    pub(super) fn start(&mut self, tag: Tag, job: u32, piece: Piece) {
        let Piece { op_flags, offset, length, .. } = piece;
        let progress = self.jobs.get(job);
        progress.pending += 1;
        if !progress.flushing {
            progress.issued += u64::from(length).max(1);
        }
        let state = self.tags.get(tag);
        state.part = Part { job, offset, length };
        self.door.area().write(
            tag,
            &ublksrv_io_desc {
                op_flags,
                nr_sectors: length >> 9,
                start_sector: offset >> 9,
                addr: state.address,
            },
        );
        self.door.in_flight.fetch_add(1, Ordering::Relaxed);
        let user_data = state.user_data;
        self.ready.push_back(Completion { user_data, result: UBLK_IO_RES_OK, flags: 0 });
    }
}
