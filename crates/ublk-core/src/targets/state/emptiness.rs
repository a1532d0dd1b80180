//! What can be said of a path without changing anything.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Whether the first `size` bytes are zeros, as far as that can be told: of a block device it would
/// take a read of the whole, so a block device counts as not empty.
pub(super) fn is_empty(path: &Path, size: u64) -> io::Result<bool> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Ok(false);
    }
    let mut bytes = vec![0; 1 << 20];
    let mut at = 0;
    while let Some(start) = next_data(&file, at)?.filter(|&start| start < size) {
        at = start;
        let left = usize::try_from(size - start).unwrap_or(usize::MAX);
        let most = left.min(bytes.len());
        let read = file.read_at(&mut bytes[..most], start)?;
        if bytes[..read].iter().any(|&byte| byte != 0) {
            return Ok(false);
        }
        if read == 0 {
            break;
        }
        at += read as u64;
    }
    Ok(true)
}

/// Where the next bytes are that are no hole.
fn next_data(file: &File, from: u64) -> io::Result<Option<u64>> {
    let from = libc::off_t::try_from(from).map_err(io::Error::other)?;
    // SAFETY: lseek on a descriptor that we own.
    let found = unsafe { libc::lseek(file.as_raw_fd(), from, libc::SEEK_DATA) };
    match u64::try_from(found) {
        Ok(found) => Ok(Some(found)),
        Err(_) => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            error => Err(error),
        },
    }
}

/// Whether what is at `path` is kept in memory: on a tmpfs, a ramfs, or the devtmpfs of `/dev`. A
/// block device is not, wherever its node is.
pub(in super::super) fn is_in_memory(path: &Path) -> bool {
    const MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];
    let block = std::fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir());
    let Ok(name) = CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: all zeros is a valid `statfs`.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: a string with its NUL and a struct of ours.
    let asked = unsafe { libc::statfs(name.as_ptr(), &raw mut found) };
    #[allow(clippy::unnecessary_cast, reason = "the type differs between C libraries")]
    let kind = found.f_type as i64;
    !block && asked == 0 && MEMORY.contains(&kind)
}
