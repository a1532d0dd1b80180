//! Holes of files.

use std::io;
use std::os::fd::RawFd;

use crate::allocation::Allocation;

/// The state of the bytes from `offset` on; a block device, and a file system that knows no holes, have
/// only data. Behind the end of a file is a hole, which reads as zeros.
///
/// # Errors
/// The errno of lseek(2).
pub(super) fn find(file: RawFd, offset: u64, length: u64) -> io::Result<Allocation> {
    let Some(data) = seek(file, offset, libc::SEEK_DATA)? else {
        return Ok(Allocation::hole(length));
    };
    if data > offset {
        return Ok(Allocation::hole(length.min(data - offset)));
    }
    let end = seek(file, offset, libc::SEEK_HOLE)?.unwrap_or(offset).max(offset + 1);
    Ok(Allocation::data(length.min(end - offset)))
}

/// None: nothing of the kind is left.
fn seek(file: RawFd, offset: u64, whence: i32) -> io::Result<Option<u64>> {
    let from = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    // SAFETY: plain numbers. The position of the file changes, which no read and no write uses.
    let found = unsafe { libc::lseek(file, from, whence) };
    match u64::try_from(found) {
        Ok(found) => Ok(Some(found)),
        Err(_) => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            error => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn a_sparse_file_has_holes_where_nothing_was_written() {
        let file = tempfile();
        file.set_len(4 << 20).unwrap();
        file.write_all_at(&[1; 4096], 1 << 20).unwrap();
        let at = |offset, length| find(file.as_raw_fd(), offset, length).unwrap();
        assert_eq!(at(0, 4 << 20), Allocation::hole(1 << 20));
        assert_eq!(at(4096, 512), Allocation::hole(512));
        assert_eq!(at(1 << 20, 512), Allocation::data(512));
        let data = at(1 << 20, 1 << 20);
        assert!(!data.hole && (4096..1 << 20).contains(&data.length), "{data:?}");
        assert_eq!(at(3 << 20, 4 << 20), Allocation::hole(4 << 20), "behind the end");
    }

    fn tempfile() -> std::fs::File {
        use std::os::fd::FromRawFd;
        // SAFETY: plain arguments; a new descriptor has no other owner.
        unsafe {
            let fd = libc::memfd_create(c"holes".as_ptr(), libc::MFD_CLOEXEC);
            assert!(fd >= 0);
            std::fs::File::from_raw_fd(fd)
        }
    }
}
