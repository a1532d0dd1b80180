//! Requests, and the right replies.

use ublk_nbd::wire::{SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, allocation, chunk, command};

use super::hello::CONTEXT;
use super::{Rng, State, lock};

/// A request.
pub(super) struct Request {
    pub(super) flags: u16,
    pub(super) command: u16,
    pub(super) cookie: [u8; 8],
    pub(super) offset: u64,
    pub(super) length: u32,
}

pub(super) fn chunk(flags: u16, kind: u16, cookie: [u8; 8], data: &[&[u8]]) -> Vec<u8> {
    let data = data.concat();
    let mut bytes = STRUCTURED_REPLY_MAGIC.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(cookie);
    bytes.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend(data);
    bytes
}

pub(super) fn simple(error: u32, cookie: [u8; 8], data: &[u8]) -> Vec<u8> {
    let mut bytes = SIMPLE_REPLY_MAGIC.to_be_bytes().to_vec();
    bytes.extend(error.to_be_bytes());
    bytes.extend(cookie);
    bytes.extend(data);
    bytes
}

impl Request {
    pub(super) fn failure(&self, structured: bool, error: u32) -> Vec<u8> {
        if !structured {
            return simple(error, self.cookie, &[]);
        }
        let message = b"on purpose";
        let length = u16::try_from(message.len()).unwrap().to_be_bytes();
        chunk(chunk::DONE, chunk::ERROR, self.cookie, &[&error.to_be_bytes(), &length, message])
    }

    pub(super) fn data(&self, state: &State) -> Vec<u8> {
        let begin = usize::try_from(self.offset).unwrap();
        lock(&state.disk)[begin..begin + self.length as usize].to_vec()
    }

    /// The first extent of a range: zeros are a hole.
    fn extent(&self, state: &State) -> Vec<u8> {
        let data = self.data(state);
        let zero = data[0] == 0;
        let length = data.iter().take_while(|&&byte| (byte == 0) == zero).count();
        let flags = if zero { allocation::HOLE | allocation::ZERO } else { 0 };
        let words = [CONTEXT, u32::try_from(length).unwrap(), flags].map(u32::to_be_bytes);
        chunk(chunk::DONE, chunk::BLOCK_STATUS, self.cookie, &[&words.concat()])
    }

    /// The pieces of the reply, the last one last.
    pub(super) fn reply(&self, state: &State, structured: bool, rng: &mut Rng) -> Vec<Vec<u8>> {
        let cookie = self.cookie;
        match (self.command, structured) {
            (command::READ, false) => vec![simple(0, cookie, &self.data(state))],
            (command::READ, true) => {
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
                            return chunk(0, chunk::OFFSET_HOLE, cookie, &[&offset, &length]);
                        }
                        chunk(0, chunk::OFFSET_DATA, cookie, &[&offset, &data[range]])
                    })
                    .collect();
                if pieces.len() == 1 && rng.next(2) == 0 {
                    // The only piece is the last one.
                    pieces[0][5] |= 1;
                } else {
                    pieces.push(chunk(chunk::DONE, chunk::NONE, cookie, &[]));
                }
                pieces
            }
            (command::BLOCK_STATUS, _) => vec![self.extent(state)],
            (_, true) if rng.next(2) == 0 => vec![chunk(chunk::DONE, chunk::NONE, cookie, &[])],
            _ => vec![simple(0, cookie, &[])],
        }
    }
}
