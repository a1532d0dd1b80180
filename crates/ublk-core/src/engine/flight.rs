//! What the engine knows of a request while it runs.

use super::MAX_ATTACH_FAILURES;
use crate::target::{Op, Request, RequestFlags};

/// A request on its way through its plan. As large as a cache line, so that finding a tag's takes a
/// shift.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Flight {
    pub(super) request: Request,
    /// Completions that must come before the request can go on.
    pub(super) pending: u16,
    /// Steps of the plan, and how many of them have been started.
    pub(super) planned: u8,
    pub(super) started: u8,
    /// How many rounds have ended.
    pub(super) round: u16,
    /// How often registering the buffer failed, and unregistering it.
    pub(super) attach_failures: u8,
    pub(super) detach_failures: u8,
    /// Some step goes on once the buffer's unregistration has answered.
    pub(super) waiting: bool,
    /// An unregistration of its buffer is in flight.
    pub(super) detaching: bool,
    /// How it goes.
    pub(super) way: Way,
    /// It waits for whoever answers it when its plan has ended.
    pub(super) held: bool,
    /// Its target is asked what is next when its plan has ended well.
    pub(super) asks: bool,
    /// What its target is told then.
    pub(super) ticket: u64,
    /// How old it is, in units of the reactor's clock.
    pub(super) age: u8,
    /// Its request has failed because it was too old, and steps of it are still in flight.
    pub(super) given_up: bool,
    /// Where the buffer is.
    pub(super) lease: Lease,
    /// The first error of the plan's steps, positive; 0: none.
    pub(super) errno: i32,
    /// The error of the last registration, positive; 0: none.
    pub(super) attach_errno: i32,
}

const _: () = assert!(size_of::<Flight>() == 64);

/// How a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Step by step; everything here is kept.
    Plan,
    /// As a single step that is hoped to do all of it at once; see `express`. Only the request is
    /// kept here.
    Express,
    /// The same, linked to its commit: the request counts as ended.
    Linked,
    /// It was to go so, but the kernel has taken it without its commit: see `severed`.
    Severed,
}

/// How a request's steps reach its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lease {
    /// They need none, or it is always there: registered by the kernel, or our own memory.
    Standing,
    /// To be registered by us.
    Wanted,
    /// The slot is ours and its table entry empty: before registering, after unregistering.
    Empty(u16),
    /// In memory that has an address: see `staging`.
    InMemory,
    /// Registered in the slot.
    Attached(u16),
    /// In memory, and a read that succeeds must be stored in the client's pages.
    ToStore,
}

impl Lease {
    pub(super) fn slot(self) -> Option<u16> {
        match self {
            Self::Empty(slot) | Self::Attached(slot) => Some(slot),
            _ => None,
        }
    }
}

impl Flight {
    pub(super) const IDLE: Self =
        Self::new(Request { op: Op::Flush, flags: RequestFlags(0), offset: 0, length: 0 });

    /// Nothing is left to be done or let go of, once nothing is pending.
    #[inline]
    pub(super) fn has_succeeded(&self) -> bool {
        let settled = !matches!(self.lease, Lease::Attached(_) | Lease::ToStore);
        self.started == self.planned && self.errno == 0 && !self.held && !self.asks && settled
    }

    /// Its buffer could not be registered, and that may pass.
    pub(super) fn may_attach_again(&self) -> bool {
        self.attach_errno != 0 && self.attach_failures <= MAX_ATTACH_FAILURES
    }

    #[inline]
    pub(super) const fn new(request: Request) -> Self {
        Self {
            request,
            pending: 0,
            planned: 0,
            started: 0,
            round: 0,
            attach_failures: 0,
            detach_failures: 0,
            waiting: false,
            detaching: false,
            way: Way::Plan,
            held: false,
            asks: false,
            ticket: 0,
            age: 0,
            given_up: false,
            lease: Lease::Standing,
            errno: 0,
            attach_errno: 0,
        }
    }
}

/// How far one step is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// Where the attempt in flight began, in bytes from the step's start.
    pub(super) from: u32,
    /// How many bytes are certainly done.
    pub(super) done: u32,
    /// What it failed of, positive; 0: of nothing.
    pub(super) errno: i32,
    /// It goes on once the buffer's unregistration has answered.
    pub(super) waiting: bool,
    /// How often it was interrupted.
    pub(super) interruptions: u8,
    /// The file has ended: zeros are read instead.
    pub(super) zeroing: bool,
}
