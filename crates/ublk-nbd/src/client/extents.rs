//! The state of ranges (`BLOCK_STATUS`), asked on a connection with one request at a time.

use std::io::{self, Read, Write};

use super::Header;
use crate::wire::{EXTENDED_REPLY_MAGIC, chunk, length};
use crate::{Headers, Request};

/// The most chunks of a reply that are read: one with an extent, errors, and the end.
const MAX_CHUNKS: usize = 8;
/// The longest chunk with an error, in bytes: the error, a message of at most 4096 bytes, an offset.
const MAX_ERROR: u32 = 4 + 2 + 4096 + 8;

/// A range with one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// In bytes, at least one; a server may say more than was asked for.
    pub length: u64,
    /// Bits of [`wire::allocation`](crate::wire::allocation).
    pub flags: u32,
}

/// Sends `request`, a `BLOCK_STATUS` with the flag `REQ_ONE`, and reads the reply: the state of the first bytes of
/// the range, in the metadata context with the number `context`. The stream has these `headers`. None: the server answers with an error, and the
/// connection goes on.
///
/// # Errors
/// When the stream fails, and `InvalidData` when the server breaks the protocol: nothing more can be asked on the
/// stream.
pub fn first_extent(
    stream: &mut (impl Read + Write),
    headers: Headers,
    context: u32,
    request: &Request,
) -> io::Result<Option<Extent>> {
    stream.write_all(&request.encode_as(headers))?;
    let extended = headers == Headers::Extended;
    let (mut extent, mut refused) = (None, false);
    for _ in 0..MAX_CHUNKS {
        let (flags, kind, count) = match read_header(stream)? {
            Header::Simple { error: 1.., cookie } if !extended && cookie == request.cookie => {
                return Ok(None);
            }
            Header::Chunk { flags, kind, cookie, length }
                if !extended && cookie == request.cookie =>
            {
                (flags, kind, length)
            }
            Header::Extended { flags, kind, cookie, offset, length }
                if extended && cookie == request.cookie && offset == request.offset =>
            {
                (flags, kind, length)
            }
            _ => return Err(wrong("a reply to another request")),
        };
        match (kind, count) {
            (chunk::NONE, 0) => {}
            (chunk::BLOCK_STATUS, 12) if extent.is_none() => {
                extent = Some(read_extent(stream, context)?);
            }
            (chunk::BLOCK_STATUS_EXT, 24) if extended && extent.is_none() => {
                extent = Some(read_extended_extent(stream, context)?);
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
    let mut bytes = [0; length::EXTENDED_REPLY];
    stream.read_exact(&mut bytes[..length::SIMPLE_REPLY])?;
    if let Some((header, _)) = Header::parse(&bytes[..length::SIMPLE_REPLY]).map_err(wrong)? {
        return Ok(header);
    }
    let extended = bytes.starts_with(&EXTENDED_REPLY_MAGIC.to_be_bytes());
    let whole = if extended { length::EXTENDED_REPLY } else { length::STRUCTURED_REPLY };
    stream.read_exact(&mut bytes[length::SIMPLE_REPLY..whole])?;
    match Header::parse(&bytes[..whole]).map_err(wrong)? {
        Some((header, _)) => Ok(header),
        None => Err(wrong("the bytes begin no reply")),
    }
}

/// The context, and an extent of 32 bits each.
fn read_extent(stream: &mut impl Read, context: u32) -> io::Result<Extent> {
    let [said, length, flags] = read_words(stream)?;
    extent(said == context, length.into(), flags)
}

/// The context and a count of 32 bits each, and an extent of 64 bits each.
fn read_extended_extent(stream: &mut impl Read, context: u32) -> io::Result<Extent> {
    let [said, count, high, low, _, flags] = read_words(stream)?;
    // 0: the server leaves the counting to the client.
    if count > 1 {
        return Err(wrong("a count of extents that fits no reply"));
    }
    extent(said == context, u64::from(high) << 32 | u64::from(low), flags)
}

fn extent(is_chosen: bool, length: u64, flags: u32) -> io::Result<Extent> {
    match (is_chosen, length) {
        (_, 0) => Err(wrong("an extent without a byte")),
        (true, length) => Ok(Extent { length, flags }),
        (false, _) => Err(wrong("an extent of a metadata context that was not chosen")),
    }
}

fn read_words<const N: usize>(stream: &mut impl Read) -> io::Result<[u32; N]> {
    let mut words = [0; N];
    for word in &mut words {
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes)?;
        *word = u32::from_be_bytes(bytes);
    }
    Ok(words)
}

#[cfg(test)]
#[path = "extents_tests.rs"]
mod tests;
