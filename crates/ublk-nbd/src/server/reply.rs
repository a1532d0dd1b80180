//! Headers of replies.

use crate::wire::length::{EXTENDED_REPLY, SIMPLE_REPLY, STRUCTURED_REPLY};
use crate::wire::{EXTENDED_REPLY_MAGIC, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, chunk, error};
use crate::{Headers, Request};

/// The longest header, with the offset of a chunk of data.
pub const LONGEST: usize = EXTENDED_REPLY + 8;

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

/// An extent of a reply to `BLOCK_STATUS`: a length in bytes, and flags of the metadata context.
pub type Extent = (u64, u32);

/// The request that a reply answers, as far as the headers of replies name the request.
#[derive(Clone, Copy, Debug)]
pub struct To {
    headers: Headers,
    cookie: u64,
    offset: u64,
}

impl To {
    /// The replies to `request`, on a connection with these headers.
    pub fn request(request: &Request, headers: Headers) -> Self {
        Self { headers, cookie: request.cookie, offset: request.offset }
    }

    /// The whole reply to a request without data, or the last chunk of a reply: an error, or 0. The data of a read
    /// follows the 0 of a simple reply.
    pub fn end(self, error: u32) -> Header {
        let bytes = error.to_be_bytes();
        // A message of no bytes.
        let body = [bytes[0], bytes[1], bytes[2], bytes[3], 0, 0];
        match (self.headers, error) {
            (Headers::Simple, error) => Header::of::<SIMPLE_REPLY>(&[
                &SIMPLE_REPLY_MAGIC.to_be_bytes(),
                &error.to_be_bytes(),
                &self.cookie.to_be_bytes(),
            ]),
            (Headers::Structured, 0) => {
                Header::of::<STRUCTURED_REPLY>(&[&self.structured(true, chunk::NONE, 0)])
            }
            (Headers::Extended, 0) => {
                Header::of::<EXTENDED_REPLY>(&[&self.extended(true, chunk::NONE, 0)])
            }
            (Headers::Structured, _) => {
                let head = self.structured(true, chunk::ERROR, 6);
                Header::of::<{ STRUCTURED_REPLY + 6 }>(&[&head, &body])
            }
            (Headers::Extended, _) => {
                let head = self.extended(true, chunk::ERROR, 6);
                Header::of::<{ EXTENDED_REPLY + 6 }>(&[&head, &body])
            }
        }
    }

    /// A chunk of data from `offset` on; `length` bytes follow. Not for simple replies.
    pub fn data(self, last: bool, offset: u64, length: u32) -> Header {
        let (kind, length, offset) =
            (chunk::OFFSET_DATA, length.saturating_add(8), offset.to_be_bytes());
        if self.headers == Headers::Extended {
            return Header::of::<{ EXTENDED_REPLY + 8 }>(&[
                &self.extended(last, kind, length),
                &offset,
            ]);
        }
        Header::of::<{ STRUCTURED_REPLY + 8 }>(&[&self.structured(last, kind, length), &offset])
    }

    /// A chunk of extents of a metadata context: the header, and the bytes that follow. Not for simple replies.
    /// Without extended headers, extents must be shorter than 4 GiB.
    pub fn status(self, last: bool, context: u32, extents: &[Extent]) -> (Header, Box<[u8]>) {
        let count = u32::try_from(extents.len()).unwrap_or(u32::MAX);
        let context = context.to_be_bytes();
        if self.headers == Headers::Extended {
            let length = count.saturating_mul(16).saturating_add(8);
            let head = self.extended(last, chunk::BLOCK_STATUS_EXT, length);
            let words = extents.iter().flat_map(|&(length, flags)| [length, flags.into()]);
            let header =
                Header::of::<{ EXTENDED_REPLY + 8 }>(&[&head, &context, &count.to_be_bytes()]);
            return (header, words.flat_map(u64::to_be_bytes).collect());
        }
        let length = count.saturating_mul(8).saturating_add(4);
        let head = self.structured(last, chunk::BLOCK_STATUS, length);
        let short = |length| u32::try_from(length).unwrap_or(u32::MAX);
        let words = extents.iter().flat_map(|&(length, flags)| [short(length), flags]);
        let header = Header::of::<{ STRUCTURED_REPLY + 4 }>(&[&head, &context]);
        (header, words.flat_map(u32::to_be_bytes).collect())
    }

    fn structured(self, last: bool, kind: u16, length: u32) -> [u8; STRUCTURED_REPLY] {
        let mut bytes = [0; STRUCTURED_REPLY];
        bytes[..4].copy_from_slice(&STRUCTURED_REPLY_MAGIC.to_be_bytes());
        bytes[4..16].copy_from_slice(&self.middle(last, kind));
        bytes[16..].copy_from_slice(&length.to_be_bytes());
        bytes
    }

    fn extended(self, last: bool, kind: u16, length: u32) -> [u8; EXTENDED_REPLY] {
        let mut bytes = [0; EXTENDED_REPLY];
        bytes[..4].copy_from_slice(&EXTENDED_REPLY_MAGIC.to_be_bytes());
        bytes[4..16].copy_from_slice(&self.middle(last, kind));
        bytes[16..24].copy_from_slice(&self.offset.to_be_bytes());
        bytes[24..].copy_from_slice(&u64::from(length).to_be_bytes());
        bytes
    }

    /// What both headers of chunks have behind the magic number.
    fn middle(self, last: bool, kind: u16) -> [u8; 12] {
        let flags = if last { chunk::DONE } else { 0 };
        let mut bytes = [0; 12];
        bytes[..2].copy_from_slice(&flags.to_be_bytes());
        bytes[2..4].copy_from_slice(&kind.to_be_bytes());
        bytes[4..].copy_from_slice(&self.cookie.to_be_bytes());
        bytes
    }
}

/// The error of a reply for an errno of Linux.
pub fn error_of(errno: i32) -> u32 {
    let errno = errno.unsigned_abs();
    if error::ALL.contains(&errno) { errno } else { error::EIO }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXTENTS: [Extent; 3] = [(4096, 3), (512, 0), (1024, 3)];

    fn to(headers: Headers) -> To {
        To { headers, cookie: 0x0102_0304_0506_0708, offset: 0x0a00 }
    }

    #[test]
    fn headers_are_as_long_as_the_protocol_says() {
        let lengths = |headers| {
            let to = to(headers);
            [to.end(0), to.end(5), to.data(true, 512, 4096), to.status(true, 1, &EXTENTS).0]
                .map(|header| header.bytes().len())
        };
        assert_eq!(to(Headers::Simple).end(5).bytes().len(), 16);
        assert_eq!(lengths(Headers::Structured), [20, 26, 28, 24]);
        assert_eq!(lengths(Headers::Extended), [32, 38, 40, 40]);
    }

    #[test]
    fn the_length_of_a_chunk_counts_all_behind_the_header() {
        for headers in [Headers::Structured, Headers::Extended] {
            let to = to(headers);
            let (status, bytes) = to.status(true, 1, &EXTENTS);
            let end = if headers == Headers::Extended { 32 } else { 20 };
            let length = |header: Header| {
                u32::from_be_bytes(header.bytes()[end - 4..end].try_into().unwrap()) as usize
            };
            assert_eq!((length(to.end(0)), length(to.end(5))), (0, 6));
            assert_eq!(length(to.data(false, 512, 4096)), 4104);
            assert_eq!(length(status), status.bytes().len() - end + bytes.len());
        }
    }

    #[test]
    fn an_extended_reply_is_as_the_specification_draws_it() {
        let header = to(Headers::Extended).data(true, 0x0c00, 512);
        let bytes = header.bytes();
        assert_eq!(bytes[..8], [0x6e, 0x8a, 0x27, 0x8c, 0, 1, 0, 1]);
        assert_eq!(bytes[8..16], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(bytes[16..24], [0, 0, 0, 0, 0, 0, 10, 0], "the offset of the request");
        assert_eq!(bytes[24..32], [0, 0, 0, 0, 0, 0, 2, 8]);
        assert_eq!(bytes[32..], [0, 0, 0, 0, 0, 0, 12, 0], "the offset of the data");
        let (header, bytes) = to(Headers::Extended).status(true, 7, &[(5 << 32, 3)]);
        assert_eq!(header.bytes()[6..8], [0, 6]);
        assert_eq!(header.bytes()[32..], [0, 0, 0, 7, 0, 0, 0, 1], "a context and a count");
        assert_eq!(*bytes, [0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
    }

    #[test]
    fn only_the_last_chunk_is_marked() {
        for headers in [Headers::Structured, Headers::Extended] {
            assert_eq!(to(headers).data(true, 0, 1).bytes()[5], 1);
            assert_eq!(to(headers).data(false, 0, 1).bytes()[5], 0);
        }
    }

    #[test]
    fn errors_that_the_protocol_lacks_are_io_errors() {
        assert_eq!(error_of(28), 28);
        assert_eq!(error_of(95), 95);
        assert_eq!(error_of(110), error::EIO);
    }
}
