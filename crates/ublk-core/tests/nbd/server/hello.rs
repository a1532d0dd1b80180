//! The negotiation.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use ublk_nbd::wire::{
    MAGIC, OPTION_MAGIC, OPTION_REPLY_MAGIC, allocation, export, handshake, info, option,
    option_reply,
};

use ublk_nbd::Headers;

use super::{State, lock};

/// The number of the context `base:allocation`.
pub(super) const CONTEXT: u32 = 4711;

/// Returns the headers that the client has asked for.
pub(super) fn negotiate(state: &State, stream: &mut &UnixStream) -> io::Result<Headers> {
    let manners = &state.manners;
    let offered = *lock(&state.offered);
    stream.write_all(&MAGIC.to_be_bytes())?;
    stream.write_all(&OPTION_MAGIC.to_be_bytes())?;
    let both = handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES;
    stream.write_all(&both.to_be_bytes())?;
    stream.read_exact(&mut [0; 4])?;
    let mut headers = Headers::Simple;
    loop {
        let mut header = [0; 16];
        stream.read_exact(&mut header)?;
        let number = u32::from_be_bytes(header[8..12].try_into().unwrap());
        let length = u32::from_be_bytes(header[12..].try_into().unwrap());
        let mut data = vec![0; length as usize];
        stream.read_exact(&mut data)?;
        let mut reply = |kind: u32, data: &[u8]| {
            let mut bytes = OPTION_REPLY_MAGIC.to_be_bytes().to_vec();
            bytes.extend(number.to_be_bytes());
            bytes.extend(kind.to_be_bytes());
            bytes.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
            bytes.extend(data);
            stream.write_all(&bytes)
        };
        match number {
            option::EXTENDED_HEADERS if offered == Headers::Extended => {
                headers = Headers::Extended;
                reply(option_reply::ACK, &[])?;
            }
            option::STRUCTURED_REPLY if offered.have_chunks() => {
                assert_ne!(headers, Headers::Extended, "a client has no use for both");
                headers = Headers::Structured;
                reply(option_reply::ACK, &[])?;
            }
            option::SET_META_CONTEXT if manners.extents => {
                assert!(headers.have_chunks() && data.ends_with(allocation::CONTEXT.as_bytes()));
                let context = [&CONTEXT.to_be_bytes()[..], allocation::CONTEXT.as_bytes()].concat();
                reply(option_reply::META_CONTEXT, &context)?;
                reply(option_reply::ACK, &[])?;
            }
            option::GO => {
                let mut facts = info::EXPORT.to_be_bytes().to_vec();
                facts.extend(manners.size.to_be_bytes());
                let more = match headers {
                    Headers::Simple => 0,
                    Headers::Structured => export::SEND_DF,
                    Headers::Extended => export::SEND_DF | export::BLOCK_STATUS_PAYLOAD,
                };
                facts.extend((manners.flags | more).to_be_bytes());
                reply(option_reply::INFO, &facts)?;
                if let Some(sizes) = manners.blocks {
                    let mut blocks = info::BLOCK_SIZE.to_be_bytes().to_vec();
                    blocks.extend(sizes.map(u32::to_be_bytes).concat());
                    reply(option_reply::INFO, &blocks)?;
                }
                reply(option_reply::ACK, &[])?;
                return Ok(headers);
            }
            _ => reply(option_reply::ERR_UNSUP, &[])?,
        }
    }
}
