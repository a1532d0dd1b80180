//! Writes to a layer's file by system calls: before the first request, and after the last.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use ublk_overlay::extent::BLOCK;
use ublk_overlay::head::Head;
use ublk_overlay::superblock::{InUse, Superblock};
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
    flush(head, file)?;
    write(file, &Superblock { frozen: freezes, ..next(head, None) })
}

/// Makes the layer durable.
fn flush(head: &mut Head, file: &File) -> io::Result<()> {
    let number = head.flush().map_err(|_| io::Error::from_raw_os_error(libc::ENOSPC))?;
    file.sync_data()?;
    let segment = head.space().segment_blocks() * BLOCK;
    for number in head.log_segments() {
        allocate(file, u64::from(number) * segment, segment)?;
    }
    for (place, page) in head.log_blocks(number) {
        file.write_all_at(page, place * BLOCK)?;
    }
    file.sync_data()?;
    head.flushed(number);
    Ok(())
}

/// Writes a superblock, durably.
pub(super) fn write(file: &File, superblock: &Superblock) -> io::Result<()> {
    file.write_all_at(&superblock.to_page(), superblock.place() * BLOCK)?;
    file.sync_data()
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
