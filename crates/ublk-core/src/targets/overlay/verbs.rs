//! Verbs on disks without a server: create, fork, info.

use std::fs;
use std::path::{Path, PathBuf};

use ublk_overlay::extent::BLOCK;
use ublk_overlay::index::Index;
use ublk_overlay::superblock::{FileName, Parent, Superblock};
use uuid::Uuid;

use super::super::Boot;
use super::super::file::FileOptions;
use super::super::native::Native;
use super::chain::{Layer, failed, folder, unfit};
use super::checks::{blocks, check_base};
use super::history::default_folder;
use super::loaded::{Loaded, Memory};
use super::make::{Birth, Unnamed};
use super::{folders, sectors, settle};
use crate::error::{Code, Error, Result};

/// Makes an empty layer on `base` at `path`, of a disk with logical blocks of so many bytes: 512, 1024, 2048 or
/// 4096; absent: those of a base that is the disk of a frozen layer or a qcow2 image, and 4096 on other bases.
/// Answers the layer's UUID.
///
/// # Errors
/// `BadBackend` when there is something at `path`; `InvalidArgument` for an unsuitable base, and one with larger
/// logical blocks; `Unsupported` on a file system without fallocate.
pub fn create(base: &Native, path: &Path, logical_block: Option<u32>) -> Result<Uuid> {
    let base_modified = check_base(base)?;
    let logical_block = sectors::of_new_disk(base, logical_block)?;
    let made = Unnamed::make(path, &Birth::new(blocks(base)?, logical_block, base_modified))?;
    folders::name(made, base)
}

/// Freezes the layer at `path`, unless the layer is frozen, and makes empty layers on it at `children`, in the
/// same folder. `history` is the folder of [`OverlayOptions::history`](super::OverlayOptions::history).
///
/// An interrupted fork leaves a frozen layer without some of the children; a second fork makes the others.
///
/// # Errors
/// `Busy` when the disk is served; `BadBackend` for a file without a superblock, where a child exists, or
/// when a server of this boot was killed and the folder lacks the server's history;
/// `InvalidArgument` for a child in another folder.
pub fn fork(path: &Path, children: &[PathBuf], history: Option<&Path>) -> Result<()> {
    let path = fs::canonicalize(path).map_err(|error| failed(path, "stat", &error))?;
    let name = path.file_name().and_then(|name| FileName::new(name.as_encoded_bytes()));
    let name = name.ok_or_else(|| refused(format!("{} has no name", path.display())))?;
    for child in children {
        check_folder(&path, child)?;
    }
    let how = match Layer::open(&path, &reading())?.superblock().frozen {
        true => reading(),
        false => FileOptions::default(),
    };
    let layer = Layer::open(&path, &how)?;
    let frozen = match *layer.superblock() {
        frozen if frozen.frozen => frozen,
        live => Superblock { generation: live.generation + 1, ..live },
    };
    if frozen.committing {
        return Err(committing(&path));
    }
    let parent = Parent { layer: frozen.layer, generation: frozen.generation, file: name };
    let birth = Birth::like(&frozen, Some(parent));
    let made =
        children.iter().map(|child| Unnamed::make(child, &birth)).collect::<Result<Vec<_>>>()?;
    if !layer.superblock().frozen {
        freeze(layer, history)?;
    }
    made.into_iter().try_for_each(|child| child.name().map(drop))
}

/// Flushes the layer and marks the superblock as frozen.
fn freeze(layer: Layer, history: Option<&Path>) -> Result<()> {
    let path = layer.path.clone();
    let failed = |error| failed(&path, "write", &error);
    let memory = Memory {
        folder: history.map_or_else(default_folder, Path::to_owned),
        boot: Boot::of_machine().map_err(failed)?,
        lose_unflushed: false,
    };
    let loaded = Loaded::of(layer, 0, Index::new(), &memory)?;
    // The file is locked as long as it is there.
    let Loaded { mut head, backing, history, file: _locked, .. } = loaded;
    settle::close(&mut head, &backing, true).map_err(failed)?;
    if let Some(history) = history {
        // A frozen layer has no use for a history.
        let _ = history.remove();
    }
    Ok(())
}

/// Children find the parent by name, in one folder.
pub(super) fn check_folder(path: &Path, child: &Path) -> Result<()> {
    let of =
        |path: &Path| fs::canonicalize(folder(path)).map_err(|error| failed(path, "stat", &error));
    if of(child)? == of(path)? {
        return Ok(());
    }
    let message = format!("{} is not in the folder of {}", child.display(), path.display());
    Err(refused(message).hint("the layers of a disk lie in one folder"))
}

/// The error of a layer of which a part is in the base.
pub(super) fn committing(path: &Path) -> Error {
    let message = format!("a commit of {} into its base was interrupted", path.display());
    Error::new(Code::BadBackend, message)
        .hint(format!("finish it: ublk overlay commit --into-base BASE {}", path.display()))
}

fn refused(message: String) -> Error {
    Error::new(Code::InvalidArgument, message)
}

pub(super) fn reading() -> FileOptions {
    FileOptions { read_only: true, ..FileOptions::default() }
}

/// The description of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Where the file is.
    pub path: PathBuf,
    /// The layer's identity.
    pub layer: Uuid,
    /// The number of superblocks written so far.
    pub generation: u64,
    /// Whether the layer is read-only, so that other layers may stand on this layer.
    pub frozen: bool,
    /// Whether the last server has closed the layer; the file of another layer may lack answered writes.
    pub closed: bool,
    /// The size of the disk, in bytes.
    pub size: u64,
    /// The logical block of the disk, in bytes.
    pub logical_block: u32,
    /// Bytes of the disk in this layer, zeros not counted.
    pub stored: u64,
    /// Bytes of the disk that this layer makes zeros.
    pub zeros: u64,
    /// Runs of blocks in the layer.
    pub extents: u64,
    /// Bytes of the file system that the file takes.
    pub allocated: u64,
}

/// Describes the layer at `path` and the layers below, the lowest last. Unflushed writes of a killed
/// server are not counted.
///
/// # Errors
/// As for [`Overlay::open`](super::Overlay::open); `Busy` when the disk is served.
pub fn info(path: &Path) -> Result<Vec<Info>> {
    let path = fs::canonicalize(path).map_err(|error| failed(path, "stat", &error))?;
    let layer = Layer::open(&path, &reading())?;
    let mut layers = layer.parents(&reading())?;
    layers.push(layer);
    layers.into_iter().rev().map(describe).collect()
}

fn describe(layer: Layer) -> Result<Info> {
    use std::os::unix::fs::MetadataExt;
    let Layer { path, backing, contents, .. } = layer;
    let found = backing.metadata().map_err(|error| failed(&path, "fstat", &error))?;
    let Superblock { layer, generation, frozen, blocks, logical_block, in_use, .. } =
        contents.superblock;
    let mut index = Index::new();
    contents.load(0, &mut index).map_err(|error| unfit(&path, &error))?;
    let (mut stored, mut zeros) = (0, 0);
    for extent in index.iter() {
        let counted = if extent.layer().is_some() { &mut stored } else { &mut zeros };
        *counted += u64::from(extent.count()) * BLOCK;
    }
    let (size, allocated) = (blocks * BLOCK, found.blocks() * 512);
    let (extents, closed) = (index.len() as u64, in_use.is_none());
    Ok(Info {
        path,
        layer,
        generation,
        frozen,
        closed,
        size,
        logical_block,
        stored,
        zeros,
        extents,
        allocated,
    })
}
