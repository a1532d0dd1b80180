//! Front and back apart (`UBLK_F_BUF_REG_OFF_DAEMON`, Linux 6.17): one reactor fetches and commits,
//! another registers each request's buffer with its own ring, does the I/O, and unregisters.
//!
//! The kernel takes commits only from the thread that has fetched a tag, but registers a buffer
//! with whatever ring asks for it (ublk_register_io_buf in ublk_drv.c), holding on to the request
//! until it is unregistered. So a tag goes to the back once its request is there, and comes back
//! with its result when nothing of it is registered any more.

use std::io;

use super::lane::{Receiver, Sender, lane};
use super::{Arrival, Exchange};
use crate::driver::{Completion, Ring};
use crate::pass::Pass;
use crate::tag::Tag;
use crate::token::Token;

/// The front's end: requests go to the back, results come.
#[derive(Debug)]
pub struct Front {
    requests: Sender,
    results: Receiver,
}

/// The back's end: requests come, results go to the front.
#[derive(Debug)]
pub struct Back {
    requests: Receiver,
    results: Sender,
}

/// The two ends between the reactors of a queue of `depth` tags.
pub fn apart(depth: u16) -> (Front, Back) {
    let (there, requests) = lane(depth);
    let (back, results) = lane(depth);
    (Front { requests: there, results }, Back { requests, results: back })
}

/// What fetches and commits for another reactor.
#[derive(Debug)]
pub(crate) struct Fronting {
    exchange: Exchange,
    ends: Front,
    /// Requests that the back has.
    away: u32,
}

impl Fronting {
    pub(super) fn new(exchange: Exchange, ends: Front) -> Self {
        Self { exchange, ends, away: 0 }
    }

    pub(super) fn exchange(&mut self) -> &mut Exchange {
        &mut self.exchange
    }

    pub(super) fn results(&mut self) -> &mut Receiver {
        &mut self.ends.results
    }

    pub(super) fn away(&self) -> u32 {
        self.away
    }

    pub(super) fn is_open(&self) -> bool {
        self.exchange.is_open()
    }

    /// Hands requests on to the back.
    pub(super) fn completed<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        token: Token,
        completion: Completion,
    ) -> io::Result<Arrival> {
        match self.exchange.completed(pass, token, completion)? {
            Arrival::Request(tag) => self.hand_over(tag),
            Arrival::Requests(tags) => {
                (0..tags.len()).for_each(|index| self.hand_over(tags.get(index)));
                self.exchange.emptied(pass, tags);
            }
            other => return Ok(other),
        }
        Ok(Arrival::Nothing)
    }

    fn hand_over(&mut self, tag: Tag) {
        self.away += 1;
        self.ends.requests.write(tag.number().into());
    }

    /// Commits what the back has ended.
    pub(super) fn listen<R: Ring>(&mut self, pass: &mut Pass<'_, R>) -> io::Result<()> {
        while let Some(word) = self.ends.results.next() {
            let (tag, result) = parse(word);
            self.away -= 1;
            self.exchange.commit(pass, tag, result)?;
        }
        match self.ends.results.is_closed() {
            true => Err(io::Error::other("the thread that does the queue's I/O is gone")),
            false => Ok(()),
        }
    }

    pub(super) fn show(&self) {
        self.ends.requests.show();
    }
}

impl Back {
    pub(super) fn requests(&mut self) -> &mut Receiver {
        &mut self.requests
    }

    /// The tag of the next request.
    pub(super) fn next(&mut self) -> Option<Tag> {
        self.requests.next().map(|word| parse(word).0)
    }

    pub(super) fn commit(&mut self, tag: Tag, result: i32) {
        self.results
            .write(u64::from(tag.number()) | u64::from(result.cast_unsigned()) << RESULT_SHIFT);
    }

    pub(super) fn show(&self) {
        self.results.show();
    }

    /// Whether the front is there, which may have requests.
    pub(super) fn is_open(&self) -> bool {
        !self.requests.is_closed()
    }
}

/// Where a word has its result.
const RESULT_SHIFT: u32 = 32;

#[expect(clippy::cast_possible_truncation, reason = "each field is cut out of the word")]
fn parse(word: u64) -> (Tag, i32) {
    (Tag::new(word as u16), ((word >> RESULT_SHIFT) as u32).cast_signed())
}
