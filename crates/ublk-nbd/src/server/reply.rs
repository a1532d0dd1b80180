//! Headers of replies.

use crate::wire::{
    SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, chunk, error, length::SIMPLE_REPLY,
    length::STRUCTURED_REPLY,
};

/// The longest header, with the offset of a chunk of data.
pub const LONGEST: usize = STRUCTURED_REPLY + 8;

/// The bytes of a reply before the data, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    bytes: [u8; LONGEST],
    length: u8,
}

impl Header {
    /// The bytes to send.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    fn of<const N: usize>(parts: &[&[u8]]) -> Self {
        const { assert!(N <= LONGEST) };
        let mut bytes = [0; LONGEST];
        let mut at = 0;
        for part in parts {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        debug_assert_eq!(at, N);
        #[expect(clippy::cast_possible_truncation, reason = "at most LONGEST")]
        Self { bytes, length: N as u8 }
    }
}

/// A simple reply: an error or 0; the data of a read follows a 0.
pub fn simple(cookie: u64, error: u32) -> Header {
    Header::of::<SIMPLE_REPLY>(&[
        &SIMPLE_REPLY_MAGIC.to_be_bytes(),
        &error.to_be_bytes(),
        &cookie.to_be_bytes(),
    ])
}

fn structured(cookie: u64, last: bool, kind: u16, length: u32) -> [u8; STRUCTURED_REPLY] {
    let flags = if last { chunk::DONE } else { 0 };
    let mut bytes = [0; STRUCTURED_REPLY];
    bytes[..4].copy_from_slice(&STRUCTURED_REPLY_MAGIC.to_be_bytes());
    bytes[4..6].copy_from_slice(&flags.to_be_bytes());
    bytes[6..8].copy_from_slice(&kind.to_be_bytes());
    bytes[8..16].copy_from_slice(&cookie.to_be_bytes());
    bytes[16..].copy_from_slice(&length.to_be_bytes());
    bytes
}

/// The only chunk of a structured reply without data.
pub fn done(cookie: u64) -> Header {
    Header::of::<STRUCTURED_REPLY>(&[&structured(cookie, true, chunk::NONE, 0)])
}

/// A chunk of data; `length` bytes follow.
pub fn data(cookie: u64, last: bool, offset: u64, length: u32) -> Header {
    let head = structured(cookie, last, chunk::OFFSET_DATA, length.saturating_add(8));
    Header::of::<LONGEST>(&[&head, &offset.to_be_bytes()])
}

/// The last chunk of a structured reply with an error, and without a message.
pub fn failed(cookie: u64, error: u32) -> Header {
    let head = structured(cookie, true, chunk::ERROR, 6);
    Header::of::<{ STRUCTURED_REPLY + 6 }>(&[&head, &error.to_be_bytes(), &[0, 0]])
}

/// The head of a chunk of extents of a metadata context; `count` extents follow.
pub fn status(cookie: u64, last: bool, context: u32, count: u32) -> Header {
    let length = count.saturating_mul(8).saturating_add(4);
    let head = structured(cookie, last, chunk::BLOCK_STATUS, length);
    Header::of::<{ STRUCTURED_REPLY + 4 }>(&[&head, &context.to_be_bytes()])
}

/// The error of a reply for an errno of Linux.
pub fn error_of(errno: i32) -> u32 {
    let errno = errno.unsigned_abs();
    if error::ALL.contains(&errno) { errno } else { error::EIO }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_as_long_as_the_protocol_says() {
        assert_eq!(simple(1, 5).bytes().len(), 16);
        assert_eq!(done(1).bytes().len(), 20);
        assert_eq!(data(1, true, 512, 4096).bytes().len(), 28);
        assert_eq!(failed(1, 5).bytes().len(), 26);
        assert_eq!(status(1, true, 1, 3).bytes().len(), 24);
    }

    #[test]
    fn the_length_of_a_chunk_counts_all_behind_the_header() {
        let length =
            |header: Header| u32::from_be_bytes(header.bytes()[16..20].try_into().unwrap());
        assert_eq!(length(done(1)), 0);
        assert_eq!(length(data(1, false, 512, 4096)), 4104);
        assert_eq!(length(failed(1, 5)), 6);
        assert_eq!(length(status(1, true, 1, 3)), 28);
    }

    #[test]
    fn only_the_last_chunk_is_marked() {
        assert_eq!(data(1, true, 0, 1).bytes()[5], 1);
        assert_eq!(data(1, false, 0, 1).bytes()[5], 0);
    }

    #[test]
    fn errors_that_the_protocol_lacks_are_io_errors() {
        assert_eq!(error_of(28), 28);
        assert_eq!(error_of(95), 95);
        assert_eq!(error_of(110), error::EIO);
    }
}
