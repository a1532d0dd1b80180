//! Replies on their way to a client: as many as are ready go in one call.

use crate::tag::Tag;
use std::collections::VecDeque;
use std::mem;

use ublk_nbd::server::reply::{Header, LONGEST};

/// The most replies of a call.
const MOST: usize = 64;

/// The bytes of a reply behind the header.
#[derive(Debug)]
pub(super) enum Body {
    /// None.
    Empty,
    /// The buffer of a tag, which is given back once sent.
    Tag { tag: Tag, address: u64, length: u32 },
    /// Other bytes.
    Bytes(Box<[u8]>),
}

/// A reply, or a part of a reply.
#[derive(Debug)]
pub(super) struct Reply {
    /// Absent for the second and later parts of a simple reply.
    pub(super) header: Option<Header>,
    pub(super) body: Body,
}

/// The replies of a connection.
#[derive(Debug)]
pub(super) struct Outbox {
    waiting: VecDeque<Reply>,
    /// Replies behind a simple reply of several parts.
    deferred: VecDeque<Reply>,
    /// Whether the parts of a simple reply must follow each other.
    streams: bool,
    batch: Batch,
}

/// A call of sendmsg(2), with all memory used by the call.
struct Batch {
    message: libc::msghdr,
    vectors: Vec<libc::iovec>,
    headers: Vec<[u8; LONGEST]>,
    bodies: Vec<Box<[u8]>>,
    tags: Vec<Tag>,
    /// The first vector that has not been sent.
    first: usize,
    in_flight: bool,
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("in_flight", &self.in_flight).finish_non_exhaustive()
    }
}

impl Outbox {
    pub(super) fn new() -> Self {
        // SAFETY: a msghdr of zeros has no address, no vectors and no control data.
        let message = unsafe { mem::zeroed() };
        let batch = Batch {
            message,
            vectors: Vec::with_capacity(2 * MOST),
            headers: Vec::with_capacity(MOST),
            bodies: Vec::new(),
            tags: Vec::with_capacity(MOST),
            first: 0,
            in_flight: false,
        };
        Self { waiting: VecDeque::new(), deferred: VecDeque::new(), streams: false, batch }
    }

    /// The number of replies that have not begun to be sent.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len() + self.deferred.len()
    }

    pub(super) fn push(&mut self, reply: Reply) {
        if self.streams { self.deferred.push_back(reply) } else { self.waiting.push_back(reply) }
    }

    /// A part of a simple reply: other replies wait until the `last`.
    pub(super) fn push_part(&mut self, reply: Reply, last: bool) {
        self.waiting.push_back(reply);
        self.streams = !last;
        if last {
            self.waiting.append(&mut self.deferred);
        }
    }

    /// Whether a call is under way.
    pub(super) fn is_sending(&self) -> bool {
        self.batch.in_flight
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting() == 0 && !self.batch.in_flight && self.batch.is_sent()
    }

    /// Takes the tags of all replies but those of a call under way, and drops the replies.
    pub(super) fn clear(&mut self) -> Vec<Tag> {
        self.streams = false;
        // The rest of a call that has sent only a part.
        let mut tags = if self.batch.in_flight { Vec::new() } else { self.failed() };
        let all = self.waiting.drain(..).chain(self.deferred.drain(..));
        tags.extend(all.filter_map(|reply| match reply.body {
            Body::Tag { tag, .. } => Some(tag),
            _ => None,
        }));
        tags
    }

    /// The message for sendmsg(2), if there is something to send and no call under way. The message
    /// stays where it is until [`sent`](Self::sent).
    pub(super) fn begin(&mut self) -> Option<*const libc::msghdr> {
        if self.batch.in_flight {
            return None;
        }
        if self.batch.is_sent() {
            self.batch.fill(&mut self.waiting);
        }
        self.batch.message()
    }

    /// The call has sent `count` bytes. When all replies of the call have been sent, `done` hears of
    /// their tags.
    pub(super) fn sent(&mut self, count: usize, mut done: impl FnMut(Tag)) {
        let batch = &mut self.batch;
        batch.in_flight = false;
        batch.advance(count);
        if batch.is_sent() {
            batch.tags.drain(..).for_each(&mut done);
            batch.bodies.clear();
        }
    }

    /// The call has failed, and nothing is sent any more.
    pub(super) fn failed(&mut self) -> Vec<Tag> {
        let batch = &mut self.batch;
        batch.in_flight = false;
        batch.first = batch.vectors.len();
        batch.bodies.clear();
        mem::take(&mut batch.tags)
    }
}

impl Batch {
    fn is_sent(&self) -> bool {
        self.first == self.vectors.len()
    }

    fn fill(&mut self, waiting: &mut VecDeque<Reply>) {
        self.vectors.clear();
        self.headers.clear();
        self.first = 0;
        while self.headers.len() < MOST {
            let Some(Reply { header, body }) = waiting.pop_front() else { break };
            // Each reply takes a place, so that no place ever moves.
            self.headers.push([0; LONGEST]);
            if let (Some(header), Some(place)) = (header, self.headers.last_mut()) {
                let bytes = header.bytes();
                place[..bytes.len()].copy_from_slice(bytes);
                self.vectors.push(vector(place.as_ptr(), bytes.len()));
            }
            match body {
                Body::Empty => {}
                Body::Tag { tag, address, length } => {
                    let base = super::buffer(address);
                    self.vectors.push(vector(base, length as usize));
                    self.tags.push(tag);
                }
                Body::Bytes(bytes) => {
                    self.vectors.push(vector(bytes.as_ptr(), bytes.len()));
                    self.bodies.push(bytes);
                }
            }
        }
    }

    fn message(&mut self) -> Option<*const libc::msghdr> {
        let left = &mut self.vectors[self.first..];
        if left.is_empty() {
            return None;
        }
        self.message.msg_iov = left.as_mut_ptr();
        // The type differs between C libraries.
        #[allow(clippy::useless_conversion)]
        {
            self.message.msg_iovlen = left.len().try_into().unwrap_or_default();
        }
        self.in_flight = true;
        Some(&raw const self.message)
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(vector) = self.vectors.get_mut(self.first) {
            if count < vector.iov_len {
                vector.iov_base = vector.iov_base.wrapping_byte_add(count);
                vector.iov_len -= count;
                return;
            }
            count -= vector.iov_len;
            self.first += 1;
        }
    }
}

fn vector(base: *const u8, length: usize) -> libc::iovec {
    libc::iovec { iov_base: base.cast_mut().cast(), iov_len: length }
}

#[cfg(test)]
mod tests {
    use ublk_nbd::server::reply::To;
    use ublk_nbd::{Headers, Request};

    use super::*;

    fn done(cookie: u64) -> Option<Header> {
        let request = Request { flags: 0, command: 0, cookie, offset: 0, length: 0 };
        Some(To::request(&request, Headers::Simple).end(0))
    }

    fn plain(cookie: u64) -> Reply {
        Reply { header: done(cookie), body: Body::Empty }
    }

    fn data(cookie: u64, tag: Tag, bytes: &[u8]) -> Reply {
        let address = bytes.as_ptr().expose_provenance() as u64;
        let length = u32::try_from(bytes.len()).unwrap();
        let body = Body::Tag { tag, address, length };
        Reply { header: done(cookie), body }
    }

    /// Sends all, at most `most` bytes a call.
    fn send(outbox: &mut Outbox, most: usize) -> (Vec<u8>, Vec<Tag>) {
        let (mut bytes, mut tags) = (Vec::new(), Vec::new());
        while let Some(message) = outbox.begin() {
            assert!(outbox.is_sending() && outbox.begin().is_none());
            // SAFETY: the message and all of its memory live until `sent`.
            let vectors =
                unsafe { std::slice::from_raw_parts((*message).msg_iov, (*message).msg_iovlen) };
            let mut count = 0;
            for vector in vectors {
                let length = vector.iov_len.min(most - count);
                // SAFETY: as above.
                bytes.extend_from_slice(unsafe {
                    std::slice::from_raw_parts(vector.iov_base.cast::<u8>(), length)
                });
                count += length;
            }
            outbox.sent(count, |tag| tags.push(tag));
        }
        (bytes, tags)
    }

    fn cookies(bytes: &[u8]) -> Vec<u8> {
        bytes.chunks(16).map(|header| header[15]).collect()
    }

    #[test]
    fn replies_that_are_sent_in_fragments_arrive_whole_and_in_order() {
        let disk = [7_u8; 16];
        for most in [1, 5, 16, 1000] {
            let mut outbox = Outbox::new();
            (1..=100).for_each(|cookie| outbox.push(plain(cookie)));
            outbox.push(data(101, Tag::new(9), &disk));
            let (bytes, tags) = send(&mut outbox, most);
            let expected: Vec<u8> = (1..=101).collect();
            assert_eq!(cookies(&bytes[..101 * 16]), expected, "{most} bytes a call");
            assert_eq!((&bytes[101 * 16..], tags), (&disk[..], vec![Tag::new(9)]));
            assert!(outbox.is_empty());
        }
    }

    #[test]
    fn nothing_comes_between_the_parts_of_a_simple_reply() {
        let mut outbox = Outbox::new();
        let part = |cookie| plain(cookie);
        outbox.push(plain(1));
        outbox.push_part(part(2), false);
        outbox.push(plain(9));
        outbox.push_part(part(3), false);
        outbox.push_part(part(4), true);
        outbox.push(plain(10));
        assert_eq!(cookies(&send(&mut outbox, 7).0), [1, 2, 3, 4, 9, 10]);
    }

    #[test]
    fn a_connection_that_ends_between_two_calls_of_one_batch_gives_all_tags_back() {
        let disk = [0_u8; 16];
        let mut outbox = Outbox::new();
        outbox.push(data(1, Tag::new(4), &disk));
        outbox.push(data(2, Tag::new(5), &disk));
        outbox.begin().unwrap();
        outbox.sent(40, |_| panic!("a part is not all"));
        assert!(!outbox.is_empty());
        assert_eq!(outbox.clear(), [Tag::new(4), Tag::new(5)]);
        assert!(outbox.is_empty() && outbox.begin().is_none());
    }

    #[test]
    fn a_connection_that_fails_gives_all_tags_back() {
        let disk = [0_u8; 16];
        let mut outbox = Outbox::new();
        outbox.push(data(1, Tag::new(4), &disk));
        outbox.begin().unwrap();
        outbox.push(data(2, Tag::new(5), &disk));
        assert_eq!((outbox.clear(), outbox.failed()), (vec![Tag::new(5)], vec![Tag::new(4)]));
        assert!(outbox.is_empty() && outbox.begin().is_none());
    }
}
