//! The NBD protocol as client and server speak it: fixed newstyle negotiation and transmission.
//!
//! The crate knows numbers and messages and does no I/O. The names are those of the protocol's
//! specification (`doc/proto.md` of the project `NetworkBlockDevice/nbd`), without the prefix `NBD_`.
//! All integers on the wire are big-endian.

pub mod client;
pub mod server;
pub mod wire;

mod headers;
mod request;

pub use headers::Headers;
pub use request::Request;
