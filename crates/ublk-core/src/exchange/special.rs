//! Exchanges outside of the fast path, behind one branch of the fast exchanges.

use std::io;

use super::apart::{Back, Fronting};
use super::get_data::GetData;
use super::landing::Landings;
use super::lane::Receiver;
use super::rotating::Turns;
use super::{Arrival, Exchange, Tags};
use crate::driver::{Completion, Ring};
use crate::pass::Pass;
use crate::share::Share;
use crate::tag::Tag;
use crate::token::Token;

/// An exchange of one queue that does more than fetches and commits.
#[derive(Debug)]
pub(crate) enum Special {
    /// The server gives a buffer to each request after the announcement of the request.
    GetData(GetData),
    /// The kernel registers the requests of each tag in two slots in turn.
    Rotating {
        /// The exchange that fetches and commits.
        exchange: Exchange,
        /// The slots.
        turns: Turns,
    },
    /// Commits report the places of appends.
    Zoned {
        /// The exchange that fetches and commits.
        exchange: Exchange,
        /// The places of appends.
        landings: Landings,
    },
    /// Another reactor does the I/O.
    Front(Fronting),
    /// Another reactor fetches and commits.
    Back(Back),
}

impl Special {
    #[cold]
    pub(super) fn enter<R: Ring>(&mut self, ring: &mut R, group: u16) -> io::Result<()> {
        match self {
            Self::GetData(_) | Self::Back(_) => Ok(()),
            Self::Front(front) => front.exchange().enter(ring, group),
            Self::Rotating { exchange, .. } | Self::Zoned { exchange, .. } => {
                exchange.enter(ring, group)
            }
        }
    }

    #[cold]
    pub(super) fn arm<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        (share, depth): (Share, u16),
    ) -> io::Result<()> {
        match self {
            Self::GetData(exchange) => exchange.arm(pass, share.tags(depth)),
            Self::Front(front) => front.exchange().arm(pass, (share, depth)),
            Self::Back(_) => Ok(()),
            Self::Rotating { exchange, .. } | Self::Zoned { exchange, .. } => {
                exchange.arm(pass, (share, depth))
            }
        }
    }

    #[inline(never)]
    pub(super) fn completed<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        token: Token,
        completion: Completion,
    ) -> io::Result<Arrival> {
        match self {
            Self::GetData(exchange) => exchange.completed(pass, token.tag, completion.result),
            Self::Front(front) => front.completed(pass, token, completion),
            Self::Back(_) => unreachable!("the front has all commands"),
            Self::Rotating { exchange, .. } | Self::Zoned { exchange, .. } => {
                exchange.completed(pass, token, completion)
            }
        }
    }

    #[inline(never)]
    pub(super) fn emptied<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tags: Tags) {
        match self {
            Self::GetData(_) | Self::Front(_) | Self::Back(_) => {}
            Self::Rotating { exchange, .. } | Self::Zoned { exchange, .. } => {
                exchange.emptied(pass, tags);
            }
        }
    }

    #[inline(never)]
    pub(super) fn want<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        place: Option<u64>,
        sectors: u32,
    ) -> io::Result<()> {
        match self {
            Self::GetData(exchange) => exchange.want(pass, tag, place, sectors),
            _ => {
                unreachable!("the kernel asks for no buffer to lend pages")
            }
        }
    }

    #[inline(never)]
    pub(super) fn commit<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        result: i32,
    ) -> io::Result<()> {
        match self {
            Self::GetData(exchange) => exchange.commit(pass, tag, result),
            Self::Rotating { exchange, turns } => {
                exchange.set_slot(tag, turns.next(tag));
                exchange.commit(pass, tag, result)
            }
            Self::Zoned { exchange, landings } => {
                exchange.set_landing(tag, landings.take(tag));
                exchange.commit(pass, tag, result)
            }
            Self::Front(front) => front.exchange().commit(pass, tag, result),
            Self::Back(back) => {
                back.commit(tag, result);
                Ok(())
            }
        }
    }

    /// Sets the slot in which the kernel registers the next request of the tag.
    pub(super) fn set_slot(&mut self, tag: Tag, slot: u16) {
        match self {
            Self::Zoned { exchange, .. } => exchange.set_slot(tag, slot),
            _ => unreachable!("slots take turns outermost"),
        }
    }

    #[inline(never)]
    pub(super) fn flush<R: Ring>(&mut self, pass: &mut Pass<'_, R>) -> io::Result<()> {
        match self {
            Self::GetData(_) | Self::Back(_) => Ok(()),
            Self::Front(front) => front.exchange().flush(pass),
            Self::Rotating { exchange, .. } | Self::Zoned { exchange, .. } => exchange.flush(pass),
        }
    }

    #[cold]
    pub(super) fn wind_down(&mut self) {
        match self {
            Self::GetData(_) | Self::Back(_) => {}
            Self::Front(front) => front.exchange().wind_down(),
            Self::Rotating { exchange, .. } | Self::Zoned { exchange, .. } => exchange.wind_down(),
        }
    }

    #[cold]
    pub(super) fn leave<R: Ring>(&mut self, ring: &mut R, group: u16) -> io::Result<()> {
        match self {
            Self::GetData(_) | Self::Back(_) => Ok(()),
            Self::Front(front) => front.exchange().leave(ring, group),
            Self::Rotating { exchange, .. } | Self::Zoned { exchange, .. } => {
                exchange.leave(ring, group)
            }
        }
    }

    #[inline(never)]
    pub(super) fn is_open(&self) -> bool {
        match self {
            Self::GetData(exchange) => exchange.commands().is_open(),
            Self::Front(front) => front.is_open(),
            Self::Back(back) => back.is_open(),
            Self::Rotating { exchange, .. } | Self::Zoned { exchange, .. } => exchange.is_open(),
        }
    }

    /// The receiver of messages from another reactor.
    pub(super) fn ear(&mut self) -> Option<&mut Receiver> {
        match self {
            Self::Front(front) => Some(front.results()),
            Self::Back(back) => Some(back.requests()),
            _ => None,
        }
    }

    /// Takes messages from another reactor: commits results, or returns the tag of the next request.
    pub(super) fn listen<R: Ring>(&mut self, pass: &mut Pass<'_, R>) -> io::Result<Option<Tag>> {
        match self {
            Self::Front(front) => front.listen(pass).map(|()| None),
            Self::Back(back) => Ok(back.next()),
            _ => Ok(None),
        }
    }

    /// Publishes messages for another reactor.
    pub(super) fn show(&self) {
        match self {
            Self::Front(front) => front.show(),
            Self::Back(back) => back.show(),
            _ => {}
        }
    }

    /// Number of requests in another reactor.
    pub(super) fn away(&self) -> u32 {
        if let Self::Front(front) = self { front.away() } else { 0 }
    }
}
