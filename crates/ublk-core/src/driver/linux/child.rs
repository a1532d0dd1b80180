//! Waits for child processes.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// Waits until a child has written to the pipe, or has ended, which closes the pipe. False after `limit`.
pub(super) fn answers(pipe: BorrowedFd, limit: Duration) -> io::Result<bool> {
    let mut events = libc::pollfd { fd: pipe.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let limit = libc::c_int::try_from(limit.as_millis()).unwrap_or(libc::c_int::MAX);
    loop {
        // SAFETY: `events` is one pollfd, which lives through the call.
        match unsafe { libc::poll(&raw mut events, 1, limit) } {
            0 => return Ok(false),
            count if count > 0 => return Ok(true),
            _ => {}
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Waits for the end of a child that ends at once.
pub(super) fn reap(child: libc::pid_t) {
    // SAFETY: a null pointer asks for no status.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
}

/// Waits for the end of a child that the kernel holds, from another thread.
pub(super) fn reap_later(child: libc::pid_t) {
    let reaper = std::thread::Builder::new().name("ublk-reaper".into());
    // Without a thread, a zombie stays until the end of the process: an entry in the table of processes.
    let _zombie = reaper.spawn(move || reap(child));
}
