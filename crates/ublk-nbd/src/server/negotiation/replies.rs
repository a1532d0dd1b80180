//! The replies to the options of a client.

use super::Export;
use crate::wire::{OPTION_REPLY_MAGIC, option_reply};

/// An error reply to an option, in place of the answer; `kind` is one of `option_reply::ERR_*`.
pub fn refusal(option: u32, kind: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    Replies { option, bytes: &mut bytes }.error(kind);
    bytes
}

/// The replies to an option.
pub(super) struct Replies<'a> {
    pub(super) option: u32,
    pub(super) bytes: &'a mut Vec<u8>,
}

impl Replies<'_> {
    pub(super) fn reply(&mut self, kind: u32, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let length = u32::try_from(length).unwrap_or_default();
        self.bytes.extend_from_slice(&OPTION_REPLY_MAGIC.to_be_bytes());
        self.bytes.extend_from_slice(&self.option.to_be_bytes());
        self.bytes.extend_from_slice(&kind.to_be_bytes());
        self.bytes.extend_from_slice(&length.to_be_bytes());
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
    }

    pub(super) fn ack(&mut self) {
        self.reply(option_reply::ACK, &[]);
    }

    pub(super) fn error(&mut self, kind: u32) {
        self.reply(kind, &[]);
    }

    pub(super) fn info(&mut self, kind: u16, parts: &[&[u8]]) {
        let kind = kind.to_be_bytes();
        let parts: Vec<&[u8]> = [&kind[..]].into_iter().chain(parts.iter().copied()).collect();
        self.reply(option_reply::INFO, &parts);
    }

    pub(super) fn server(&mut self, export: &Export<'_>) {
        let name = export.name.as_bytes();
        let length = u32::try_from(name.len()).unwrap_or_default().to_be_bytes();
        self.reply(option_reply::SERVER, &[&length, name, export.description.as_bytes()]);
    }
}
