//! How requests come from the kernel and how their results go back.

use std::io;

use crate::buffers::Buffers;
use crate::driver::{Completion, Ring};
use crate::pass::Pass;
use crate::token::Token;

mod batch;
mod elements;
mod inbox;
mod per_io;

use batch::Batch;
pub(crate) use inbox::Tags;
use per_io::PerIo;

/// How often a command that the kernel could not take is sent again before its queue is lost.
const MAX_REFUSALS: u8 = 16;

/// The exchange of one queue.
#[expect(clippy::large_enum_variant, reason = "one for each queue, and it stays where it is")]
#[derive(Debug)]
pub(crate) enum Exchange {
    /// One command per request.
    PerIo(PerIo),
    /// One command for many.
    Batch(Batch),
}

/// What a completion of the exchange brings.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// A request.
    Request(u16),
    /// Requests, to be given back with [`Exchange::emptied`] once they have been begun.
    Requests(Tags),
    /// Nothing to do.
    Nothing,
    /// The kernel wants no more of something: see [`Exchange::is_open`].
    Closing,
    /// The kernel refuses a command for good, with this positive errno.
    Refused(i32),
}

impl Exchange {
    /// `features` are the device's `UBLK_F_*`.
    pub(crate) fn per_io(queue: u16, depth: u16, buffers: &Buffers, features: u64) -> Self {
        Self::PerIo(PerIo::new(queue, depth, buffers, features))
    }

    pub(crate) fn batch(queue: u16, depth: u16, buffers: &Buffers) -> io::Result<Self> {
        Ok(Self::Batch(Batch::new(queue, depth, buffers)?))
    }

    /// Asks for the queue's first requests.
    pub(crate) fn arm<R: Ring>(&mut self, pass: &mut Pass<'_, R>) -> io::Result<()> {
        match self {
            Self::PerIo(exchange) => exchange.arm(pass),
            Self::Batch(exchange) => exchange.arm(pass),
        }
    }

    /// Takes a completion of the exchange's own commands.
    #[inline(always)]
    pub(crate) fn completed<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        token: Token,
        completion: Completion,
    ) -> io::Result<Arrival> {
        match self {
            Self::PerIo(exchange) => exchange.completed(pass, token.tag, completion.result),
            Self::Batch(exchange) => exchange.completed(pass, token, completion),
        }
    }

    /// The requests of an arrival have been begun.
    #[inline]
    pub(crate) fn emptied<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tags: Tags,
    ) -> io::Result<()> {
        match self {
            Self::PerIo(_) => Ok(()),
            Self::Batch(exchange) => exchange.emptied(pass, tags),
        }
    }

    /// Answers the request of `tag`, at the latest with the next [`flush`](Self::flush), and asks
    /// for another.
    #[inline(always)]
    pub(crate) fn commit<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: u16,
        result: i32,
    ) -> io::Result<()> {
        match self {
            Self::PerIo(exchange) => exchange.commit(pass, tag, result),
            Self::Batch(exchange) => exchange.commit(pass, tag, result),
        }
    }

    /// Data of the tag's requests is copied to and from `memory` from its next commit on.
    #[cold]
    pub(crate) fn move_buffer(&mut self, tag: u16, memory: *mut u8) {
        match self {
            Self::PerIo(exchange) => exchange.move_buffer(tag, memory),
            Self::Batch(exchange) => exchange.move_buffer(tag, memory),
        }
    }

    /// The same, right behind the step that was just pushed and is linked to it. There is room.
    #[inline]
    pub(crate) fn commit_linked<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: u16, result: i32) {
        match self {
            Self::PerIo(exchange) => exchange.push_commit(pass, tag, result),
            Self::Batch(exchange) => exchange.push_lone(pass, tag, result),
        }
    }

    /// Pushes what has been put off until the end of the pass. Answers how many completions will
    /// be there at once, bringing nothing.
    #[inline]
    pub(crate) fn flush<R: Ring>(&mut self, pass: &mut Pass<'_, R>) -> io::Result<u32> {
        match self {
            Self::PerIo(_) => Ok(0),
            Self::Batch(exchange) => exchange.flush(pass),
        }
    }

    /// Gives back what the ring was lent; there must be nothing in flight.
    pub(crate) fn leave<R: Ring>(&mut self, pass: &mut Pass<'_, R>) -> io::Result<()> {
        match self {
            Self::PerIo(_) => Ok(()),
            Self::Batch(exchange) => exchange.leave(pass),
        }
    }

    /// Whether requests can still come, or answers to commits.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        match self {
            Self::PerIo(exchange) => exchange.is_open(),
            Self::Batch(exchange) => exchange.is_open(),
        }
    }
}
