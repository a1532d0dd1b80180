//! A second open file of what is open already.

use std::ffi::CString;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use crate::handles::OpenFile;

/// As [`Driver::reopen`](crate::Driver::reopen).
pub fn reopen(fd: RawFd) -> io::Result<OpenFile> {
    // SAFETY: all zeros is a valid `stat`.
    let mut stat: libc::stat = unsafe { mem::zeroed() };
    // SAFETY: a struct of ours; `fd` may be any number.
    if unsafe { libc::fstat(fd, &raw mut stat) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if !matches!(stat.st_mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFBLK) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: asks for the flags of an open descriptor.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    let path = CString::new(format!("/proc/self/fd/{fd}")).map_err(io::Error::other)?;
    // SAFETY: a C string that lives through the call.
    let again = unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) };
    if again < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else has.
    let owner = unsafe { OwnedFd::from_raw_fd(again) };
    Ok(OpenFile::new(owner.as_raw_fd(), Arc::new(owner)))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_file_is_opened_as_it_was() {
        // SAFETY: a literal with its NUL.
        let fd = unsafe { libc::memfd_create(c"test".as_ptr(), libc::MFD_CLOEXEC) };
        // SAFETY: fresh from the kernel.
        let file = unsafe { OwnedFd::from_raw_fd(fd) };
        let again = reopen(file.as_raw_fd()).unwrap();
        // SAFETY: asks for the flags of open descriptors.
        let flags = [fd, again.fd()].map(|fd| unsafe { libc::fcntl(fd, libc::F_GETFL) });
        assert_eq!(flags[0], flags[1]);
        // SAFETY: as above.
        assert_eq!(unsafe { libc::fcntl(again.fd(), libc::F_GETFD) }, libc::FD_CLOEXEC);
        assert_eq!(reopen(-1).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }
}
