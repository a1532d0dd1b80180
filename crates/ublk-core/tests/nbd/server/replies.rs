//! Requests, and the right replies.

use ublk_nbd::Headers;
use ublk_nbd::wire::{
    EXTENDED_REPLY_MAGIC, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, allocation, chunk, command,
};

use super::hello::CONTEXT;
use super::{Rng, State, lock};

/// A request.
#[derive(Clone, Copy)]
pub(super) struct Request {
    /// Of the connection; of the reply, unless the server misbehaves.
    pub(super) headers: Headers,
    pub(super) flags: u16,
    pub(super) command: u16,
    pub(super) cookie: [u8; 8],
    pub(super) offset: u64,
    pub(super) length: u32,
}

pub(super) fn simple(error: u32, cookie: [u8; 8], data: &[u8]) -> Vec<u8> {
    let mut bytes = SIMPLE_REPLY_MAGIC.to_be_bytes().to_vec();
    bytes.extend(error.to_be_bytes());
    bytes.extend(cookie);
    bytes.extend(data);
    bytes
}

impl Request {
    /// A chunk of the reply.
    pub(super) fn chunk(&self, flags: u16, kind: u16, data: &[&[u8]]) -> Vec<u8> {
        let data = data.concat();
        let extended = self.headers == Headers::Extended;
        let magic = if extended { EXTENDED_REPLY_MAGIC } else { STRUCTURED_REPLY_MAGIC };
        let mut bytes = magic.to_be_bytes().to_vec();
        bytes.extend(flags.to_be_bytes());
        bytes.extend(kind.to_be_bytes());
        bytes.extend(self.cookie);
        if extended {
            bytes.extend(self.offset.to_be_bytes());
            bytes.extend((data.len() as u64).to_be_bytes());
        } else {
            bytes.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        }
        bytes.extend(data);
        bytes
    }

    /// A whole reply without data.
    pub(super) fn done(&self) -> Vec<u8> {
        match self.headers {
            Headers::Simple | Headers::Structured => simple(0, self.cookie, &[]),
            Headers::Extended => self.chunk(chunk::DONE, chunk::NONE, &[]),
        }
    }

    pub(super) fn failure(&self, error: u32) -> Vec<u8> {
        if self.headers == Headers::Simple {
            return simple(error, self.cookie, &[]);
        }
        let message = b"on purpose";
        let length = u16::try_from(message.len()).unwrap().to_be_bytes();
        self.chunk(chunk::DONE, chunk::ERROR, &[&error.to_be_bytes(), &length, message])
    }

    pub(super) fn data(&self, state: &State) -> Vec<u8> {
        let begin = usize::try_from(self.offset).unwrap();
        lock(&state.disk)[begin..begin + self.length as usize].to_vec()
    }

    /// The first extent of a range: zeros are a hole. With extended headers, the offset decides whether the extent has
    /// 32 or 64 bits.
    fn extent(&self, state: &State) -> Vec<u8> {
        let data = self.data(state);
        let zero = data[0] == 0;
        let length = data.iter().take_while(|&&byte| (byte == 0) == zero).count();
        let flags = if zero { allocation::HOLE | allocation::ZERO } else { 0 };
        let length = u32::try_from(length).unwrap();
        if self.headers == Headers::Extended && self.offset.is_multiple_of(8192) {
            let words = [CONTEXT, 1, 0, length, 0, flags].map(u32::to_be_bytes);
            return self.chunk(chunk::DONE, chunk::BLOCK_STATUS_EXT, &[&words.concat()]);
        }
        let words = [CONTEXT, length, flags].map(u32::to_be_bytes);
        self.chunk(chunk::DONE, chunk::BLOCK_STATUS, &[&words.concat()])
    }

    /// The pieces of the reply, the last one last.
    pub(super) fn reply(&self, state: &State, rng: &mut Rng) -> Vec<Vec<u8>> {
        match (self.command, self.headers) {
            (command::READ, Headers::Simple) => vec![simple(0, self.cookie, &self.data(state))],
            (command::READ, _) => {
                let data = self.data(state);
                let count = if state.manners.shuffles { 1 + rng.next(6) } else { 1 };
                let mut ends: Vec<_> =
                    (1..count).map(|_| rng.next(u64::from(self.length))).chain([0]).collect();
                ends.push(self.length.into());
                ends.sort_unstable();
                ends.dedup();
                let mut pieces: Vec<_> = ends
                    .windows(2)
                    .map(|ends| {
                        let range =
                            usize::try_from(ends[0]).unwrap()..usize::try_from(ends[1]).unwrap();
                        let offset = (self.offset + ends[0]).to_be_bytes();
                        if data[range.clone()].iter().all(|&byte| byte == 0) {
                            let length = u32::try_from(range.len()).unwrap().to_be_bytes();
                            return self.chunk(0, chunk::OFFSET_HOLE, &[&offset, &length]);
                        }
                        self.chunk(0, chunk::OFFSET_DATA, &[&offset, &data[range]])
                    })
                    .collect();
                if pieces.len() == 1 && rng.next(2) == 0 {
                    // The only piece is the last one.
                    pieces[0][5] |= 1;
                } else {
                    pieces.push(self.chunk(chunk::DONE, chunk::NONE, &[]));
                }
                pieces
            }
            (command::BLOCK_STATUS, _) => vec![self.extent(state)],
            (_, Headers::Structured) if rng.next(2) == 0 => {
                vec![self.chunk(chunk::DONE, chunk::NONE, &[])]
            }
            _ => vec![self.done()],
        }
    }
}
