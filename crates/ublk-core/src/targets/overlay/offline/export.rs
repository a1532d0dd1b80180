//! Export: a whole disk as a raw file.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use ublk_overlay::extent::{BLOCK, Place};
use ublk_overlay::index::Piece;

use super::super::naming;
use super::base::Base;
use super::copy::{CHUNK, write_sparse};
use super::disk::{Access, Disk};
use super::{Progress, kill};
use crate::error::{Code, Error, Result};
use crate::targets::file;
use crate::targets::native::Native;

/// The file that an export has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Export {
    /// The size of the disk, in bytes.
    pub size: u64,
    /// Bytes that are written; all others are holes.
    pub written: u64,
}

/// Writes the disk of the layer at `path` on `base` to the raw file `out`. Blocks of zeros become holes.
/// `replaces`: an existing file is replaced. `out` has the whole disk, or is what was there before.
///
/// # Errors
/// As for [`info`](super::super::info); `BadBackend` when `out` exists, when the last server has not closed
/// the layer, and for another base than that of the layer; `InvalidArgument` for an unsuitable base, or
/// when `out` is the base or a layer of the disk; `Unsupported` where the file system has no `O_TMPFILE`.
pub fn export(
    base: &Native,
    path: &Path,
    out: &Path,
    replaces: bool,
    progress: &Progress,
) -> Result<Export> {
    let disk = Disk::open(path, Access::Shared, |_| Ok(0))?;
    let mut base = Base::of(base, disk.highest())?;
    let replaced = out.symlink_metadata().is_ok().then(|| fs::canonicalize(out)).transpose();
    let replaced = replaced.map_err(|error| failed(out, "stat", &error))?;
    let out = replaced.as_deref().unwrap_or(out);
    // The lock of the file that is replaced.
    let _lock = match &replaced {
        Some(_) if !replaces => return Err(exists(out)),
        Some(path) => Some(check_replaced(path, &disk, &base)?),
        None => None,
    };
    let size = disk.blocks() * BLOCK;
    progress.begin(size);
    let file = naming::open(out).map_err(|error| unnamed(out, &error))?;
    let written = file
        .set_len(size)
        .and_then(|()| write(&disk, &mut base, &file, progress))
        .map_err(|error| failed(out, "write", &error))?;
    let named = file.sync_all().and_then(|()| {
        kill::point()?;
        match &replaced {
            Some(_) => naming::replace(&file, out),
            None => naming::link(&file, out),
        }
    });
    named.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(out),
        _ => failed(out, "rename", &error),
    })?;
    Ok(Export { size, written })
}

fn write(disk: &Disk, base: &mut Base<'_>, out: &File, progress: &Progress) -> io::Result<u64> {
    let mut written = 0;
    for piece in disk.index.pieces(0, disk.blocks()) {
        written += write_piece(disk, base, out, &piece, progress)?;
    }
    Ok(written)
}

fn write_piece(
    disk: &Disk,
    base: &mut Base<'_>,
    out: &File,
    piece: &Piece,
    progress: &Progress,
) -> io::Result<u64> {
    let (mut at, end) = (piece.block * BLOCK, (piece.block + piece.count) * BLOCK);
    let mut bytes = Vec::new();
    let mut written = 0;
    while at < end {
        let from = match piece.place {
            Some(Place::Zero) => end,
            Some(Place::At { .. }) => at,
            // A base with holes may be much larger than what is stored.
            None => base.data_from(at, end).map_or(end, |data| (data - data % BLOCK).max(at)),
        };
        let to = end.min(from.saturating_add(CHUNK));
        bytes.resize(usize::try_from(to - from).map_err(io::Error::other)?, 0);
        match piece.place {
            Some(Place::At { layer, block }) => {
                let within = from - piece.block * BLOCK;
                let layer = &disk.layers[layer as usize].backing;
                layer.read_exact_at(&mut bytes, block * BLOCK + within)?;
            }
            Some(Place::Zero) => {}
            None => base.read(from, &mut bytes)?,
        }
        written += write_sparse(out, from, &bytes)?;
        progress.advance(to - at)?;
        at = to;
    }
    Ok(written)
}

/// Checks that the file may be replaced. Answers the file, locked.
fn check_replaced(path: &Path, disk: &Disk, base: &Base<'_>) -> Result<File> {
    let failed = |error| failed(path, "stat", &error);
    // Without waiting for the writer of a pipe.
    let nonblocking = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = nonblocking.map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    let refused = |what: &str| {
        let message = format!("cannot write the disk to {}: {what}", path.display());
        Err(Error::new(Code::InvalidArgument, message).hint("name another file"))
    };
    if !found.is_file() {
        return refused("it is no regular file");
    }
    if disk.has(&found).map_err(failed)? {
        return refused("it is a layer of the disk");
    }
    if base.has(&found).map_err(failed)? {
        return refused("it is the base of the disk");
    }
    file::lock(path, &file, false)?;
    Ok(file)
}

fn exists(path: &Path) -> Error {
    Error::new(Code::BadBackend, format!("cannot write the disk to {}: it exists", path.display()))
        .hint("name a file that does not exist, or set replace (--force)")
}

fn unnamed(path: &Path, error: &io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::EISDIR) => {
            let message = format!(
                "cannot write the disk to {}: its file system has no files without a name (O_TMPFILE)",
                path.display()
            );
            Error::new(Code::Unsupported, message).hint(
                "write to ext4, xfs, btrfs or tmpfs, and copy the file with cp --sparse=always",
            )
        }
        _ => failed(path, "open", error),
    }
}

fn failed(path: &Path, syscall: &'static str, error: &io::Error) -> Error {
    Error::os(
        Code::of_file(error),
        format!("cannot write the disk to {}", path.display()),
        syscall,
        error,
    )
}
