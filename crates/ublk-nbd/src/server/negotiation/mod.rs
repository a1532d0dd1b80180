//! The negotiation of a connection: the state, and the answer to each option.

use crate::Headers;
use crate::wire::{MAGIC, OPTION_MAGIC, export, handshake, info, option, option_reply};

mod contexts;
mod options;
mod replies;
#[cfg(test)]
mod tests;

pub use contexts::{ALLOCATION, Contexts, DIFF};
pub use options::{MAX_OPTION, OptionHeader};
pub use replies::refusal;

use options::{read_contexts, read_info};
use replies::Replies;

/// The length of [`greeting`], in bytes.
pub const GREETING: usize = 18;

/// Facts of the only export.
#[derive(Clone, Copy, Debug)]
pub struct Export<'a> {
    /// The name; the empty name means the same export.
    pub name: &'a str,
    /// For people.
    pub description: &'a str,
    /// In bytes.
    pub size: u64,
    /// `export::*`, of a client with replies in chunks.
    pub flags: u16,
    /// Whether the export has the context `qemu:dirty-bitmap:diff`.
    pub tells_diff: bool,
    /// The smallest, the preferred and the largest length of a request, in bytes.
    pub blocks: [u32; 3],
    /// Whether clients must use TLS.
    pub tls: bool,
}

/// The outcome of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The next option follows.
    Continue,
    /// The TLS handshake follows, and then the next option.
    Secure,
    /// Requests follow.
    Transmit,
    /// The connection ends.
    Close,
}

/// The first bytes of a server.
pub fn greeting() -> [u8; GREETING] {
    let flags = handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES;
    let mut bytes = [0; GREETING];
    bytes[..8].copy_from_slice(&MAGIC.to_be_bytes());
    bytes[8..16].copy_from_slice(&OPTION_MAGIC.to_be_bytes());
    bytes[16..].copy_from_slice(&flags.to_be_bytes());
    bytes
}

/// The state of a negotiation, and the choices of the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Negotiation {
    no_zeroes: bool,
    /// Whether the client uses TLS.
    secure: bool,
    /// The headers that the client has asked for.
    pub headers: Headers,
    /// The contexts chosen by the client.
    pub contexts: Contexts,
}

impl Negotiation {
    /// Begins with the client's answer to the [`greeting`]. None for unknown flags: the connection
    /// must end.
    pub fn new(client: u32) -> Option<Self> {
        let fixed = u32::from(handshake::FIXED_NEWSTYLE);
        let no_zeroes = u32::from(handshake::NO_ZEROES);
        (client & !(fixed | no_zeroes) == 0)
            .then(|| Self { no_zeroes: client & no_zeroes != 0, ..Self::default() })
    }

    /// The transmission flags told to this client.
    pub fn flags(&self, export: &Export<'_>) -> u16 {
        if self.headers.have_chunks() { export.flags } else { export.flags & !export::SEND_DF }
    }

    /// Answers an option with `replies`.
    pub fn answer(
        &mut self,
        export: &Export<'_>,
        option: u32,
        data: &[u8],
        replies: &mut Vec<u8>,
    ) -> Step {
        let mut replies = Replies { option, bytes: replies };
        let plain = export.tls && !self.secure;
        match option {
            option::STARTTLS if !export.tls => replies.error(option_reply::ERR_UNSUP),
            option::STARTTLS if self.secure || !data.is_empty() => {
                replies.error(option_reply::ERR_INVALID);
            }
            option::STARTTLS => {
                self.secure = true;
                replies.ack();
                return Step::Secure;
            }
            option::EXPORT_NAME if plain => return Step::Close,
            option::ABORT => {
                replies.ack();
                return Step::Close;
            }
            _ if plain => replies.error(option_reply::ERR_TLS_REQD),
            // Not after EXTENDED_HEADERS; an error reply does not exist.
            option::EXPORT_NAME if self.headers == Headers::Extended => return Step::Close,
            option::EXPORT_NAME => return self.export_name(export, data, &mut replies),
            option::LIST if !data.is_empty() => replies.error(option_reply::ERR_INVALID),
            option::LIST => {
                replies.server(export);
                replies.ack();
            }
            option::INFO | option::GO => {
                if self.info(export, data, &mut replies) && option == option::GO {
                    return Step::Transmit;
                }
            }
            option::STRUCTURED_REPLY | option::EXTENDED_HEADERS if !data.is_empty() => {
                replies.error(option_reply::ERR_INVALID);
            }
            option::STRUCTURED_REPLY if self.headers == Headers::Extended => {
                replies.error(option_reply::ERR_EXT_HEADER_REQD);
            }
            option::STRUCTURED_REPLY => {
                self.headers = Headers::Structured;
                replies.ack();
            }
            option::EXTENDED_HEADERS => {
                self.headers = Headers::Extended;
                replies.ack();
            }
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => {
                self.contexts(export, data, &mut replies);
            }
            _ => replies.error(option_reply::ERR_UNSUP),
        }
        Step::Continue
    }

    /// Has no error reply: a client with a wrong name is sent away.
    fn export_name(&self, export: &Export<'_>, data: &[u8], replies: &mut Replies<'_>) -> Step {
        if !export.is_named(data) {
            return Step::Close;
        }
        replies.bytes.extend_from_slice(&export.size.to_be_bytes());
        replies.bytes.extend_from_slice(&self.flags(export).to_be_bytes());
        if !self.no_zeroes {
            replies.bytes.extend_from_slice(&[0; 124]);
        }
        Step::Transmit
    }

    /// Whether the client may go on to requests.
    fn info(&self, export: &Export<'_>, data: &[u8], replies: &mut Replies<'_>) -> bool {
        let Some((name, asked)) = read_info(data) else {
            replies.error(option_reply::ERR_INVALID);
            return false;
        };
        if !export.is_named(name) {
            replies.error(option_reply::ERR_UNKNOWN);
            return false;
        }
        let asks = |kind: u16| asked.chunks_exact(2).any(|one| one == kind.to_be_bytes());
        replies
            .info(info::EXPORT, &[&export.size.to_be_bytes(), &self.flags(export).to_be_bytes()]);
        if asks(info::NAME) {
            replies.info(info::NAME, &[export.name.as_bytes()]);
        }
        if asks(info::DESCRIPTION) {
            replies.info(info::DESCRIPTION, &[export.description.as_bytes()]);
        }
        let [least, preferred, most] = export.blocks.map(u32::to_be_bytes);
        replies.info(info::BLOCK_SIZE, &[&least, &preferred, &most]);
        replies.ack();
        true
    }

    fn contexts(&mut self, export: &Export<'_>, data: &[u8], replies: &mut Replies<'_>) {
        let sets = replies.option == option::SET_META_CONTEXT;
        if sets {
            // A failed choice leaves the client without contexts.
            self.contexts = Contexts::default();
        }
        let Some((name, chosen)) = read_contexts(data, sets).filter(|_| self.headers.have_chunks())
        else {
            return replies.error(option_reply::ERR_INVALID);
        };
        if !export.is_named(name) {
            return replies.error(option_reply::ERR_UNKNOWN);
        }
        let chosen = Contexts { diff: chosen.diff && export.tells_diff, ..chosen };
        for (id, name) in chosen.named() {
            let id = if sets { id } else { 0 };
            replies.reply(option_reply::META_CONTEXT, &[&id.to_be_bytes(), name.as_bytes()]);
        }
        if sets {
            self.contexts = chosen;
        }
        replies.ack();
    }
}

impl Export<'_> {
    fn is_named(&self, name: &[u8]) -> bool {
        name.is_empty() || name == self.name.as_bytes()
    }
}
