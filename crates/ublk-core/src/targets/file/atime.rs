//! Reading without writing down when.

use std::fs::File;
use std::os::fd::AsRawFd;

/// Sets `O_NOATIME` (Linux 2.6.8), which saves every read the look at the file's access time: 190
/// instructions of 17,800 for a read of 4 KiB (`npm run bench -- --profile`). Only the file's owner
/// and who has `CAP_FOWNER` may; for others everything stays as it is.
pub(super) fn keep(file: &File) {
    let fd = file.as_raw_fd();
    // SAFETY: asks for the flags of a descriptor that we own.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    if flags >= 0 {
        // SAFETY: sets the flags of a descriptor that we own to what they are, and one more.
        unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NOATIME) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_of_a_file_of_ones_own_leave_no_access_time() {
        let path = std::env::temp_dir().join(format!("ublk-atime-{}", std::process::id()));
        let file = File::create(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        keep(&file);
        // SAFETY: asks for the flags of a descriptor that we own.
        let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
        assert_eq!(flags & libc::O_NOATIME, libc::O_NOATIME);
        assert_eq!(flags & libc::O_ACCMODE, libc::O_WRONLY);
    }
}
