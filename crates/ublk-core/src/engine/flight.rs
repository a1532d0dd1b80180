//! The engine's knowledge of a running request.

use super::MAX_ATTACH_FAILURES;
use crate::targets::{Op, Request, RequestFlags};

/// A request on the way through the plan. As large as a cache line: finding a tag's flight takes a
/// shift.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Flight {
    pub(super) request: Request,
    /// Completions still missing before the request can continue.
    pub(super) pending: u16,
    /// Steps of the plan, and the number of started steps.
    pub(super) planned: u8,
    pub(super) started: u8,
    /// How many rounds have ended.
    pub(super) round: u16,
    /// How often registering the buffer failed, and unregistering the buffer.
    pub(super) attach_failures: u8,
    pub(super) detach_failures: u8,
    /// A step continues once the buffer's unregistration has answered.
    pub(super) waiting: bool,
    /// An unregistration of the buffer is in flight.
    pub(super) detaching: bool,
    /// The way of the request.
    pub(super) way: Way,
    /// After the plan, the request waits for an answer from beyond the bridge.
    pub(super) held: bool,
    /// After a successful plan, the engine asks the target for the next round.
    pub(super) asks: bool,
    /// The target's ticket for the question.
    pub(super) ticket: u64,
    /// The age, in units of the reactor's clock.
    pub(super) age: u8,
    /// The request was too old and has failed, and steps of the request are still in flight.
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
    /// Fast path: a single step expected to transfer the whole request; see `express`. Only the
    /// request is kept here.
    Express,
    /// As `Express`, and the target hears of the end, by the flight's ticket.
    Told,
    /// Fast path, linked to the commit: the request counts as ended.
    Linked,
    /// As `Linked`, but the kernel took the step without the commit: see `severed`.
    Severed,
}

/// How a request's steps reach its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lease {
    /// The steps need no buffer, or the buffer is always there: registered by the kernel, or the
    /// server's own memory.
    Standing,
    /// The engine must register the buffer.
    Wanted,
    /// The request has the slot, and the slot's table entry is empty: before registering, after
    /// unregistering.
    Empty(u16),
    /// In memory with an address: see `staging`.
    InMemory,
    /// Registered in the slot.
    Attached(u16),
    /// In memory; after a successful read, the bytes must be stored in the client's pages.
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

    /// Whether the request has succeeded, once nothing is pending: nothing is left to do, to ask or
    /// to release.
    #[inline]
    pub(super) fn has_succeeded(&self) -> bool {
        let settled = !matches!(self.lease, Lease::Attached(_) | Lease::ToStore);
        self.started == self.planned && self.errno == 0 && !self.held && !self.asks && settled
    }

    /// Whether to register the buffer again, after an error that may be temporary.
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

/// The progress of a step.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// Where the attempt in flight began, in bytes from the step's start.
    pub(super) from: u32,
    /// How many bytes are certainly done.
    pub(super) done: u32,
    /// The step's error, positive; 0: none.
    pub(super) errno: i32,
    /// The step continues once the buffer's unregistration has answered.
    pub(super) waiting: bool,
    /// How often the step was interrupted.
    pub(super) interruptions: u8,
    /// The file has ended: zeros are read instead.
    pub(super) zeroing: bool,
    /// The step has ended, and does not continue.
    pub(super) ended: bool,
}
