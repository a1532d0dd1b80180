//! Reading from and writing to a descriptor of the caller.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::Progress;

/// How long a wait lasts before the verb looks whether to go on, in milliseconds.
const PATIENCE: i32 = 100;

/// A descriptor, perhaps a pipe of Node.js, which does not block.
pub(super) struct Pipe<'a> {
    fd: BorrowedFd<'a>,
    progress: &'a Progress,
}

impl<'a> Pipe<'a> {
    pub(super) fn new(fd: BorrowedFd<'a>, progress: &'a Progress) -> Self {
        Self { fd, progress }
    }

    /// Moves bytes once the descriptor is ready.
    fn transfer(&self, events: i16, call: impl Fn(i32) -> isize) -> io::Result<usize> {
        loop {
            self.progress.advance(0)?;
            let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events, revents: 0 };
            // SAFETY: one struct of ours.
            if unsafe { libc::poll(&raw mut poll, 1, PATIENCE) } == 0 {
                continue;
            }
            if let Ok(moved) = usize::try_from(call(self.fd.as_raw_fd())) {
                return Ok(moved);
            }
            let error = io::Error::last_os_error();
            if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) {
                return Err(error);
            }
        }
    }
}

impl Read for Pipe<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let (to, length) = (bytes.as_mut_ptr(), bytes.len());
        // SAFETY: memory of ours, as long as is said.
        self.transfer(libc::POLLIN, |fd| unsafe { libc::read(fd, to.cast(), length) })
    }
}

impl Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (from, length) = (bytes.as_ptr(), bytes.len());
        // SAFETY: memory of ours, as long as is said.
        self.transfer(libc::POLLOUT, |fd| unsafe { libc::write(fd, from.cast(), length) })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
