//! The client's side of the protocol: where a server is, the negotiation, requests and replies.

mod address;
mod cover;
mod error;
mod extents;
mod negotiate;
mod reply;

pub use address::{Address, AddressError, Endpoint};
pub use cover::{Cover, CoverError};
pub use error::NegotiateError;
pub use extents::{Extent, first_extent};
pub use negotiate::{Agreed, Blocks, Export, Secure, negotiate};
pub use reply::{Header, errno};
