//! What goes wrong on a bridge, for whoever listens.

use super::Misfit;
use crate::tag::Tag;

/// Something that went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// What.
    pub kind: ReportKind,
    /// On which queue.
    pub queue: u16,
    /// Of which request, if it is about one.
    pub tag: Tag,
    /// What that asked for, `UBLK_IO_OP_*`.
    pub op: u8,
    /// Where, in bytes.
    pub offset: u64,
    /// How much, in bytes.
    pub length: u32,
}

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportKind {
    /// A request was not answered in time and was ended with `ETIMEDOUT`.
    TimedOut,
    /// An answer came for a request that had ended.
    Late,
    /// A plan does not fit its request, which was ended with `EIO`.
    Misfit(Misfit),
    /// Requests lie there, and nobody takes them.
    Blocked,
    /// Requests are taken again, after so many milliseconds.
    Unblocked(u32),
}
