//! Reports of failures on a bridge.

use super::Misfit;
use crate::tag::Tag;

/// A failure on a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The kind of the failure.
    pub kind: ReportKind,
    /// The queue.
    pub queue: u16,
    /// The tag of the request; 0 in reports about a queue.
    pub tag: Tag,
    /// The operation of the request, `UBLK_IO_OP_*`.
    pub op: u8,
    /// The offset of the request, in bytes.
    pub offset: u64,
    /// The length of the request, in bytes.
    pub length: u32,
}

/// The kinds of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportKind {
    /// The peer has not answered a request in time; the request has failed with `ETIMEDOUT`.
    TimedOut,
    /// The peer has answered a request after the request's end.
    Late,
    /// A plan does not fit the request; the request has failed with `EIO`.
    Misfit(Misfit),
    /// The peer takes no requests from the ring.
    Blocked,
    /// The peer takes requests again, after so many milliseconds.
    Unblocked(u32),
}
