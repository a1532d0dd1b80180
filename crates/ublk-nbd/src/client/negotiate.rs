//! The negotiation: fixed newstyle, `STARTTLS` where TLS is asked for, `EXTENDED_HEADERS`, or for servers without
//! `STRUCTURED_REPLY`, `SET_META_CONTEXT` for a connection that asks for extents, then `GO`, or `EXPORT_NAME` for
//! servers without.

use std::io::{Read, Write};

use super::NegotiateError;
use super::NegotiateError::Protocol;
use crate::Headers;
use crate::wire::{
    MAGIC, MAX_PAYLOAD, OPTION_MAGIC, OPTION_REPLY_MAGIC, allocation, export, handshake, info,
    length, option, option_reply,
};

/// The longest reply to an option that is read, in bytes.
const MAX_REPLY: u32 = 64 << 10;
/// The most replies to one option: a server that never ends its list is no server.
const MAX_REPLIES: usize = 1000;

/// Sizes of requests that the server takes, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Offsets and lengths are multiples of this power of two.
    pub minimum: u32,
    /// Requests of this power of two are fast.
    pub preferred: u32,
    /// The longest data of a request.
    pub maximum: u32,
}

/// What a server says of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Export {
    /// In bytes.
    pub size: u64,
    /// Transmission flags, [`wire::export`](crate::wire::export), but for those that depend on the headers.
    pub flags: u16,
    /// Absent where the server does not say.
    pub blocks: Option<Blocks>,
}

impl Export {
    /// Whether the server has this flag of [`wire::export`](crate::wire::export).
    pub fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// The sizes of requests; where the server says nothing, those that the specification names.
    pub fn blocks_or_default(&self) -> Blocks {
        self.blocks.unwrap_or(Blocks { minimum: 1, preferred: 4096, maximum: MAX_PAYLOAD })
    }
}

/// What a client and a server have agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// What the server says of the export.
    pub export: Export,
    /// Of this connection: another connection to the same export may have others.
    pub headers: Headers,
    /// The number of the metadata context `base:allocation` in replies to `BLOCK_STATUS`. Absent where the server has
    /// no such context, or was not asked.
    pub allocation: Option<u32>,
}

/// Begins TLS on a stream.
pub type Secure<'a, S> = &'a mut dyn FnMut(&mut S) -> std::io::Result<()>;

/// Agrees with the server behind `stream` on the export `name`: the next bytes are requests and replies. With
/// `secure`, nothing but the greeting passes before TLS has begun. With `extents`, the client chooses the metadata
/// context `base:allocation`.
///
/// # Errors
/// When the stream fails, the server breaks the protocol, has no TLS, or refuses the export.
pub fn negotiate<S: Read + Write>(
    stream: &mut S,
    name: &str,
    extents: bool,
    secure: Option<Secure<'_, S>>,
) -> Result<Agreed, NegotiateError> {
    let no_zeroes = greet(stream)?;
    if let Some(secure) = secure {
        send_option(stream, option::STARTTLS, &[])?;
        match read_reply(stream, option::STARTTLS)?.0 {
            option_reply::ACK => secure(stream)?,
            _ => return Err(NegotiateError::NoTls),
        }
    }
    let headers = agree_on_headers(stream)?;
    let asks = extents && headers.have_chunks();
    let allocation = if asks { choose_allocation(stream, name)? } else { None };
    let export = match go(stream, name) {
        Err(NegotiateError::Refused { reply: option_reply::ERR_UNSUP, .. })
            if headers != Headers::Extended =>
        {
            send_option(stream, option::EXPORT_NAME, name.as_bytes())?;
            let (size, flags) = (read_u64(stream)?, read_u16(stream)?);
            if !no_zeroes {
                stream.read_exact(&mut [0; 124])?;
            }
            Export { size, flags, blocks: None }
        }
        told => told?,
    };
    Ok(Agreed { export: checked(export)?, headers, allocation })
}

/// The best headers that the server has. Any error to an option: the server does without.
fn agree_on_headers(stream: &mut (impl Read + Write)) -> Result<Headers, NegotiateError> {
    for (option, headers) in [
        (option::EXTENDED_HEADERS, Headers::Extended),
        (option::STRUCTURED_REPLY, Headers::Structured),
    ] {
        send_option(stream, option, &[])?;
        if read_reply(stream, option)?.0 == option_reply::ACK {
            return Ok(headers);
        }
    }
    Ok(Headers::Simple)
}

/// Chooses `base:allocation`, and returns the number of the context where the server has the context.
fn choose_allocation(
    stream: &mut (impl Read + Write),
    name: &str,
) -> Result<Option<u32>, NegotiateError> {
    let mut data = Vec::new();
    push_string(&mut data, name)?;
    data.extend(1_u32.to_be_bytes());
    push_string(&mut data, allocation::CONTEXT)?;
    send_option(stream, option::SET_META_CONTEXT, &data)?;
    let mut number = None;
    for _ in 0..MAX_REPLIES {
        let (reply, data) = read_reply(stream, option::SET_META_CONTEXT)?;
        match (reply, data.split_first_chunk()) {
            (option_reply::ACK, _) => return Ok(number),
            (option_reply::META_CONTEXT, Some((id, name))) => {
                if name == allocation::CONTEXT.as_bytes() {
                    number = Some(u32::from_be_bytes(*id));
                }
            }
            (reply, _) if reply & option_reply::ERROR != 0 => return Ok(None),
            _ => return Err(Protocol("the server answers SET_META_CONTEXT with something else")),
        }
    }
    Err(Protocol("the server does not end the reply to SET_META_CONTEXT"))
}

/// Whether the server leaves out the zeros after `EXPORT_NAME`.
fn greet(stream: &mut (impl Read + Write)) -> Result<bool, NegotiateError> {
    if read_u64(stream)? != MAGIC {
        return Err(Protocol("the peer does not greet as an NBD server does"));
    }
    if read_u64(stream)? != OPTION_MAGIC {
        return Err(Protocol("the server speaks the old style of NBD, without negotiation"));
    }
    let flags = read_u16(stream)?;
    if flags & handshake::FIXED_NEWSTYLE == 0 {
        return Err(Protocol("the server does not speak the fixed newstyle of NBD"));
    }
    let ours = flags & (handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES);
    stream.write_all(&u32::from(ours).to_be_bytes())?;
    Ok(ours & handshake::NO_ZEROES != 0)
}

fn go(stream: &mut (impl Read + Write), name: &str) -> Result<Export, NegotiateError> {
    let mut data = Vec::new();
    push_string(&mut data, name)?;
    data.extend(1_u16.to_be_bytes());
    data.extend(info::BLOCK_SIZE.to_be_bytes());
    send_option(stream, option::GO, &data)?;
    let (mut facts, mut blocks) = (None, None);
    for _ in 0..MAX_REPLIES {
        let (reply, data) = read_reply(stream, option::GO)?;
        match reply {
            option_reply::ACK => {
                let (size, flags) = facts.ok_or(Protocol("the server does not say the size"))?;
                return Ok(Export { size, flags, blocks });
            }
            option_reply::INFO => read_info(&data, &mut facts, &mut blocks)?,
            reply if reply & option_reply::ERROR != 0 => {
                let message = String::from_utf8_lossy(&data);
                let plain = message.chars().filter(|one| !one.is_control()).take(200).collect();
                return Err(NegotiateError::Refused { reply, message: plain });
            }
            _ => return Err(Protocol("the server answers GO with a reply of another option")),
        }
    }
    Err(Protocol("the server does not end the reply to GO"))
}

fn read_info(
    data: &[u8],
    facts: &mut Option<(u64, u16)>,
    blocks: &mut Option<Blocks>,
) -> Result<(), NegotiateError> {
    let mut data = data;
    let wrong = |_| Protocol("the server sends a fact of a wrong length");
    match read_u16(&mut data).map_err(wrong)? {
        info::EXPORT => {
            let (size, flags) = (read_u64(&mut data), read_u16(&mut data));
            *facts = Some((size.map_err(wrong)?, flags.map_err(wrong)?));
        }
        info::BLOCK_SIZE => {
            let mut size = || read_u32(&mut data).map_err(wrong);
            *blocks = Some(Blocks { minimum: size()?, preferred: size()?, maximum: size()? });
        }
        // Names and descriptions, or a fact that nobody has asked for.
        _ => {}
    }
    Ok(())
}

/// Refuses facts that no server may send.
fn checked(export: Export) -> Result<Export, NegotiateError> {
    if i64::try_from(export.size).is_err() {
        return Err(Protocol("the server says a size beyond 2^63 bytes"));
    }
    if !export.has(export::HAS_FLAGS) {
        return Err(Protocol("the server says no flags of the export"));
    }
    if let Some(Blocks { minimum, preferred, maximum }) = export.blocks {
        let sane = minimum.is_power_of_two()
            && minimum <= 64 << 10
            && preferred.is_power_of_two()
            && preferred >= minimum.max(512)
            && maximum >= preferred
            && (maximum == u32::MAX || maximum.is_multiple_of(minimum));
        if !sane {
            return Err(Protocol("the server says block sizes that contradict each other"));
        }
    }
    // A server that comes back with other headers serves the same export.
    let flags = export.flags & !(export::SEND_DF | export::BLOCK_STATUS_PAYLOAD);
    Ok(Export { flags, ..export })
}

fn push_string(data: &mut Vec<u8>, text: &str) -> Result<(), NegotiateError> {
    let count = u32::try_from(text.len()).map_err(|_| Protocol("the export's name is too long"))?;
    data.extend(count.to_be_bytes());
    data.extend(text.as_bytes());
    Ok(())
}

fn send_option(stream: &mut impl Write, option: u32, data: &[u8]) -> Result<(), NegotiateError> {
    let count = u32::try_from(data.len()).map_err(|_| Protocol("an option is too long"))?;
    let mut message = Vec::with_capacity(length::OPTION + data.len());
    message.extend(OPTION_MAGIC.to_be_bytes());
    message.extend(option.to_be_bytes());
    message.extend(count.to_be_bytes());
    message.extend(data);
    Ok(stream.write_all(&message)?)
}

/// The type and the data of the next reply.
fn read_reply(stream: &mut impl Read, option: u32) -> Result<(u32, Vec<u8>), NegotiateError> {
    if read_u64(stream)? != OPTION_REPLY_MAGIC || read_u32(stream)? != option {
        return Err(Protocol("the server answers an option with something else"));
    }
    let (reply, length) = (read_u32(stream)?, read_u32(stream)?);
    if length > MAX_REPLY {
        return Err(Protocol("the server answers an option with more than 64 KiB"));
    }
    let mut data = vec![0; length as usize];
    stream.read_exact(&mut data)?;
    Ok((reply, data))
}

fn read_u16(stream: &mut impl Read) -> std::io::Result<u16> {
    let mut bytes = [0; 2];
    stream.read_exact(&mut bytes)?;
    Ok(u16::from_be_bytes(bytes))
}

fn read_u32(stream: &mut impl Read) -> std::io::Result<u32> {
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

fn read_u64(stream: &mut impl Read) -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    Ok(u64::from_be_bytes(bytes))
}

#[cfg(test)]
#[path = "negotiate_tests.rs"]
mod tests;
