//! Requests of clients under way.

use ublk_nbd::Request;
use ublk_nbd::wire::{command, flag};
use ublk_sys::{
    UBLK_IO_F_FUA, UBLK_IO_F_NOUNMAP, UBLK_IO_OP_DISCARD, UBLK_IO_OP_FLUSH, UBLK_IO_OP_READ,
    UBLK_IO_OP_WRITE, UBLK_IO_OP_WRITE_ZEROES,
};

use super::facts::Facts;

/// A request of a client: one or several requests of the device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    pub(super) connection: u32,
    pub(super) request: Request,
    /// The bytes of which parts have been made; a flush has one byte.
    pub(super) issued: u64,
    /// Parts that have begun and not ended.
    pub(super) pending: u16,
    /// The first error, positive; 0: none.
    pub(super) errno: i32,
    /// A flush follows the last part, and has begun.
    pub(super) flushing: bool,
    /// The replies of the parts are one simple reply: a part begins when the part before has ended, and
    /// the connection's next request when the last part has ended.
    pub(super) streams: bool,
    /// The header of that reply has been sent.
    pub(super) answered: bool,
}

const FLUSH: u32 = UBLK_IO_OP_FLUSH as u32;

/// The longest part without data, in bytes. A multiple of each unit of addressing; with the kernel, too, a request
/// is shorter than 4 GiB.
const LONGEST: u64 = 1 << 31;

/// How the bytes of a part are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The part has no bytes, or fills the buffer.
    None,
    /// The client sends the bytes.
    Client,
    /// The bytes are zeros.
    Zeroes,
}

/// The next part of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// `UBLK_IO_OP_*` and `UBLK_IO_F_*`.
    pub(super) op_flags: u32,
    pub(super) offset: u64,
    /// In bytes.
    pub(super) length: u32,
    pub(super) source: Source,
}

impl Job {
    pub(super) fn new(connection: u32, request: Request) -> Self {
        Self {
            connection,
            request,
            issued: 0,
            pending: 0,
            errno: 0,
            flushing: false,
            streams: false,
            answered: false,
        }
    }

    pub(super) fn total(&self) -> u64 {
        if self.request.command == command::FLUSH { 1 } else { self.request.length }
    }

    /// Whether parts are still to be made.
    pub(super) fn has_more(&self) -> bool {
        self.issued < self.total()
    }

    /// Whether no part is under way or to be made.
    pub(super) fn is_over(&self) -> bool {
        self.pending == 0 && !self.has_more()
    }

    /// Whether a flush makes the request durable.
    pub(super) fn needs_flush(&self, facts: &Facts) -> bool {
        let command = self.request.command;
        let changes = [command::WRITE, command::TRIM, command::WRITE_ZEROES].contains(&command);
        let by_itself = command == command::WRITE && facts.fua;
        let durable = changes && self.request.has(flag::FUA) && facts.cache && !by_itself;
        durable && !self.flushing && self.errno == 0
    }

    /// The next part.
    pub(super) fn next(&self, facts: &Facts) -> Piece {
        let request = &self.request;
        let offset = request.offset + self.issued;
        let left = self.total() - self.issued;
        let transfer = facts.transfer(offset, left);
        let fua =
            if request.has(flag::FUA) && facts.cache && facts.fua { UBLK_IO_F_FUA } else { 0 };
        let keep = if request.has(flag::NO_HOLE) { UBLK_IO_F_NOUNMAP } else { 0 };
        let (op, flags, length, source) = match request.command {
            command::FLUSH => return Piece::FLUSH,
            command::WRITE => (UBLK_IO_OP_WRITE, fua, transfer, Source::Client),
            command::TRIM => {
                let most = facts.max_discard.clamp(512, LONGEST);
                (UBLK_IO_OP_DISCARD, 0, left.min(most), Source::None)
            }
            command::WRITE_ZEROES if facts.max_zeroes > 0 => (
                UBLK_IO_OP_WRITE_ZEROES,
                keep,
                left.min(facts.max_zeroes.min(LONGEST)),
                Source::None,
            ),
            command::WRITE_ZEROES => (UBLK_IO_OP_WRITE, 0, transfer, Source::Zeroes),
            // From zeros: what the target leaves unfilled (`null` fills nothing) must not be what the buffer
            // had of another client's request. A request to read ahead is a read without a reply.
            _ => (UBLK_IO_OP_READ, 0, transfer, Source::Zeroes),
        };
        // Fits: a part is no longer than `LONGEST`, or than the longest request of the device.
        let length = u32::try_from(length).unwrap_or_default();
        Piece { op_flags: u32::from(op) | flags, offset, length, source }
    }
}

impl Piece {
    pub(super) const FLUSH: Self =
        Self { op_flags: FLUSH, offset: 0, length: 0, source: Source::None };
}

/// The jobs of a queue.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    jobs: Vec<Option<Job>>,
    free: Vec<u32>,
}

impl Jobs {
    pub(super) fn add(&mut self, job: Job) -> u32 {
        if let Some(place) = self.free.pop() {
            self.jobs[place as usize] = Some(job);
            return place;
        }
        self.jobs.push(Some(job));
        // Fits: a job has a tag, or is the only job of a connection without.
        u32::try_from(self.jobs.len() - 1).unwrap_or(u32::MAX)
    }

    pub(super) fn get(&mut self, job: u32) -> &mut Job {
        self.jobs[job as usize].as_mut().expect("a job under way")
    }

    pub(super) fn remove(&mut self, job: u32) -> Job {
        self.free.push(job);
        self.jobs[job as usize].take().expect("a job under way")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: Facts = Facts {
        size: 1 << 30,
        block: 512,
        preferred: 4096,
        max_io: 8192,
        chunk: 0,
        max_discard: 1 << 20,
        max_zeroes: 0,
        cache: true,
        fua: true,
        read_only: false,
        rotational: false,
    };

    fn job(command: u16, flags: u16, length: u64) -> Job {
        Job::new(0, Request { flags, command, cookie: 0, offset: 4096, length })
    }

    fn pieces(mut job: Job, facts: &Facts) -> Vec<(u64, u32)> {
        let mut pieces = Vec::new();
        while job.has_more() {
            let piece = job.next(facts);
            pieces.push((piece.offset, piece.length));
            job.issued += u64::from(piece.length).max(1);
        }
        pieces
    }

    #[test]
    fn a_long_request_becomes_parts_without_gaps() {
        let expected = [(4096, 8192), (12288, 8192), (20480, 512)];
        for command in [command::READ, command::WRITE, command::CACHE, command::WRITE_ZEROES] {
            assert_eq!(pieces(job(command, 0, 16896), &FACTS), expected, "{command}");
        }
        assert_eq!(pieces(job(command::TRIM, 0, 3 << 20), &FACTS).len(), 3);
        assert_eq!(pieces(job(command::FLUSH, 0, 0), &FACTS), [(0, 0)]);
    }

    #[test]
    fn a_request_of_more_than_4_gib_becomes_parts_that_a_device_takes() {
        let able = Facts { max_discard: u64::MAX, max_zeroes: 3 << 30, ..FACTS };
        for command in [command::TRIM, command::WRITE_ZEROES] {
            let pieces = pieces(job(command, 0, (5 << 30) + 512), &able);
            let lengths: Vec<_> = pieces.iter().map(|&(_, length)| length).collect();
            assert_eq!(lengths, [1 << 31, 1 << 31, (1 << 30) + 512], "{command}");
            assert_eq!(pieces[2].0, 4096 + (4 << 30));
        }
    }

    #[test]
    fn zeros_are_data_where_the_target_writes_no_zeros() {
        let zeroes = job(command::WRITE_ZEROES, flag::NO_HOLE, 8192);
        assert_eq!(zeroes.next(&FACTS).source, Source::Zeroes);
        let able = Facts { max_zeroes: 1 << 20, ..FACTS };
        let piece = zeroes.next(&able);
        let expected = u32::from(UBLK_IO_OP_WRITE_ZEROES) | UBLK_IO_F_NOUNMAP;
        assert_eq!((piece.op_flags, piece.source), (expected, Source::None));
    }

    #[test]
    fn durable_changes_are_flushed_unless_the_target_writes_durably() {
        let needs = |command, facts: &Facts| job(command, flag::FUA, 512).needs_flush(facts);
        assert!(!needs(command::WRITE, &FACTS));
        assert_ne!(job(command::WRITE, flag::FUA, 512).next(&FACTS).op_flags & UBLK_IO_F_FUA, 0);
        assert!(needs(command::TRIM, &FACTS) && needs(command::WRITE_ZEROES, &FACTS));
        let plain = Facts { fua: false, ..FACTS };
        assert!(needs(command::WRITE, &plain));
        assert_eq!(job(command::WRITE, flag::FUA, 512).next(&plain).op_flags & UBLK_IO_F_FUA, 0);
        let safe = Facts { cache: false, ..plain };
        assert!(!needs(command::WRITE, &safe));
        assert!(!needs(command::READ, &plain));
    }
}
