//! The files of the layers: the live layer, and the frozen layers below.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use ublk_overlay::extent::{BLOCK, MAX_LAYERS};
use ublk_overlay::load::{LayerFile, LoadError};
use ublk_overlay::superblock::{Page, Parent, Superblock, Unfit};

use super::super::Target;
use super::super::file::{File, FileOptions};
use super::settle;
use crate::error::{Code, Error, Result};

type Read = Box<dyn FnMut(u64, &mut Page) -> io::Result<()> + Send>;

/// A layer's file, opened and locked, and the superblock of the file.
pub(super) struct Layer {
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// The same file through the page cache.
    pub(super) backing: fs::File,
    pub(super) contents: LayerFile<Read>,
}

impl Layer {
    /// # Errors
    /// As [`File::open`]; `BadBackend` for a file without a superblock.
    pub(super) fn open(path: &Path, how: &FileOptions) -> Result<Self> {
        let found = fs::metadata(path).map_err(|error| failed(path, "stat", &error))?;
        if !found.is_file() {
            let message = format!("{} is not a regular file", path.display());
            return Err(Error::new(Code::BadBackend, message).hint("a layer is kept in a file"));
        }
        // A file that could not grow by a whole segment may end within a block.
        let whole = found.len() - found.len() % BLOCK;
        if whole == 0 {
            return Err(unfit(path, &LoadError::from(Unfit::Foreign)));
        }
        let block = u32::try_from(BLOCK).ok();
        let how = FileOptions { logical_block: block, size: Some(whole), ..how.clone() };
        let file = File::open(path, &how)?;
        let fd = file.files()[0];
        let backing = fs::OpenOptions::new()
            .read(true)
            .write(!how.read_only)
            .open(format!("/proc/self/fd/{fd}"))
            .map_err(|error| failed(path, "open", &error))?;
        let reader = backing.try_clone().map_err(|error| failed(path, "dup", &error))?;
        let read: Read = Box::new(move |block, page| reader.read_exact_at(page, block * BLOCK));
        // The length now, with the lock.
        let locked = backing.metadata().map_err(|error| failed(path, "fstat", &error))?;
        check_place(path, &locked)?;
        let length = locked.len();
        let contents = LayerFile::open(length, read).map_err(|error| unfit(path, &error))?;
        Ok(Self { path: path.into(), file, backing, contents })
    }

    pub(super) fn superblock(&self) -> &Superblock {
        &self.contents.superblock
    }

    /// The frozen layers below, the lowest first.
    ///
    /// # Errors
    /// `NoBackend` for a missing layer; `BadBackend` for a layer other than the child names.
    pub(super) fn parents(&self, how: &FileOptions) -> Result<Vec<Self>> {
        let mut parents: Vec<Self> = Vec::new();
        loop {
            let child = parents.last().unwrap_or(self);
            let Some(parent) = child.superblock().parent else { break };
            if parents.len() as u64 + 2 > u64::from(MAX_LAYERS) {
                let message = format!(
                    "{} stands on more than {} layers",
                    self.path.display(),
                    MAX_LAYERS - 1
                );
                return Err(Error::new(Code::Unsupported, message));
            }
            parents.push(child.open_parent(&parent, how)?);
        }
        parents.reverse();
        Ok(parents)
    }

    /// Whether this is the live layer of a snapshot that was killed after the exchange of names: all that
    /// the layer holds is durable, and nobody has opened the layer since.
    fn was_to_be_frozen(&self, parent: &Parent) -> bool {
        let found = self.superblock();
        !found.frozen && found.layer == parent.layer && found.generation + 1 == parent.generation
    }

    /// Freezes the layer of such a snapshot.
    fn finish_snapshot(path: &Path, how: &FileOptions) -> Result<()> {
        let layer = Self::open(path, &FileOptions { read_only: false, ..how.clone() })?;
        let found = layer.superblock();
        let generation = found.generation + 1;
        let frozen = Superblock { generation, frozen: true, in_use: None, ..*found };
        settle::write(&layer.backing, &frozen).map_err(|error| failed(path, "write", &error))
    }

    fn open_parent(&self, parent: &Parent, how: &FileOptions) -> Result<Self> {
        let path = folder(&self.path).join(OsStr::from_bytes(parent.file.bytes()));
        let of = format!("the layer below {}", self.path.display());
        if !path.exists() {
            let message = format!("there is no {}, {of}", path.display());
            return Err(Error::new(Code::NoBackend, message).hint(
                "the layers of a disk lie in one folder, each with the name that it had when the one \
                 above it was made",
            ));
        }
        let reading = FileOptions { read_only: true, ..how.clone() };
        let mut below = Self::open(&path, &reading)?;
        if below.was_to_be_frozen(parent) {
            drop(below);
            Self::finish_snapshot(&path, how)?;
            below = Self::open(&path, &reading)?;
        }
        let found = below.superblock();
        let wrong = if found.layer != parent.layer {
            format!("is layer {}, not {}", found.layer, parent.layer)
        } else if !found.frozen || found.generation != parent.generation {
            format!("was written to since it was frozen, as {of}")
        } else if found.blocks != self.superblock().blocks {
            format!(
                "is of a disk of {} bytes, not {}",
                found.blocks * BLOCK,
                self.superblock().blocks * BLOCK
            )
        } else {
            return Ok(below);
        };
        Err(Error::new(Code::BadBackend, format!("{} {wrong}", path.display()))
            .hint(format!("put back the file that is {of}")))
    }
}

/// Checks that the locked file is the file at `path`: a merge puts another file there.
fn check_place(path: &Path, locked: &fs::Metadata) -> Result<()> {
    let found = fs::metadata(path).map_err(|error| failed(path, "stat", &error))?;
    if (found.dev(), found.ino()) == (locked.dev(), locked.ino()) {
        return Ok(());
    }
    let message = format!("{} was replaced by another file meanwhile", path.display());
    Err(Error::new(Code::Busy, message).hint("try again"))
}

/// The folder of a file.
pub(super) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// An error of a system call on a layer's file.
pub(super) fn failed(path: &Path, syscall: &'static str, error: &io::Error) -> Error {
    Error::os(
        Code::of_file(error),
        format!("cannot use {} as a layer", path.display()),
        syscall,
        error,
    )
}

/// The error of a file that cannot be a layer.
pub(super) fn unfit(path: &Path, error: &LoadError) -> Error {
    let hint = match error {
        LoadError::Io(error) => return failed(path, "read", error),
        LoadError::Unfit(Unfit::Foreign) => {
            "the file is left as it is; name one that `ublk overlay create` has made"
        }
        LoadError::Unfit(Unfit::Newer(_)) => {
            "a later release of this package has made it: use that one"
        }
        LoadError::Unfit(Unfit::Damaged) | LoadError::Damaged { .. } => {
            "take the file from a backup"
        }
    };
    let message = format!("{} cannot be served as a layer: {error}", path.display());
    Error::new(Code::BadBackend, message).hint(hint)
}

/// When a file was last modified, in nanoseconds since 1970.
pub(in super::super) fn modified_of(found: &fs::Metadata) -> i64 {
    found.mtime() * 1_000_000_000 + found.mtime_nsec()
}

/// When a regular file was last modified; none for other files.
pub(in super::super) fn modified(fd: i32) -> io::Result<Option<i64>> {
    // SAFETY: all zeros is a valid `stat`.
    let mut found: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: a struct of ours; the descriptor may be any number.
    if unsafe { libc::fstat(fd.as_raw_fd(), &raw mut found) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let time = found.st_mtime * 1_000_000_000 + found.st_mtime_nsec;
    Ok((found.st_mode & libc::S_IFMT == libc::S_IFREG).then_some(time))
}
