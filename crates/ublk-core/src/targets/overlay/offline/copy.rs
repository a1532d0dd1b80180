//! Copying between files.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use ublk_overlay::superblock::PAGE;

use crate::targets::Progress;

/// Bytes of a piece of work, after which a verb looks whether to go on.
pub(super) const CHUNK: u64 = 4 << 20;

/// Copies `length` bytes, in the kernel where the file systems can.
///
/// # Errors
/// `UnexpectedEof` when `from` ends before.
pub(super) fn copy(
    (from, mut at): (&File, u64),
    (to, mut place): (&File, u64),
    mut length: u64,
    progress: &Progress,
) -> io::Result<()> {
    while length > 0 {
        let piece = length.min(CHUNK);
        let copied = match copy_in_kernel((from, at), (to, place), piece)? {
            Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Some(copied) => copied,
            None => {
                let mut bytes = vec![0; usize::try_from(piece).map_err(io::Error::other)?];
                from.read_exact_at(&mut bytes, at)?;
                to.write_all_at(&bytes, place)?;
                piece
            }
        };
        (at, place, length) = (at + copied, place + copied, length - copied);
        progress.advance(copied)?;
    }
    Ok(())
}

/// Answers the number of bytes; none where the file systems cannot copy.
fn copy_in_kernel(
    (from, at): (&File, u64),
    (to, place): (&File, u64),
    length: u64,
) -> io::Result<Option<u64>> {
    let offset = |at: u64| libc::off_t::try_from(at).map_err(io::Error::other);
    let (mut at, mut place) = (offset(at)?, offset(place)?);
    let length = usize::try_from(length).map_err(io::Error::other)?;
    // SAFETY: two descriptors that we own, and two offsets of ours.
    let copied = unsafe {
        libc::copy_file_range(
            from.as_raw_fd(),
            &raw mut at,
            to.as_raw_fd(),
            &raw mut place,
            length,
            0,
        )
    };
    if let Ok(copied) = u64::try_from(copied) {
        return Ok(Some(copied));
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EXDEV | libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL) => Ok(None),
        _ => Err(error),
    }
}

/// Writes the blocks of `bytes` that are not zeros. Answers how many bytes these are.
pub(super) fn write_sparse(to: &File, offset: u64, bytes: &[u8]) -> io::Result<u64> {
    let is_zero = |block: &[u8]| block.iter().all(|&byte| byte == 0);
    let (mut at, mut written) = (0, 0);
    while at < bytes.len() {
        let run = bytes[at..].chunks(PAGE).take_while(|block| !is_zero(block)).count() * PAGE;
        let run = run.min(bytes.len() - at);
        if run > 0 {
            to.write_all_at(&bytes[at..at + run], offset + at as u64)?;
            written += run as u64;
        }
        // The block behind the run is zeros.
        at += run + PAGE;
    }
    Ok(written)
}
