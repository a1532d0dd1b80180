//! The server's side of the protocol.
//!
//! Nothing here trusts a client: bytes that make no sense become an error reply, or the end of the
//! connection, and never a panic.

pub mod limits;
pub mod negotiation;
pub mod reply;

mod cursor;
