//! Receives replies: much at once into a buffer; the rest of a read's data straight into its place.

use std::ptr;
use std::sync::Arc;

use io_uring::opcode;
use io_uring::squeue::Entry;
use io_uring::types::Fd;
use ublk_nbd::Headers;
use ublk_nbd::client::{CoverError, Header, errno};
use ublk_nbd::wire::{chunk, error};

use super::sending::request_offset;
use super::socket::Socket;
use super::table::Table;
use crate::memory::Region;
use crate::remote::Job;
use crate::targets::StepKind;

/// The size of the buffer.
pub(super) const BUFFER: usize = 256 << 10;
/// Data of which so much is missing is received without the buffer. For less, the next replies come along.
const LONG: u32 = 32 << 10;
/// The most data that an entry waits for: a slow connection shows that it lives.
const MOST_AT_ONCE: u32 = 1 << 20;
/// `IORING_RECVSEND_POLL_FIRST` (Linux 5.19): waits before the first attempt.
const RECVSEND_POLL_FIRST: u16 = 1;
/// The longest chunk with an error: the error, a message of at most 4096 bytes, an offset.
const MOST_OF_ERROR: u32 = 4 + 2 + 4096 + 8;

/// Why a connection cannot go on.
pub(super) type Broken = &'static str;

/// What the next bytes are.
#[derive(Clone, Copy, Debug)]
enum Expected {
    Header,
    /// Data of a read. `last`: the reply ends with the data.
    Data {
        number: u16,
        at: u32,
        left: u32,
        last: bool,
    },
    /// What follows the header of a chunk, all of it, or before data only the offset.
    Chunk {
        number: u16,
        kind: u16,
        length: u32,
        last: bool,
    },
}

/// The bytes received, and what they mean.
#[derive(Debug)]
pub(super) struct Receiving {
    /// The buffer is the first [`BUFFER`] bytes of this.
    memory: Arc<Region>,
    begin: usize,
    end: usize,
    expected: Expected,
    /// Of replies.
    headers: Headers,
    /// An entry is in flight.
    pub(super) in_flight: bool,
    /// The last entry has taken all bytes that had come.
    drained: bool,
}

impl Receiving {
    pub(super) fn new(memory: Arc<Region>) -> Self {
        assert!(memory.size() >= BUFFER);
        Self {
            memory,
            begin: 0,
            end: 0,
            expected: Expected::Header,
            headers: Headers::Simple,
            in_flight: false,
            drained: true,
        }
    }

    /// The replies of the next connection have these headers.
    pub(super) fn agree(&mut self, headers: Headers) {
        self.headers = headers;
    }

    /// Forgets everything: the connection is lost, and no entry is in flight.
    pub(super) fn forget(&mut self) {
        (self.begin, self.end, self.expected) = (0, 0, Expected::Header);
        self.drained = true;
    }

    /// The place of a read's data, and how much to wait for, where the next bytes are enough of it. The
    /// buffer is empty then.
    fn long(&self, table: &mut Table) -> Option<(*mut u8, u32)> {
        match self.expected {
            Expected::Data { number, at, left, .. } if left >= LONG => Some((
                table.slot(number).job.memory.wrapping_add(at as usize),
                left.min(MOST_AT_ONCE),
            )),
            _ => None,
        }
    }

    /// The entry that receives more, into memory of the session or of a job.
    pub(super) fn entry(&mut self, socket: &Socket, table: &mut Table) -> Entry {
        let fd = Fd(socket.fd());
        if let Some((place, length)) = self.long(table) {
            return opcode::Recv::new(fd, place, length).flags(libc::MSG_WAITALL).build();
        }
        let kept = self.end - self.begin;
        if self.begin > 0 {
            // SAFETY: both inside the buffer, which no entry in flight names.
            unsafe {
                let base = self.memory.base();
                ptr::copy(base.wrapping_add(self.begin), base, kept);
            }
            (self.begin, self.end) = (0, kept);
        }
        let room = u32::try_from(BUFFER - kept).unwrap_or(u32::MAX);
        let recv = opcode::Recv::new(fd, self.memory.base().wrapping_add(kept), room);
        // Where nothing is there, an attempt would be in vain.
        recv.ioprio(if self.drained { RECVSEND_POLL_FIRST } else { 0 }).build()
    }

    /// The entry has received `count` bytes. Jobs with a whole reply are given to `ended`, with the
    /// result.
    pub(super) fn received(
        &mut self,
        count: u32,
        table: &mut Table,
        ended: &mut dyn FnMut(&mut Table, u16, i32),
    ) -> Result<(), Broken> {
        if self.long(table).is_some() {
            self.drained = false;
            self.move_on(count, table, ended);
            return Ok(());
        }
        self.end += count as usize;
        assert!(self.end <= BUFFER);
        self.drained = self.end < BUFFER;
        while self.take(table, ended)? {}
        Ok(())
    }

    /// `count` bytes of data have reached their place.
    fn move_on(
        &mut self,
        count: u32,
        table: &mut Table,
        ended: &mut dyn FnMut(&mut Table, u16, i32),
    ) {
        let Expected::Data { number, at, left, last } = self.expected else { return };
        if count < left {
            let (at, left) = (at + count, left - count);
            self.expected = Expected::Data { number, at, left, last };
            return;
        }
        self.expected = Expected::Header;
        if last {
            end(table, number, ended);
        }
    }

    fn buffered(&self) -> &[u8] {
        // SAFETY: inside the buffer, initialised when mapped; no entry in flight names the buffer.
        unsafe {
            let begin = self.memory.base().cast_const().wrapping_add(self.begin);
            std::slice::from_raw_parts(begin, self.end - self.begin)
        }
    }

    /// Takes the next part of a reply out of the buffer; false: there is not enough.
    fn take(
        &mut self,
        table: &mut Table,
        ended: &mut dyn FnMut(&mut Table, u16, i32),
    ) -> Result<bool, Broken> {
        match self.expected {
            Expected::Header => {
                let Some((header, length)) = Header::parse(self.buffered())? else {
                    return Ok(false);
                };
                self.begin += length;
                self.begin_reply(header, table, ended)?;
                Ok(true)
            }
            Expected::Data { number, at, left, .. } => {
                let there = u32::try_from(self.buffered().len()).unwrap_or(u32::MAX).min(left);
                let place = table.slot(number).job.memory.wrapping_add(at as usize);
                // SAFETY: inside the job's memory: `begin_reply` and `take_chunk` have checked the
                // range. The job has no answer yet, so its memory is valid.
                unsafe {
                    ptr::copy_nonoverlapping(self.buffered().as_ptr(), place, there as usize);
                }
                self.begin += there as usize;
                self.move_on(there, table, ended);
                Ok(there == left)
            }
            Expected::Chunk { number, kind, length, last } => {
                let needed = if kind == chunk::OFFSET_DATA { 8 } else { length as usize };
                if self.buffered().len() < needed {
                    return Ok(false);
                }
                self.expected = Expected::Header;
                let bytes = &self.buffered()[..needed];
                let data = take_chunk((kind, length), bytes, number, table)?;
                self.begin += needed;
                if let Some((at, left)) = data {
                    self.expected = Expected::Data { number, at, left, last };
                } else if last {
                    end(table, number, ended);
                }
                Ok(true)
            }
        }
    }

    fn begin_reply(
        &mut self,
        header: Header,
        table: &mut Table,
        ended: &mut dyn FnMut(&mut Table, u16, i32),
    ) -> Result<(), Broken> {
        match (header, self.headers) {
            (Header::Simple { error, cookie }, Headers::Simple | Headers::Structured) => {
                self.begin_simple(error, cookie, table, ended)
            }
            (Header::Chunk { flags, kind, cookie, length }, Headers::Structured) => {
                self.begin_chunk((flags, kind, length), find(table, cookie)?, table)
            }
            (Header::Extended { flags, kind, cookie, offset, length }, Headers::Extended) => {
                let number = find(table, cookie)?;
                if offset != request_offset(&table.slot(number).job) {
                    return Err("a reply with the offset of another request");
                }
                self.begin_chunk((flags, kind, length), number, table)
            }
            _ => Err("a reply with headers that were not agreed on"),
        }
    }

    fn begin_simple(
        &mut self,
        error: u32,
        cookie: u64,
        table: &mut Table,
        ended: &mut dyn FnMut(&mut Table, u16, i32),
    ) -> Result<(), Broken> {
        let number = find(table, cookie)?;
        let slot = table.slot(number);
        let (left, reads) = (slot.job.length, slot.job.kind == StepKind::Read);
        if error != 0 {
            fail(&mut slot.errno, error)?;
        } else if reads && self.headers == Headers::Structured {
            return Err("a simple reply to a read, after structured replies were agreed on");
        } else if reads && left > 0 {
            // One piece, nothing before: cannot fail.
            let _whole = slot.cover.add(0..left);
            self.expected = Expected::Data { number, at: 0, left, last: true };
            return Ok(());
        }
        end(table, number, ended);
        Ok(())
    }

    fn begin_chunk(
        &mut self,
        (flags, kind, length): (u16, u16, u32),
        number: u16,
        table: &mut Table,
    ) -> Result<(), Broken> {
        let last = flags & chunk::DONE != 0;
        check_chunk(&table.slot(number).job, kind, length, last)?;
        self.expected = Expected::Chunk { number, kind, length, last };
        Ok(())
    }
}

/// The job that a reply is for.
fn find(table: &mut Table, cookie: u64) -> Result<u16, Broken> {
    table.find(cookie).ok_or("a reply to no request")
}

/// Refuses chunks that fit no reply, before anything of them is waited for.
fn check_chunk(job: &Job, kind: u16, length: u32, last: bool) -> Result<(), Broken> {
    let reads = job.kind == StepKind::Read;
    match kind {
        chunk::NONE if length == 0 && last => Ok(()),
        // Longer than the read: its offset would be outside, too.
        chunk::OFFSET_DATA if reads && length > 8 && length - 8 <= job.length => Ok(()),
        chunk::OFFSET_HOLE if reads && length == 12 => Ok(()),
        _ if kind & chunk::ERROR_BIT != 0 && (6..=MOST_OF_ERROR).contains(&length) => Ok(()),
        _ => Err("a chunk that fits no reply"),
    }
}

/// Takes what follows the header of a chunk; returns the place and the length of the data that come
/// next.
fn take_chunk(
    (kind, length): (u16, u32),
    bytes: &[u8],
    number: u16,
    table: &mut Table,
) -> Result<Option<(u32, u32)>, Broken> {
    let slot = table.slot(number);
    let be32 = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|byte| bytes[at + byte]));
    match kind {
        chunk::OFFSET_DATA | chunk::OFFSET_HOLE => {
            let offset = u64::from(be32(0)) << 32 | u64::from(be32(4));
            let hole = kind == chunk::OFFSET_HOLE;
            let count = if hole { be32(8) } else { length - 8 };
            let outside = "a chunk outside of the read";
            let at = offset.checked_sub(slot.job.offset).ok_or(outside)?;
            let at = u32::try_from(at).map_err(|_| outside)?;
            let range = at..at.checked_add(count).ok_or(outside)?;
            if range.end > slot.job.length {
                return Err(outside);
            }
            match slot.cover.add(range) {
                Ok(()) => {}
                Err(CoverError::Twice) => return Err("a byte of a read twice"),
                // Nothing is wrong but our memory is short: the read fails.
                Err(CoverError::Scattered) => slot.errno = libc::EIO,
            }
            if !hole {
                return Ok(Some((at, count)));
            }
            // SAFETY: inside the job's memory, just checked; the job has no answer yet.
            unsafe {
                ptr::write_bytes(slot.job.memory.wrapping_add(at as usize), 0, count as usize);
            };
            Ok(None)
        }
        chunk::NONE => Ok(None),
        // Errors, also those unknown here.
        _ => match be32(0) {
            0 => Err("an error without a number"),
            error => fail(&mut slot.errno, error).map(|()| None),
        },
    }
}

/// Notes an error of the server. A server that is ending breaks the connection: the requests go to the
/// next one.
fn fail(errno_of_job: &mut i32, number: u32) -> Result<(), Broken> {
    if number == error::ESHUTDOWN {
        return Err("the server is ending");
    }
    if *errno_of_job == 0 {
        *errno_of_job = match errno(number) {
            // To the block layer the number has another meaning: too many zones.
            libc::EOVERFLOW => libc::EIO,
            errno => errno,
        };
    }
    Ok(())
}

/// The reply has ended.
fn end(table: &mut Table, number: u16, ended: &mut dyn FnMut(&mut Table, u16, i32)) {
    let slot = table.slot(number);
    let length = slot.job.length;
    let result = match slot.errno {
        0 if slot.job.kind == StepKind::Read && !slot.cover.is_whole(length) => -libc::EIO,
        // Fits: requests are not longer than 32 MiB, and of others nobody counts the bytes.
        0 => i32::try_from(length).unwrap_or(i32::MAX),
        errno => -errno,
    };
    ended(table, number, result);
}
