//! How requests come from the kernel and how their results go back.

use std::cell::Cell;
use std::rc::Rc;
use std::{io, mem};

use crate::buffers::{Arena, Buffers};
use crate::driver::{Completion, Ring};
use crate::pass::Pass;
use crate::share::Share;
use crate::tag::Tag;
use crate::token::Token;

mod apart;
mod batch;
mod bypass;
mod elements;
mod get_data;
mod inbox;
mod landing;
mod lane;
mod per_io;
mod rotating;
mod special;
#[cfg(test)]
mod tests;

use apart::Fronting;
pub use apart::{Back, Front, apart};
use batch::Batch;
pub(crate) use bypass::Bypass;
use get_data::GetData;
pub(crate) use inbox::Tags;
use landing::Landings;
use lane::Receiver;
use per_io::PerIo;
pub(crate) use per_io::registration;
use rotating::Turns;
use special::Special;

/// How often a command refused by the kernel is sent again before the queue is lost.
const MAX_REFUSALS: u8 = 16;

/// The exchange of a queue.
// A separate discriminant takes one comparison; a discriminant hidden in a variant takes several.
#[derive(Debug)]
#[repr(u8)]
#[expect(clippy::large_enum_variant, reason = "one for each queue, and it stays where it is")]
pub(crate) enum Exchange {
    /// A command for each request.
    PerIo(PerIo),
    /// A command for many requests.
    Batch(Batch),
    /// Something rarer.
    Special(Box<Special>),
}

/// The content of a completion of the exchange.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// A request.
    Request(Tag),
    /// A request whose bytes are, or are to come, in the memory at `address`.
    RequestIn {
        tag: Tag,
        address: u64,
        /// The length of the write before the copy of the data, in sectors; 0 for other requests.
        announced: u32,
    },
    /// A write whose data must be asked for with [`Exchange::want`].
    Wants(Tag),
    /// Requests; after beginning the requests, the reactor gives the tags back with
    /// [`Exchange::emptied`].
    Requests(Tags),
    /// Nothing to do.
    Nothing,
    /// The kernel accepts no more of some command: see [`Exchange::is_open`].
    Closing,
    /// The kernel refuses a command permanently, with this positive errno.
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

    /// Wraps the exchange for a zoned device: commits report the landing places of appends, in
    /// sectors, from `landings`.
    pub(crate) fn zoned(self, landings: Rc<[Cell<u64>]>) -> Self {
        let exchange = match self {
            Self::Batch(exchange) => Self::Batch(exchange.with_landings()),
            other => other,
        };
        Self::Special(Box::new(Special::Zoned { exchange, landings: Landings::new(landings) }))
    }

    /// Per-io, with the buffers of `arena`.
    pub(crate) fn get_data(queue: u16, depth: u16, arena: Arena, features: u64) -> Self {
        let commands = PerIo::new(queue, depth, &Buffers::GetData, features);
        Self::Special(Box::new(Special::GetData(GetData::new(commands, depth, arena))))
    }

    /// Wraps the exchange for another reactor, which does the I/O.
    pub(crate) fn fronting(self, ends: Front) -> Self {
        Self::Special(Box::new(Special::Front(Fronting::new(self, ends))))
    }

    /// Requests fetched and committed by another reactor.
    pub(crate) fn backing(ends: Back) -> Self {
        Self::Special(Box::new(Special::Back(ends)))
    }

    /// Wraps the exchange to alternate each tag's requests between two slots: `slots` now, `others`
    /// next.
    pub(crate) fn rotating(self, slots: Rc<[Cell<u16>]>, others: Box<[u16]>) -> Self {
        let turns = Turns::new(slots, others);
        Self::Special(Box::new(Special::Rotating { exchange: self, turns }))
    }

    /// Lends the ring the memory for deliveries, as the buffer group `group`.
    pub(crate) fn enter<R: Ring>(&mut self, ring: &mut R, group: u16) -> io::Result<()> {
        match self {
            Self::PerIo(_) => Ok(()),
            Self::Batch(exchange) => exchange.enter(ring, group),
            Self::Special(exchange) => exchange.enter(ring, group),
        }
    }

    /// Asks for the first requests of a queue with `depth` tags. With a command for each request,
    /// asks only for the tags of the share.
    pub(crate) fn arm<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        (share, depth): (Share, u16),
    ) -> io::Result<()> {
        match self {
            Self::PerIo(exchange) => exchange.arm(pass, share.tags(depth)),
            Self::Batch(exchange) => exchange.arm(pass),
            Self::Special(exchange) => exchange.arm(pass, (share, depth)),
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
            Self::Special(exchange) => exchange.completed(pass, token, completion),
        }
    }

    /// The requests of an arrival have been begun.
    #[inline]
    pub(crate) fn emptied<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tags: Tags) {
        match self {
            Self::PerIo(_) => {}
            Self::Batch(exchange) => exchange.emptied(pass, tags),
            Self::Special(exchange) => exchange.emptied(pass, tags),
        }
    }

    /// Answers the request of `tag`, at the latest with the next [`flush`](Self::flush), and asks
    /// for another.
    #[inline(always)]
    pub(crate) fn commit<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        result: i32,
    ) -> io::Result<()> {
        match self {
            Self::PerIo(exchange) => exchange.commit(pass, tag, result),
            Self::Batch(exchange) => exchange.commit(pass, tag, result),
            Self::Special(exchange) => exchange.commit(pass, tag, result),
        }
    }

    /// From the tag's next commit on, the kernel copies data of the tag's requests to and from
    /// `memory`.
    #[cold]
    pub(crate) fn move_buffer(&mut self, tag: Tag, memory: *mut u8) {
        match self {
            Self::PerIo(exchange) => exchange.set_memory(tag, memory as u64),
            Self::Batch(exchange) => exchange.set_memory(tag, memory as u64),
            // A special exchange has no permanent buffers.
            Self::Special(_) => {}
        }
    }

    /// [`commit`](Self::commit), right behind a step just pushed and linked to the commit. There is
    /// room.
    #[inline]
    pub(crate) fn commit_linked<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag, result: i32) {
        match self {
            Self::PerIo(exchange) => exchange.push_commit(pass, tag, result),
            Self::Batch(exchange) => exchange.push_lone(pass, tag, result),
            Self::Special(_) => unreachable!("the engine links nothing there"),
        }
    }

    /// Pushes everything put off until the end of the pass.
    #[inline]
    pub(crate) fn flush<R: Ring>(&mut self, pass: &mut Pass<'_, R>) -> io::Result<()> {
        match self {
            Self::PerIo(_) => Ok(()),
            Self::Batch(exchange) => exchange.flush(pass),
            Self::Special(exchange) => exchange.flush(pass),
        }
    }

    /// Takes back the memory lent to the ring; nothing may be in flight.
    pub(crate) fn leave<R: Ring>(&mut self, ring: &mut R, group: u16) -> io::Result<()> {
        match self {
            Self::PerIo(_) => Ok(()),
            Self::Batch(exchange) => exchange.leave(ring, group),
            Self::Special(exchange) => exchange.leave(ring, group),
        }
    }

    /// Gives up memory that running requests may still use: no reactor will see these requests end.
    pub(crate) fn abandon(&mut self) {
        if let Self::Special(exchange) = self {
            if exchange.ear().is_some() {
                // There is no memory here, and the other end must learn of this reactor's end.
                return;
            }
            let nothing = Self::per_io(0, 0, &Buffers::UserCopy, 0);
            let nothing = Special::Rotating { exchange: nothing, turns: Turns::default() };
            mem::forget(mem::replace(exchange, Box::new(nothing)));
        }
    }

    /// Asks for the data of an announced write of `sectors`; the data is copied to a buffer, or lies at
    /// `place` already.
    #[cold]
    pub(crate) fn want<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        place: Option<u64>,
        sectors: u32,
    ) -> io::Result<()> {
        match self {
            Self::Special(exchange) => exchange.want(pass, tag, place, sectors),
            _ => unreachable!("the kernel asks for no buffer where each tag has one"),
        }
    }

    fn set_slot(&mut self, tag: Tag, slot: u16) {
        match self {
            Self::PerIo(exchange) => exchange.set_slot(tag, slot),
            Self::Batch(exchange) => exchange.set_slot(tag, slot),
            Self::Special(exchange) => exchange.set_slot(tag, slot),
        }
    }

    /// Sets the landing place, in sectors, of the append answered by the tag's next commit.
    fn set_landing(&mut self, tag: Tag, sector: u64) {
        match self {
            Self::PerIo(exchange) => exchange.set_memory(tag, sector),
            Self::Batch(exchange) => exchange.set_memory(tag, sector),
            Self::Special(_) => unreachable!("what commits is innermost"),
        }
    }

    /// The reactor leaves: the kernel may hand over no more requests than there is room for.
    #[cold]
    pub(crate) fn wind_down(&mut self) {
        match self {
            Self::PerIo(_) => {}
            Self::Batch(exchange) => exchange.wind_down(),
            Self::Special(exchange) => exchange.wind_down(),
        }
    }

    /// Whether requests can still come, or answers to commits.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        match self {
            Self::PerIo(exchange) => exchange.is_open(),
            Self::Batch(exchange) => exchange.is_open(),
            Self::Special(exchange) => exchange.is_open(),
        }
    }

    /// The receiver of another reactor's messages, where front and back are apart.
    #[cold]
    pub(crate) fn ear(&mut self) -> Option<&mut Receiver> {
        if let Self::Special(exchange) = self { exchange.ear() } else { None }
    }

    /// Takes another reactor's messages: commits the results, or returns the tag of the next
    /// request.
    ///
    /// # Errors
    /// When the other reactor is gone and has requests of this reactor.
    #[cold]
    pub(crate) fn listen<R: Ring>(&mut self, pass: &mut Pass<'_, R>) -> io::Result<Option<Tag>> {
        if let Self::Special(exchange) = self { exchange.listen(pass) } else { Ok(None) }
    }

    /// Publishes messages to another reactor.
    #[cold]
    pub(crate) fn show(&self) {
        if let Self::Special(exchange) = self {
            exchange.show();
        }
    }

    /// The number of requests at another reactor.
    pub(crate) fn away(&self) -> u32 {
        if let Self::Special(exchange) = self { exchange.away() } else { 0 }
    }
}
