//! The state of ranges (`BLOCK_STATUS`), asked on a connection with one request at a time.

use std::io::{self, Read, Write};

use super::Header;
use crate::request::Request;
use crate::wire::{chunk, length};

/// The most chunks of a reply that are read: one with an extent, errors, and the end.
const MAX_CHUNKS: usize = 8;
/// The longest chunk with an error, in bytes: the error, a message of at most 4096 bytes, an offset.
const MAX_ERROR: u32 = 4 + 2 + 4096 + 8;

/// A range with one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// In bytes, at least one; a server may say more than was asked for.
    pub length: u32,
    /// Bits of [`wire::allocation`](crate::wire::allocation).
    pub flags: u32,
}

/// Sends `request`, a `BLOCK_STATUS` with the flag `REQ_ONE`, and reads the reply: the state of the first bytes of
/// the range, in the metadata context with the number `context`. None: the server answers with an error, and the
/// connection goes on.
///
/// # Errors
/// When the stream fails, and `InvalidData` when the server breaks the protocol: nothing more can be asked on the
/// stream.
pub fn first_extent(
    stream: &mut (impl Read + Write),
    context: u32,
    request: &Request,
) -> io::Result<Option<Extent>> {
    stream.write_all(&request.encode())?;
    let (mut extent, mut refused) = (None, false);
    for _ in 0..MAX_CHUNKS {
        let (flags, kind, count) = match read_header(stream)? {
            Header::Simple { error: 1.., cookie } if cookie == request.cookie => return Ok(None),
            Header::Chunk { flags, kind, cookie, length } if cookie == request.cookie => {
                (flags, kind, length)
            }
            _ => return Err(wrong("a reply to another request")),
        };
        match (kind, count) {
            (chunk::NONE, 0) => {}
            (chunk::BLOCK_STATUS, 12) if extent.is_none() => {
                extent = Some(read_extent(stream, context)?);
            }
            (kind, 6..=MAX_ERROR) if kind & chunk::ERROR_BIT != 0 => {
                stream.read_exact(&mut vec![0; count as usize])?;
                refused = true;
            }
            _ => return Err(wrong("a chunk that fits no reply")),
        }
        if flags & chunk::DONE != 0 {
            return match (refused, extent) {
                (true, _) => Ok(None),
                (false, Some(_)) => Ok(extent),
                (false, None) => Err(wrong("a reply without an extent")),
            };
        }
    }
    Err(wrong("a reply without an end"))
}

fn wrong(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn read_header(stream: &mut impl Read) -> io::Result<Header> {
    let mut bytes = [0; length::STRUCTURED_REPLY];
    stream.read_exact(&mut bytes[..length::SIMPLE_REPLY])?;
    if let Some((header, _)) = Header::parse(&bytes[..length::SIMPLE_REPLY]).map_err(wrong)? {
        return Ok(header);
    }
    stream.read_exact(&mut bytes[length::SIMPLE_REPLY..])?;
    match Header::parse(&bytes).map_err(wrong)? {
        Some((header, _)) => Ok(header),
        None => Err(wrong("the bytes begin no reply")),
    }
}

fn read_extent(stream: &mut impl Read, context: u32) -> io::Result<Extent> {
    let mut bytes = [0; 12];
    stream.read_exact(&mut bytes)?;
    let be32 = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|byte| bytes[at + byte]));
    match (be32(0), be32(4)) {
        (_, 0) => Err(wrong("an extent without a byte")),
        (said, length) if said == context => Ok(Extent { length, flags: be32(8) }),
        _ => Err(wrong("an extent of a metadata context that was not chosen")),
    }
}

#[cfg(test)]
#[path = "extents_tests.rs"]
mod tests;
