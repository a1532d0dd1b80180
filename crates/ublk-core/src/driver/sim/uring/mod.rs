//! io_uring: rings, submission entries, tables.

pub(crate) mod buffers;
pub(crate) mod chains;
pub(crate) mod closed_rings;
pub(crate) mod kbuf;
pub(crate) mod ops;
pub(crate) mod ring;
pub(crate) mod sockets;
pub(crate) mod sqe;
pub(crate) mod step;
pub(crate) mod waits;
