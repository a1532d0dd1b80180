//! Writes to a layer's file by system calls: before the first request, and after the last.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use ublk_overlay::extent::BLOCK;
use ublk_overlay::head::Head;
use ublk_overlay::superblock::{InUse, Page, Superblock};
use uuid::Uuid;

/// A random number.
pub(super) fn random() -> u64 {
    Uuid::new_v4().as_u64_pair().1
}

/// The superblock that follows the head's, of a server's history or of a closed layer.
pub(super) fn next(head: &Head, in_use: Option<InUse>) -> Superblock {
    let last = head.superblock();
    Superblock { generation: last.generation + 1, in_use, ..*last }
}

/// Closes the layer: everything is durable, and the superblock says so. `freezes`: for ever.
pub(super) fn close(head: &mut Head, file: &File, freezes: bool) -> io::Result<()> {
    let flush = Flush::of(head)?;
    flush.write(file, File::sync_data)?;
    head.flushed(flush.number);
    write(file, &Superblock { frozen: freezes, ..next(head, None) })
}

/// What makes a layer durable: blocks of the log of all that was published.
pub(super) struct Flush {
    /// What [`Head::flushed`] hears once the flush is [written](Self::write).
    pub(super) number: u64,
    /// The end of the last segment of the log, in bytes.
    end: u64,
    /// Blocks of the log, each with its place in the file.
    pages: Vec<(u64, Page)>,
}

impl Flush {
    /// # Errors
    /// `ENOSPC` when the file cannot hold the log.
    pub(super) fn of(head: &mut Head) -> io::Result<Self> {
        let number = head.flush().map_err(|_| io::Error::from_raw_os_error(libc::ENOSPC))?;
        let pages = head.log_blocks(number).map(|(place, page)| (place, *page)).collect();
        let segment = head.space().segment_blocks() * BLOCK;
        let end = head.log_segments().map(|number| (u64::from(number) + 1) * segment).max();
        Ok(Self { number, end: end.unwrap_or(0), pages })
    }

    /// Syncs the data, writes the log, and syncs the log.
    pub(super) fn write(
        &self,
        file: &File,
        sync: impl Fn(&File) -> io::Result<()>,
    ) -> io::Result<()> {
        sync(file)?;
        // A server allocates the whole segment when its first flush writes to the log; until then the segment
        // may have holes.
        if file.metadata()?.len() < self.end {
            file.set_len(self.end)?;
        }
        let follows = |one: &(u64, Page), next: &(u64, Page)| one.0 + 1 == next.0;
        for run in self.pages.chunk_by(follows) {
            allocate(file, run[0].0 * BLOCK, run.len() as u64 * BLOCK)?;
        }
        for (place, page) in &self.pages {
            file.write_all_at(page, place * BLOCK)?;
        }
        sync(file)
    }
}

/// Writes a superblock, durably.
pub(super) fn write(file: &File, superblock: &Superblock) -> io::Result<()> {
    file.write_all_at(&superblock.to_page(), superblock.place() * BLOCK)?;
    file.sync_data()?;
    leave_page_cache(file);
    Ok(())
}

/// Takes a synced file out of the page cache: with a single page in there, the kernel ends each direct write to
/// the file on a worker, which looks for pages of the range.
fn leave_page_cache(file: &File) {
    // SAFETY: advice about a descriptor that we own. Advice that is not taken costs speed.
    let _refused =
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
}

/// Allocates a range of the file.
pub(super) fn allocate(file: &File, offset: u64, length: u64) -> io::Result<()> {
    let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    let length = libc::off_t::try_from(length).map_err(io::Error::other)?;
    // SAFETY: fallocate of a descriptor that we own.
    match unsafe { libc::fallocate(file.as_raw_fd(), 0, offset, length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
