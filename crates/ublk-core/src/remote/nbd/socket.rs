//! A connected socket.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// A connected stream socket in blocking mode, as io_uring needs a socket to wait for the peer.
#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

impl Socket {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    pub(super) fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
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
    pub(super) socket: &'a Socket,
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
        moved(done)
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
