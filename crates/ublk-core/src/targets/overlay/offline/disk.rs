//! A disk without a server: the layers, locked, and the index of the disk.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ublk_overlay::extent::{BLOCK, Place};
use ublk_overlay::index::Index;
use ublk_overlay::superblock::Superblock;

use super::super::chain::{Layer, failed, unfit};
use super::super::diff::not_closed;
use super::super::verbs::reading;
use crate::error::Result;
use crate::targets::file::{File, FileOptions};

/// A layer of a disk.
pub(super) struct Part {
    pub(super) path: PathBuf,
    pub(super) superblock: Superblock,
    /// The file, through the page cache.
    pub(super) backing: fs::File,
    /// Holds the lock.
    _file: File,
}

/// The highest layers of a disk, and where these have which block.
pub(super) struct Disk {
    /// The lowest first; a number in the index is a place here.
    pub(super) layers: Vec<Part>,
    pub(super) index: Index,
}

/// The lock of the highest layer. Lower layers are always shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Others may read the layer, too.
    Shared,
    /// Nobody else has the layer, not even as a layer below.
    Alone,
}

impl Disk {
    /// Opens the disk of the layer at `path`, and reads the layers but the lowest ones: `skip` answers how many of these to leave
    /// out, of all layers in order from the lowest.
    ///
    /// # Errors
    /// As for [`info`](super::super::info); `BadBackend` when the last server has not closed the layer.
    pub(super) fn open(
        path: &Path,
        access: Access,
        skip: impl FnOnce(&[Layer]) -> Result<usize>,
    ) -> Result<Self> {
        let path = fs::canonicalize(path).map_err(|error| failed(path, "stat", &error))?;
        let how = match access {
            Access::Shared => reading(),
            Access::Alone => FileOptions::default(),
        };
        let highest = Layer::open(&path, &how)?;
        if highest.superblock().in_use.is_some() {
            return Err(not_closed(&path));
        }
        let mut all = highest.parents(&reading())?;
        all.push(highest);
        let skipped = skip(&all)?;
        let mut index = Index::new();
        let mut layers = Vec::new();
        for (number, Layer { path, file, backing, contents }) in
            (0..).zip(all.into_iter().skip(skipped))
        {
            let superblock = contents.superblock;
            contents.load(number, &mut index).map_err(|error| unfit(&path, &error))?;
            layers.push(Part { path, superblock, backing, _file: file });
        }
        Ok(Self { layers, index })
    }

    /// The layer whose disk it is.
    pub(super) fn highest(&self) -> &Part {
        self.layers.last().expect("a disk has a layer")
    }

    /// The lowest layer that was read.
    pub(super) fn lowest(&self) -> &Part {
        self.layers.first().expect("a disk has a layer")
    }

    /// The size of the disk, in blocks.
    pub(super) fn blocks(&self) -> u64 {
        self.highest().superblock.blocks
    }

    /// Bytes of the disk that the layers store.
    pub(super) fn stored(&self) -> u64 {
        let stored = self.index.iter().filter(|extent| extent.place() != Place::Zero);
        stored.map(|extent| u64::from(extent.count()) * BLOCK).sum()
    }

    /// Whether the file is one of the layers.
    pub(super) fn has(&self, other: &fs::Metadata) -> io::Result<bool> {
        contains(self.layers.iter().map(|layer| &layer.backing), other)
    }
}

/// Whether a file is among others.
pub(super) fn contains<'a>(
    files: impl IntoIterator<Item = &'a fs::File>,
    file: &fs::Metadata,
) -> io::Result<bool> {
    for other in files {
        let other = other.metadata()?;
        if (other.dev(), other.ino()) == (file.dev(), file.ino()) {
            return Ok(true);
        }
    }
    Ok(false)
}
