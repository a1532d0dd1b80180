//! Sends requests: all that have begun in a pass together, headers and data in one entry.

use std::ptr;
use std::sync::Arc;

use io_uring::opcode;
use io_uring::squeue::Entry;
use io_uring::types::Fd;
use ublk_nbd::wire::{command, flag, length};
use ublk_nbd::{Headers, Request};

use super::socket::Socket;
use super::table::{Stage, Table};
use crate::memory::Region;
use crate::remote::Job;
use crate::targets::StepKind;

/// The most pieces of memory in an entry: the kernel takes 1024.
const MOST_PIECES: usize = 256;

/// The requests that an entry sends.
pub(super) struct Sending {
    /// Where the headers are, one behind another, in `memory`.
    memory: Arc<Region>,
    headers: usize,
    /// The memory to be sent, of which `from..count` is left.
    pieces: Box<[libc::iovec; MOST_PIECES]>,
    from: usize,
    count: usize,
    message: Box<libc::msghdr>,
    /// The jobs.
    batch: Vec<u16>,
    /// An entry is in flight.
    pub(super) in_flight: bool,
}

impl std::fmt::Debug for Sending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sending").field("batch", &self.batch).finish_non_exhaustive()
    }
}

impl Sending {
    /// How much memory headers of so many jobs need.
    pub(super) fn room(capacity: usize) -> usize {
        length::EXTENDED_REQUEST * capacity
    }

    /// Uses `memory` from `headers` on.
    pub(super) fn new(memory: Arc<Region>, headers: usize, capacity: usize) -> Self {
        let nothing = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        Self {
            memory,
            headers,
            pieces: Box::new([nothing; MOST_PIECES]),
            from: 0,
            count: 0,
            // SAFETY: all zeros is a message of nothing.
            message: Box::new(unsafe { std::mem::zeroed() }),
            batch: Vec::with_capacity(capacity),
            in_flight: false,
        }
    }

    /// Gathers the waiting requests, with these headers, unless some of the last ones are left.
    pub(super) fn gather(&mut self, table: &mut Table, headers: Headers) {
        if self.from < self.count {
            return;
        }
        (self.from, self.count) = (0, 0);
        self.batch.clear();
        // A request adds two pieces at most.
        while self.count + 2 <= MOST_PIECES {
            let Some((number, cookie, job)) = table.next() else { break };
            let request = request(&job, cookie);
            match headers {
                Headers::Simple | Headers::Structured => self.put(request.encode()),
                Headers::Extended => self.put(extended(request).encode_extended()),
            }
            if let StepKind::Write { .. } = job.kind {
                self.add(job.memory, job.length as usize);
            }
            self.batch.push(number);
        }
    }

    /// Adds the header of the batch's next request.
    fn put<const N: usize>(&mut self, header: [u8; N]) {
        let at = self.headers + self.batch.len() * N;
        assert!(at + N <= self.memory.size());
        let place = self.memory.base().wrapping_add(at);
        // SAFETY: inside the region, just checked; the kernel reads the memory only while an entry is in flight.
        unsafe { ptr::copy_nonoverlapping(header.as_ptr(), place, N) };
        self.add(place, N);
    }

    fn add(&mut self, place: *mut u8, length: usize) {
        if let Some(last) = self.count.checked_sub(1).map(|last| &mut self.pieces[last])
            && last.iov_base.cast::<u8>().wrapping_add(last.iov_len) == place
        {
            last.iov_len += length;
            return;
        }
        self.pieces[self.count] = libc::iovec { iov_base: place.cast(), iov_len: length };
        self.count += 1;
    }

    /// The entry that sends what is left; none if there is nothing. The memory named by the entry is
    /// the session's, and the jobs'.
    pub(super) fn entry(&mut self, socket: &Socket) -> Option<Entry> {
        let flags = socket.send_flags();
        let pieces = &mut self.pieces[self.from..self.count];
        match pieces {
            [] => None,
            [piece] => {
                let length = u32::try_from(piece.iov_len).unwrap_or(u32::MAX);
                let send = opcode::Send::new(Fd(socket.fd()), piece.iov_base.cast(), length);
                Some(send.flags(flags).build())
            }
            _ => {
                self.message.msg_iov = pieces.as_mut_ptr();
                #[allow(clippy::cast_possible_truncation, reason = "1,024 at most")]
                #[allow(clippy::unnecessary_cast, reason = "the type differs between C libraries")]
                {
                    self.message.msg_iovlen = pieces.len() as _;
                }
                let send = opcode::SendMsg::new(Fd(socket.fd()), &raw const *self.message);
                Some(send.flags(flags.cast_unsigned()).build())
            }
        }
    }

    /// The entry has sent `bytes`. Jobs whose replies have ended before are given to `ended`, with the
    /// result, once all is sent.
    pub(super) fn sent(
        &mut self,
        bytes: u32,
        table: &mut Table,
        mut ended: impl FnMut(&mut Table, u16, i32),
    ) {
        let mut bytes = bytes as usize;
        while bytes > 0 && self.from < self.count {
            let piece = &mut self.pieces[self.from];
            let part = bytes.min(piece.iov_len);
            piece.iov_base = piece.iov_base.cast::<u8>().wrapping_add(part).cast();
            piece.iov_len -= part;
            bytes -= part;
            if piece.iov_len == 0 {
                self.from += 1;
            }
        }
        if self.from < self.count {
            return;
        }
        for number in self.batch.drain(..) {
            let slot = table.slot(number);
            slot.stage = Stage::Sent;
            if let Some(result) = slot.early.take() {
                ended(table, number, result);
            }
        }
    }

    /// Forgets everything: the connection is lost, and no entry is in flight.
    pub(super) fn forget(&mut self) {
        (self.from, self.count) = (0, 0);
        self.batch.clear();
    }
}

fn request(job: &Job, cookie: u64) -> Request {
    let (command, flags) = match job.kind {
        StepKind::Read => (command::READ, 0),
        StepKind::Write { dsync: false } => (command::WRITE, 0),
        StepKind::Write { dsync: true } => (command::WRITE, flag::FUA),
        StepKind::PunchHole => (command::WRITE_ZEROES, 0),
        StepKind::ZeroRange => (command::WRITE_ZEROES, flag::NO_HOLE),
        StepKind::Discard => (command::TRIM, 0),
        StepKind::Sync => (command::FLUSH, 0),
        other => unreachable!("not a step on an export: {other:?}"),
    };
    // Of a flush both must be 0.
    let length = if command == command::FLUSH { 0 } else { job.length.into() };
    let offset = request_offset(job);
    Request { flags, command, cookie, offset, length }
}

/// The offset of a job's request.
pub(super) fn request_offset(job: &Job) -> u64 {
    if job.kind == StepKind::Sync { 0 } else { job.offset }
}

/// The request with an extended header.
fn extended(request: Request) -> Request {
    let payload = if request.command == command::WRITE { flag::PAYLOAD_LEN } else { 0 };
    Request { flags: request.flags | payload, ..request }
}
