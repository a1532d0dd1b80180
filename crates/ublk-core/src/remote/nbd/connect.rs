//! Connects to a server and negotiates, within a limit.

use std::io;
use std::mem;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use ublk_nbd::client::{Address, Agreed, Endpoint, NegotiateError, Secure, negotiate};
use ublk_tls::{Identity, Role, TlsError};

use super::NbdOptions;
use super::socket::{Socket, Timed};

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum ConnectError {
    /// Nobody answers in time.
    TimedOut,
    /// A system call failed.
    Os { call: &'static str, error: io::Error },
    /// The host has no address.
    Unresolved(io::Error),
    /// There is no TLS.
    Tls(TlsError),
    /// Server and client do not agree.
    Negotiation(NegotiateError),
    /// The export has another size, other flags or other block sizes than before.
    Changed,
}

/// Connects and negotiates; with `extents`, for `BLOCK_STATUS` too.
pub(super) fn connect(
    address: &Address,
    options: &NbdOptions,
    extents: bool,
    limit: Duration,
) -> Result<(Socket, Agreed), ConnectError> {
    let deadline = Instant::now() + limit;
    let identity = identity(address, options).map_err(ConnectError::Tls)?;
    let mut socket = match &address.endpoint {
        Endpoint::Tcp { host, port } => tcp(host, *port, deadline)?,
        Endpoint::Unix(path) => unix(path, deadline)?,
    };
    let mut failure = None;
    let mut secure = |stream: &mut Timed<'_>| {
        let identity = identity.as_ref().ok_or(io::ErrorKind::InvalidInput)?;
        let fd = stream.socket.fd();
        identity.secure(stream, fd).map_err(|error| {
            failure = Some(error);
            io::Error::other("no TLS")
        })?;
        stream.socket.begin_tls();
        Ok(())
    };
    let mut stream = Timed { socket: &mut socket, deadline };
    let secure = identity.as_ref().map(|_| &mut secure as Secure<'_, _>);
    let agreed = negotiate(&mut stream, &address.export, extents, secure);
    match (agreed, failure) {
        (Ok(agreed), _) => {
            socket.agree(agreed.headers);
            Ok((socket, agreed))
        }
        (Err(NegotiateError::Io(error)), _) if error.kind() == io::ErrorKind::TimedOut => {
            Err(ConnectError::TimedOut)
        }
        (_, Some(TlsError::Io(error))) if error.kind() == io::ErrorKind::TimedOut => {
            Err(ConnectError::TimedOut)
        }
        (_, Some(error)) => Err(ConnectError::Tls(error)),
        (Err(error), None) => Err(ConnectError::Negotiation(error)),
    }
}

/// The certificates for an address with TLS.
fn identity(address: &Address, options: &NbdOptions) -> Result<Option<Identity>, TlsError> {
    match (&address.endpoint, &options.tls_certificates) {
        (Endpoint::Tcp { host, .. }, Some(folder)) if address.tls => {
            Identity::read(folder, Role::Client { host }).map(Some)
        }
        _ => Ok(None),
    }
}

/// The first address of the host that answers. Each address has an equal part of the time that is left: an
/// address that nobody answers at must not keep from the next one.
fn tcp(host: &str, port: u16, deadline: Instant) -> Result<Socket, ConnectError> {
    let addresses: Vec<_> =
        (host, port).to_socket_addrs().map_err(ConnectError::Unresolved)?.collect();
    let mut failure = ConnectError::Unresolved(io::Error::other("the host has no address"));
    for (address, others) in addresses.iter().zip((0..addresses.len()).rev()) {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = left / u32::try_from(others + 1).unwrap_or(u32::MAX);
        if left.is_zero() {
            return Err(ConnectError::TimedOut);
        }
        match TcpStream::connect_timeout(address, left) {
            Ok(stream) => {
                let call = |error| ConnectError::Os { call: "setsockopt", error };
                stream.set_nodelay(true).map_err(call)?;
                let fd = OwnedFd::from(stream);
                keep_alive(fd.as_raw_fd()).map_err(call)?;
                return Ok(Socket::new(fd));
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                failure = ConnectError::TimedOut;
            }
            Err(error) => failure = ConnectError::Os { call: "connect", error },
        }
    }
    Err(failure)
}

/// A peer that has gone without a word is noticed after 25 s, idle or not.
fn keep_alive(fd: RawFd) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    set(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 10)?;
    set(fd, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 5)?;
    set(fd, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 3)?;
    set(fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 25_000)
}

fn set(fd: RawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    #[expect(clippy::cast_possible_truncation, reason = "four")]
    let length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the option's value is an int of ours.
    match unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// connect(2) of a local socket waits where the server's backlog is full, so the socket does not block
/// until it is connected.
fn unix(path: &Path, deadline: Instant) -> Result<Socket, ConnectError> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let failed = |call| move |error| ConnectError::Os { call, error };
    // SAFETY: plain arguments.
    let fd = unsafe { libc::socket(libc::AF_UNIX, kind, 0) };
    if fd < 0 {
        return Err(failed("socket")(io::Error::last_os_error()));
    }
    // SAFETY: new, valid, and owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let (address, length) = local(path).map_err(failed("connect"))?;
    loop {
        // SAFETY: an address of ours, `length` bytes of which count.
        let done = unsafe { libc::connect(fd.as_raw_fd(), (&raw const address).cast(), length) };
        if done == 0 {
            break;
        }
        match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::WouldBlock => {}
            error => return Err(failed("connect")(error)),
        }
        if Instant::now() >= deadline {
            return Err(ConnectError::TimedOut);
        }
        thread::sleep(Duration::from_millis(10));
    }
    // SAFETY: the flags of a descriptor of ours.
    if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, 0) } != 0 {
        return Err(failed("fcntl")(io::Error::last_os_error()));
    }
    Ok(Socket::new(fd))
}

fn local(path: &Path) -> io::Result<(libc::sockaddr_un, libc::socklen_t)> {
    // SAFETY: all zeros is a valid address.
    let mut address: libc::sockaddr_un = unsafe { mem::zeroed() };
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() >= address.sun_path.len() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    #[expect(clippy::cast_possible_truncation, reason = "1")]
    {
        address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    }
    for (to, &from) in address.sun_path.iter_mut().zip(bytes) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    #[expect(clippy::cast_possible_truncation, reason = "110")]
    let length = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    Ok((address, length))
}
