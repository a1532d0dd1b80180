//! TLS 1.3 for connected TCP sockets.
//!
//! [`Identity`] shakes hands in the process, with rustls; then the kernel gets the keys and
//! encrypts and decrypts the records: the socket carries plain bytes for every system call and for io_uring.
//! [`control`] takes the records that are no data.

mod error;
mod files;
mod handshake;
mod identity;
mod kernel;
mod secret;

pub use error::{TlsError, refusal};
pub use identity::{Identity, Role};
pub use kernel::{Control, control};
