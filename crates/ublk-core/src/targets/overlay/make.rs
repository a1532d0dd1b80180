//! New layers.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ublk_overlay::extent::BLOCK;
use ublk_overlay::head::Head;
use ublk_overlay::index::Index;
use ublk_overlay::superblock::{Parent, SUPERBLOCKS, Superblock};
use uuid::Uuid;

use super::chain::failed;
use super::naming;
use super::settle::{self, random};
use crate::error::{Code, Error, Result};

/// log2 of the blocks of a segment: 1 MiB.
const SEGMENT_SHIFT: u32 = 8;

/// The parameters of a new layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Birth {
    pub(super) blocks: u64,
    pub(super) parent: Option<Parent>,
    pub(super) logical_block: u32,
    pub(super) base_modified: i64,
    pub(super) segment_shift: u32,
    /// Layer, disk and first generation; absent: those of a new disk.
    pub(super) identity: Option<(Uuid, Uuid, u64)>,
}

impl Birth {
    /// An empty layer of a new disk of so many blocks, with logical blocks of so many bytes.
    pub(super) fn new(blocks: u64, logical_block: u32, base_modified: i64) -> Self {
        let (parent, segment_shift, identity) = (None, SEGMENT_SHIFT, None);
        Self { blocks, parent, logical_block, base_modified, segment_shift, identity }
    }

    /// An empty layer on `parent`, or on the base, of a disk like the one with this layer.
    pub(super) fn like(layer: &Superblock, parent: Option<Parent>) -> Self {
        let Superblock { blocks, logical_block, base_modified, segment_shift, .. } = *layer;
        Self { blocks, parent, logical_block, base_modified, segment_shift, identity: None }
    }
}

/// A whole layer without a name; gone on drop, unless the layer gets a [name](Self::name).
pub(super) struct Unnamed {
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) head: Head,
}

impl Unnamed {
    /// Makes an empty layer in the folder of `path`.
    ///
    /// # Errors
    /// `BadBackend` when there is something at `path`; `Unsupported` on a file system that cannot hold
    /// layers; `Resources` on a full file system.
    pub(super) fn make(path: &Path, birth: &Birth) -> Result<Self> {
        if path.symlink_metadata().is_ok() {
            return Err(exists(path));
        }
        Self::draft(path, birth)
    }

    /// As [`make`](Self::make), whatever there is at `path`.
    pub(super) fn draft(path: &Path, birth: &Birth) -> Result<Self> {
        let file = naming::open(path).map_err(|error| match error.raw_os_error() {
            Some(libc::EOPNOTSUPP | libc::EISDIR) => {
                unsuitable(path, "files without a name (O_TMPFILE)")
            }
            _ => failed(path, "open", &error),
        })?;
        let new = Uuid::new_v4();
        let (layer, disk, generation) = birth.identity.unwrap_or((new, new, 1));
        let superblock = Superblock {
            generation,
            layer,
            disk,
            parent: birth.parent,
            blocks: birth.blocks,
            logical_block: birth.logical_block,
            frozen: false,
            segment_shift: birth.segment_shift,
            log: 0,
            salt: random(),
            base_modified: birth.base_modified,
            in_use: None,
            committing: false,
        };
        let head = Head::new(superblock, 0, Index::new(), random());
        let head = head.map_err(|full| Error::new(Code::Internal, full.to_string()))?;
        let length = (u64::from(head.space().segments()) << birth.segment_shift) * BLOCK;
        // A disk that is never written to takes no more space than this.
        settle::allocate(&file, 0, SUPERBLOCKS * BLOCK).map_err(|error| {
            match error.raw_os_error() {
                Some(libc::EOPNOTSUPP) => without_fallocate(path),
                _ => failed(path, "fallocate", &error),
            }
        })?;
        file.set_len(length).map_err(|error| failed(path, "ftruncate", &error))?;
        let superblock = head.superblock();
        file.write_all_at(&superblock.to_page(), superblock.place() * BLOCK)
            .and_then(|()| file.sync_all())
            .map_err(|error| failed(path, "write", &error))?;
        Ok(Self { file, path: path.into(), head })
    }

    /// Gives the layer a name, durably. Answers the UUID.
    ///
    /// # Errors
    /// `BadBackend` when there is something of this name.
    pub(super) fn name(self) -> Result<Uuid> {
        naming::link(&self.file, &self.path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => exists(&self.path),
            _ => failed(&self.path, "linkat", &error),
        })?;
        Ok(self.head.superblock().layer)
    }
}

fn exists(path: &Path) -> Error {
    Error::new(Code::BadBackend, format!("cannot make the layer {}: it exists", path.display()))
        .hint("the file is left as it is; name one that does not exist")
}

pub(super) fn without_fallocate(path: &Path) -> Error {
    unsuitable(path, "fallocate")
}

fn unsuitable(path: &Path, lacks: &str) -> Error {
    let message =
        format!("cannot keep the layer {}: its file system has no {lacks}", path.display());
    Error::new(Code::Unsupported, message)
        .hint("ext4, xfs, btrfs and tmpfs have what a layer needs")
}
