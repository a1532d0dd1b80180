//! A client in transmission.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use ublk_nbd::Headers;
use ublk_nbd::server::limits::Limits;
use ublk_nbd::server::negotiation::Contexts;

use super::door::{Guest, Permit, shut_down};
use super::facts::Facts;
use super::outbox::Outbox;
use super::receiving::Receiving;
use crate::tag::Tag;

/// What a connection does with the bytes that the client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// A request's header comes next.
    Header,
    /// Parts of the job are to be made.
    Issue(u32),
    /// The data of a part of a write comes next, into the buffer of the tag.
    Payload { job: u32, tag: Tag, at: u32 },
    /// The data of a refused write comes next.
    Skip(u32),
    /// Another thread looks for the answer to this job.
    Look(u32),
    /// No request is accepted any more.
    Ended,
}

/// A client in transmission.
#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    /// The kernel encrypts and decrypts.
    pub(super) tls: bool,
    /// Agreed on with the client.
    pub(super) headers: Headers,
    pub(super) contexts: Contexts,
    _permit: Permit,
    pub(super) phase: Phase,
    pub(super) receiving: Receiving,
    pub(super) outbox: Outbox,
    /// The client's requests under way.
    pub(super) jobs: u32,
    /// The tags of these requests, and of replies that have not been sent.
    pub(super) tags: u16,
    /// In the list of connections that want a tag.
    pub(super) waits: bool,
    /// In the list of connections to look at.
    pub(super) dirty: bool,
    /// Nothing can be sent any more.
    pub(super) dead: bool,
}

impl Connection {
    pub(super) fn new(guest: Guest) -> Self {
        Self {
            socket: guest.socket,
            tls: guest.tls,
            headers: guest.headers,
            contexts: guest.contexts,
            _permit: guest.permit,
            phase: Phase::Header,
            receiving: Receiving::new(),
            outbox: Outbox::new(),
            jobs: 0,
            tags: 0,
            waits: false,
            dirty: false,
            dead: false,
        }
    }

    pub(super) fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    pub(super) fn limits(&self, facts: &Facts, size: u64) -> Limits {
        Limits {
            size,
            block: facts.block,
            flags: facts.flags(),
            headers: self.headers,
            contexts: !self.contexts.are_none(),
        }
    }

    /// Ends the connection for the client and for operations in flight.
    pub(super) fn cut(&self) {
        shut_down(&self.socket, libc::SHUT_RDWR);
    }

    /// Whether the client waits for nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.jobs == 0 && self.outbox.is_empty() && !matches!(self.phase, Phase::Skip(_))
    }

    /// Whether nothing of the connection is under way or to be done.
    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Ended
            && self.jobs == 0
            && !self.receiving.in_flight
            && self.outbox.is_empty()
    }
}
