//! Signals of the process.

/// Blocks all signals of the calling thread: signals are for the program's own threads.
pub(crate) fn block() {
    // SAFETY: an all-zero sigset_t is a valid one to fill, and only this thread's mask changes.
    unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut());
    }
}
