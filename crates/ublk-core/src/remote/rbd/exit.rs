//! The end of the process while images are open.
//!
//! exit(3) destroys the C++ objects of Ceph's libraries while their threads run, and the process crashes. So
//! a handler that exit(3) calls before ends the devices and waits for their images, whose locks are given back.
//! Where an image stays open, the handler ends the process without the destructors.

use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use super::CLOSING;

/// The connections to clusters that are open.
static OPEN: Mutex<usize> = Mutex::new(0);
/// Notified when a connection has been closed.
static CLOSED: Condvar = Condvar::new();

/// An open connection, as the end of the process counts connections.
#[derive(Debug)]
pub(super) struct Counted(());

impl Counted {
    pub(super) fn new() -> Self {
        *lock() += 1;
        Self(())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        *lock() -= 1;
        CLOSED.notify_all();
    }
}

fn lock() -> MutexGuard<'static, usize> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the service of the process's devices; see [`end_before`].
static END: OnceLock<extern "C" fn()> = OnceLock::new();

/// Lets the end of the process call `end` before images are waited for: handlers that the program has given to
/// atexit(3) before the first image was opened come too late. `end` may be called again by exit(3) itself. Only
/// the first call counts.
pub fn end_before(end: extern "C" fn()) {
    END.get_or_init(|| end);
}

/// Whether all connections were closed within [`CLOSING`], after the devices.
fn all_closed() -> bool {
    if let Some(end) = END.get().filter(|_| *lock() > 0) {
        end();
    }
    let waited = CLOSED.wait_timeout_while(lock(), CLOSING, |open| *open > 0);
    *waited.unwrap_or_else(PoisonError::into_inner).0 == 0
}

/// Lets exit(3) wait for images. Handlers run in the reverse order, so this comes after all that the libraries
/// have constructed so far: call again once they have constructed more.
#[cfg(target_env = "gnu")]
pub(super) fn watch() {
    use std::ffi::{c_int, c_void};

    unsafe extern "C" {
        fn on_exit(handler: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
    }

    extern "C" fn leave(status: c_int, _argument: *mut c_void) {
        if !all_closed() {
            // SAFETY: writes out what C programs have buffered; ends the process.
            unsafe {
                libc::fflush(std::ptr::null_mut());
                libc::_exit(status);
            }
        }
    }

    // SAFETY: a function that stays as long as the process: the addon is never unloaded (NODELETE).
    // Without memory for the handler, the process ends as without it.
    unsafe { on_exit(leave, std::ptr::null_mut()) };
}

/// As above; musl does not tell handlers the status of the process.
#[cfg(not(target_env = "gnu"))]
pub(super) fn watch() {
    extern "C" fn leave() {
        all_closed();
    }

    // SAFETY: a function that stays as long as the process.
    unsafe { libc::atexit(leave) };
}
