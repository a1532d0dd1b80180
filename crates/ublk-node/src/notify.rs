//! What a service says to its manager (`sd_notify(3)`), and how the reactors are.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
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
    let (address, message) = (address.into_bytes(), message.into_bytes());
    let failed = |error| {
        let shown = String::from_utf8_lossy(&address);
        let tried = format!("cannot notify the service manager at {shown}");
        Error::os(Code::Kernel, tried, "sendto", &error)
    };
    send(&address, &message).map_err(failed).into()
}

fn send(address: &[u8], message: &[u8]) -> io::Result<()> {
    let address = match address.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(OsStr::from_bytes(address))?,
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
