//! Replies of the transmission phase.

use crate::wire::{
    EXTENDED_REPLY_MAGIC, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, error, length,
};

/// The beginning of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// A simple reply; the data of a successful read follows.
    Simple {
        /// 0, or an error of the server.
        error: u32,
        /// Of the request.
        cookie: u64,
    },
    /// A chunk of a structured reply; `length` bytes follow.
    Chunk {
        /// Of [`wire::chunk`](crate::wire::chunk).
        flags: u16,
        /// Of [`wire::chunk`](crate::wire::chunk).
        kind: u16,
        /// Of the request.
        cookie: u64,
        /// Of what follows.
        length: u32,
    },
    /// A chunk of a reply with extended headers; `length` bytes follow.
    Extended {
        /// Of [`wire::chunk`](crate::wire::chunk).
        flags: u16,
        /// Of [`wire::chunk`](crate::wire::chunk).
        kind: u16,
        /// Of the request.
        cookie: u64,
        /// Of the request, in bytes.
        offset: u64,
        /// Of what follows.
        length: u32,
    },
}

impl Header {
    /// Reads the header at the beginning of `bytes`, and says how long the header is; none: more bytes
    /// are needed.
    ///
    /// # Errors
    /// When the bytes begin no reply, or a chunk of 4 GiB or more.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, &'static str> {
        let Some(magic) = bytes.first_chunk::<4>() else { return Ok(None) };
        match u32::from_be_bytes(*magic) {
            SIMPLE_REPLY_MAGIC => {
                let Some(bytes) = bytes.first_chunk::<{ length::SIMPLE_REPLY }>() else {
                    return Ok(None);
                };
                let header = Self::Simple { error: be32(bytes, 4), cookie: be64(bytes, 8) };
                Ok(Some((header, bytes.len())))
            }
            STRUCTURED_REPLY_MAGIC => {
                let Some(bytes) = bytes.first_chunk::<{ length::STRUCTURED_REPLY }>() else {
                    return Ok(None);
                };
                let header = Self::Chunk {
                    flags: be16(bytes, 4),
                    kind: be16(bytes, 6),
                    cookie: be64(bytes, 8),
                    length: be32(bytes, 16),
                };
                Ok(Some((header, bytes.len())))
            }
            EXTENDED_REPLY_MAGIC => Self::parse_extended(bytes),
            _ => Err("the bytes begin no reply"),
        }
    }

    fn parse_extended(bytes: &[u8]) -> Result<Option<(Self, usize)>, &'static str> {
        let Some(bytes) = bytes.first_chunk::<{ length::EXTENDED_REPLY }>() else {
            return Ok(None);
        };
        let long = |_| "a chunk of 4 GiB or more";
        let header = Self::Extended {
            flags: be16(bytes, 4),
            kind: be16(bytes, 6),
            cookie: be64(bytes, 8),
            offset: be64(bytes, 16),
            length: u32::try_from(be64(bytes, 24)).map_err(long)?,
        };
        Ok(Some((header, bytes.len())))
    }
}

/// A positive errno for an error of a server: Linux's number of the protocol's errors, `EIO` for others.
pub fn errno(number: u32) -> i32 {
    let known = error::ALL.contains(&number);
    // Fits: the protocol's numbers are small.
    i32::try_from(if known { number } else { error::EIO }).unwrap_or(5)
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([0, 1, 2, 3].map(|byte| bytes[at + byte]))
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from(be32(bytes, at)) << 32 | u64::from(be32(bytes, at + 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_soon_as_they_are_there() {
        let simple = [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 5, 1, 2, 3, 4, 5, 6, 7, 8];
        let chunk =
            [0x66, 0x8e, 0x33, 0xef, 0, 1, 0x80, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 6, 9, 9];
        for end in 0..16 {
            assert_eq!(Header::parse(&simple[..end]), Ok(None));
        }
        let cookie = 0x0102_0304_0506_0708;
        assert_eq!(Header::parse(&simple), Ok(Some((Header::Simple { error: 5, cookie }, 16))));
        assert_eq!(Header::parse(&chunk[..19]), Ok(None));
        let header = Header::Chunk { flags: 1, kind: 0x8001, cookie, length: 6 };
        assert_eq!(Header::parse(&chunk), Ok(Some((header, 20))));
        assert!(Header::parse(&[0; 4]).is_err());
    }

    #[test]
    fn an_extended_header_has_an_offset_and_a_length_of_64_bits() {
        let mut chunk = [0x6e, 0x8a, 0x27, 0x8c, 0, 1, 0x80, 1, 1, 2, 3, 4, 5, 6, 7, 8].to_vec();
        chunk.extend([0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 6, 9, 9]);
        assert_eq!(Header::parse(&chunk[..31]), Ok(None));
        let (cookie, offset) = (0x0102_0304_0506_0708, (1 << 40) + 512);
        let header = Header::Extended { flags: 1, kind: 0x8001, cookie, offset, length: 6 };
        assert_eq!(Header::parse(&chunk), Ok(Some((header, 32))));
        chunk[27] = 1;
        assert!(Header::parse(&chunk).is_err(), "no chunk is as long");
    }

    #[test]
    fn unknown_errors_are_io_errors() {
        assert_eq!((errno(28), errno(5), errno(11), errno(u32::MAX)), (28, 5, 5, 5));
    }
}
