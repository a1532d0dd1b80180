//! Addresses of exports: Unix sockets and TCP ports.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::error::{Code, Error, Result};

/// Where clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket at this path.
    Unix(PathBuf),
    /// A TCP port of the addresses of a host; port 0: a port of the kernel's choice.
    Tcp {
        /// A name or an address of this machine.
        host: String,
        /// The port.
        port: u16,
    },
}

/// A socket that clients connect to.
#[derive(Debug)]
pub(super) enum Bound {
    Unix { listener: UnixListener, path: PathBuf, identity: Option<(u64, u64)> },
    Tcp(TcpListener),
}

impl Bound {
    pub(super) fn bind(address: &Address) -> Result<Self> {
        match address {
            Address::Unix(path) => Self::bind_unix(path),
            Address::Tcp { host, port } => {
                let bound = TcpListener::bind((host.as_str(), *port))
                    .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
                let tried = || format!("cannot listen on {host}, port {port}");
                Ok(Self::Tcp(bound.map_err(|error| refused(tried(), "bind", &error))?))
            }
        }
    }

    fn bind_unix(path: &Path) -> Result<Self> {
        let tried = || format!("cannot listen on {}", path.display());
        let mut bound = UnixListener::bind(path);
        if bound.as_ref().is_err_and(|error| error.kind() == ErrorKind::AddrInUse) {
            remove_dead(path)?;
            bound = UnixListener::bind(path);
        }
        let bound = bound.and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
        let listener = bound.map_err(|error| refused(tried(), "bind", &error))?;
        Ok(Self::Unix { listener, identity: identity(path), path: path.into() })
    }

    /// Accepts a client; never waits, since a caller that waits here could not be stopped.
    ///
    /// # Errors
    /// The errno of accept(2); `WouldBlock` without a client.
    pub(super) fn accept(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Unix { listener, .. } => Ok(listener.accept()?.0.into()),
            Self::Tcp(listener) => {
                let client = listener.accept()?.0;
                // A client that has gone without a word ends, after hours at most.
                let _slower = client.set_nodelay(true);
                keep_alive(&client);
                Ok(client.into())
            }
        }
    }

    pub(super) fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        use std::os::fd::AsFd;
        match self {
            Self::Unix { listener, .. } => listener.as_fd(),
            Self::Tcp(listener) => listener.as_fd(),
        }
    }

    /// The path, or address and port.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Unix { path, .. } => path.display().to_string(),
            Self::Tcp(listener) => {
                listener.local_addr().map(|address| address.to_string()).unwrap_or_default()
            }
        }
    }

    /// Removes the path of a Unix socket, unless another server has the path by now.
    pub(super) fn remove(&self) {
        if let Self::Unix { path, identity: ours, .. } = self
            && ours.is_some()
            && identity(path) == *ours
        {
            // A socket without a server is replaced by the next server.
            let _left = fs::remove_file(path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// Removes the socket of a server that is gone.
fn remove_dead(path: &Path) -> Result<()> {
    let shown = path.display();
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if !is_socket {
        let message = format!("cannot listen on {shown}: the file exists and is no socket");
        return Err(Error::new(Code::InvalidArgument, message).hint("name another path"));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|error| {
                let tried = format!("cannot replace the socket {shown} of a server that is gone");
                refused(tried, "unlink", &error)
            }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        _ => {
            let message = format!("cannot listen on {shown}: another server listens there");
            Err(Error::new(Code::Busy, message).hint("end the other server, or name another path"))
        }
    }
}

fn refused(tried: String, call: &'static str, error: &io::Error) -> Error {
    let code = match error.kind() {
        ErrorKind::AddrInUse => Code::Busy,
        ErrorKind::PermissionDenied => Code::Permission,
        _ => Code::InvalidArgument,
    };
    let error = Error::os(code, tried, call, error);
    match code {
        Code::Busy => error.hint("another program listens there"),
        _ => error,
    }
}

fn keep_alive(client: &TcpStream) {
    use std::os::fd::AsRawFd;
    let on: libc::c_int = 1;
    // SAFETY: sets a number of the given size. Without the option a client that is gone for good keeps a
    // connection.
    unsafe {
        libc::setsockopt(
            client.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_KEEPALIVE,
            (&raw const on).cast(),
            4,
        );
    }
}
