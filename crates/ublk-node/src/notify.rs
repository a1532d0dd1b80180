//! What a service says to its manager (`sd_notify(3)`), and how the reactors are.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use napi_derive::napi;
use ublk_core::error::{Code, Error};
use ublk_core::reactor;

use crate::outcome::Outcome;

/// JavaScript waits meanwhile.
const PATIENCE: Duration = Duration::from_secs(1);

/// Sends `message` as a datagram to the socket at `address`: a path, or `@` and a name without a file.
/// Waits at most [`PATIENCE`] for a manager that does not read.
#[napi(catch_unwind, ts_return_type = "Outcome<void>")]
pub fn notify(address: String, message: String) -> Outcome<()> {
    let sent = send(&address, message.as_bytes());
    let tried = || format!("cannot notify the service manager at {address}");
    sent.map_err(|error| Error::os(Code::Kernel, tried(), "sendto", &error)).into()
}

fn send(address: &str, message: &[u8]) -> io::Result<()> {
    let address = match address.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(address)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.send_to_addr(message, &address).map(drop)
}

/// Asks the reactors of this process for a sign of life; the names of those that owe one since the last
/// call.
#[napi(catch_unwind)]
pub fn silent_reactors() -> Vec<String> {
    reactor::silent_reactors()
}
