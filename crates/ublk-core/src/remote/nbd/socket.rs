//! A connected socket.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use ublk_nbd::Headers;
use ublk_tls::Control;

/// A connected stream socket in blocking mode, as io_uring needs a socket to wait for the peer.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    /// The kernel encrypts and decrypts.
    tls: bool,
    headers: Headers,
}

impl Socket {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self { fd, tls: false, headers: Headers::Simple }
    }

    /// Client and server have agreed on the headers.
    pub(super) fn agree(&mut self, headers: Headers) {
        self.headers = headers;
    }

    /// Of requests and replies.
    pub(super) fn headers(&self) -> Headers {
        self.headers
    }

    /// The kernel has the keys.
    pub(super) fn begin_tls(&mut self) {
        self.tls = true;
    }

    pub(super) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// The flags of an entry that sends. A socket with TLS takes no `MSG_WAITALL` (`EOPNOTSUPP`): what is left
    /// needs another entry.
    pub(super) fn send_flags(&self) -> i32 {
        if self.tls { libc::MSG_NOSIGNAL } else { libc::MSG_NOSIGNAL | libc::MSG_WAITALL }
    }

    /// Whether the connection goes on after a receive that has failed with this result: with TLS, a record
    /// that is no data fails with `EIO`, and is taken here.
    pub(super) fn goes_on(&self, result: i32) -> bool {
        let control = self.tls && result == -libc::EIO;
        control && matches!(ublk_tls::control(self.fd()), Ok(Control::Ignored))
    }

    /// Ends both directions: entries in flight complete.
    pub(super) fn shut_down(&self) {
        // SAFETY: plain arguments. A socket that has lost its peer answers ENOTCONN.
        unsafe { libc::shutdown(self.fd(), libc::SHUT_RDWR) };
    }

    /// Sends as much as goes without waiting; whoever calls does not need it to arrive.
    pub(super) fn send_at_once(&self, bytes: &[u8]) {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: reads `bytes`.
        unsafe { libc::send(self.fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    }
}

/// A socket as a stream that fails with `TimedOut` at the deadline.
pub(super) struct Timed<'a> {
    pub(super) socket: &'a mut Socket,
    pub(super) deadline: Instant,
}

impl Timed<'_> {
    fn wait(&self, events: i16) -> io::Result<()> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if poll(self.socket.fd(), events, left)? {
                return Ok(());
            }
        }
    }
}

/// Whether one of `events` has come within `limit`.
pub(super) fn poll(fd: RawFd, events: i16, limit: Duration) -> io::Result<bool> {
    let milliseconds = i32::try_from(limit.as_millis() + 1).unwrap_or(i32::MAX);
    let mut poll = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: one struct of ours.
    match unsafe { libc::poll(&raw mut poll, 1, milliseconds) } {
        ready if ready >= 0 => Ok(ready > 0),
        _ => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            error => Err(error),
        },
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait(libc::POLLIN)?;
        // SAFETY: at most `buffer.len()` bytes into `buffer`.
        let done = unsafe {
            let flags = libc::MSG_DONTWAIT;
            libc::recv(self.socket.fd(), buffer.as_mut_ptr().cast(), buffer.len(), flags)
        };
        match moved(done) {
            Err(error) if self.socket.tls && error.raw_os_error() == Some(libc::EIO) => {
                match ublk_tls::control(self.socket.fd())? {
                    Control::Ignored => Err(io::ErrorKind::Interrupted.into()),
                    Control::Closed => Ok(0),
                    Control::Broken(alert) => Err(ublk_tls::refusal(alert)),
                }
            }
            other => other,
        }
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.wait(libc::POLLOUT)?;
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: reads `buffer`.
        let done =
            unsafe { libc::send(self.socket.fd(), buffer.as_ptr().cast(), buffer.len(), flags) };
        moved(done)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `EAGAIN` after a poll means that somebody else was first: the caller tries again.
fn moved(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::WouldBlock => io::ErrorKind::Interrupted.into(),
        error => error,
    })
}
