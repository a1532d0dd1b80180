//! The places of a queue's files, counted from its seat's first in the reactor's file table.

/// `/dev/ublkcN`.
pub(crate) const CHAR_DEVICE: u32 = 0;
/// A file that reads as zeros.
pub(crate) const ZEROS: u32 = 1;
/// The first of the target's files; the others follow.
pub(crate) const FIRST_OF_TARGET: u32 = 2;
