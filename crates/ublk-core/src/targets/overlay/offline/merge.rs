//! Merging layers: flatten and commit.
//!
//! The merged layer is a new file, which takes the place of the highest layer by a rename and has the
//! highest layer's UUID. So the disk keeps its name, and layers that stand on a frozen layer still do.
//! The lower layers are not written to: others may stand on these. A commit is therefore a merge of a layer
//! with the one below it, and no copy into the file below, which would be neither old nor new after a kill.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ublk_overlay::extent::{BLOCK, Extent, Place};
use ublk_overlay::head::{Head, Target};
use uuid::Uuid;

use super::super::chain::{Layer, failed, folder};
use super::super::folders;
use super::super::make::{Birth, Unnamed};
use super::super::{naming, settle};
use super::bases::{Image, on_images};
use super::copy::copy;
use super::disk::{Access, Disk};
use super::{family, kill};
use crate::error::{Code, Error, Result};
use crate::targets::file::FileOptions;
use crate::targets::{Merged, Progress};

/// Merges all layers of the disk at `path` into one on the same base. `prunes`: removes the merged layers on
/// which no other layer stands. At any moment the disk has the same contents. A layer on the base is left
/// as it is.
///
/// # Errors
/// As for [`info`](super::super::info); `BadBackend` when the last server has not closed the layer; `Busy`
/// when a server has the layer or a layer above.
pub fn flatten(path: &Path, prunes: bool, progress: &Progress) -> Result<Merged> {
    let disk = Disk::open(path, Access::Alone, |_| Ok(0))?;
    let below = merge(&disk, progress)?;
    // Removing a layer takes the lock.
    drop(disk);
    remove_unused(below, prunes)
}

/// Merges the layer at `path` and the layer below, which is removed. At any moment the disk has the same
/// contents.
///
/// # Errors
/// As for [`flatten`]; `InvalidArgument` when the layer stands on the base, or other layers stand on
/// the layer below.
pub fn commit(path: &Path, progress: &Progress) -> Result<Merged> {
    let disk = Disk::open(path, Access::Alone, check_parent)?;
    let below = merge(&disk, progress)?;
    // Removing a layer takes the lock.
    drop(disk);
    remove_unused(below, true)
}

/// The number of layers that a commit leaves as they are.
fn check_parent(layers: &[Layer]) -> Result<usize> {
    let [skipped @ .., parent, child] = layers else {
        let path = layers.last().map_or(Path::new(""), |layer| &layer.path);
        let message = format!("{} stands on its base, and on no other layer", path.display());
        return Err(Error::new(Code::InvalidArgument, message)
            .hint("ublk overlay commit --into-base BASE LAYER writes a layer into its base"));
    };
    let mut others = family::children(&parent.path, parent.superblock().layer)?;
    others.extend(on_images(&parent.path, Image::of(&parent.path).as_slice()));
    let others: Vec<_> = others.into_iter().filter(|other| *other != child.path).collect();
    if others.is_empty() {
        return Ok(skipped.len());
    }
    let message = format!(
        "cannot commit {} into {}, on which other layers stand: {}",
        child.path.display(),
        parent.path.display(),
        family::names(&others)
    );
    Err(Error::new(Code::InvalidArgument, message).hint(format!(
        "ublk overlay flatten {} copies the layers below and leaves them as they are",
        child.path.display()
    )))
}

/// What [`flatten_frozen`] has done.
pub(in super::super) struct Flattened {
    /// The files of the merged layers but the highest.
    pub(in super::super) below: Vec<PathBuf>,
    /// The layers that are as they were, below the merged one.
    pub(in super::super) left: Vec<Uuid>,
}

/// Merges the frozen layer at `path` and the layers below, as [`flatten`], while servers have these: down to a
/// layer on which others stand, whose contents these share. The layer must be `layer` in this generation.
pub(in super::super) fn flatten_frozen(
    path: &Path,
    (layer, generation): (Uuid, u64),
    progress: &Progress,
) -> Result<Flattened> {
    let mut left = Vec::new();
    let disk = Disk::open(path, Access::Shared, |layers| {
        let shared = shared(layers)?;
        left = layers[..shared].iter().map(|layer| layer.superblock().layer).collect();
        Ok(shared)
    })?;
    let found = disk.highest().superblock;
    if (found.layer, found.generation) != (layer, generation) {
        let message = format!("{} is another layer than the disk stands on", path.display());
        return Err(Error::new(Code::BadBackend, message).hint("give the file its name back"));
    }
    let below = merge(&disk, progress)?;
    // A layer in another folder may have been noted meanwhile.
    if let Ok(merged) = fs::File::open(path) {
        folders::keep(&disk.highest().backing, &merged);
    }
    Ok(Flattened { below, left })
}

/// The number of layers up to the highest below the last one on which other layers stand.
fn shared(layers: &[Layer]) -> Result<usize> {
    let Some(highest) = layers.last() else { return Ok(0) };
    let found = family::layers_in(folder(&highest.path))?;
    for (at, pair) in layers.windows(2).enumerate().rev() {
        let [below, above] = pair else { continue };
        let (id, child) = (below.superblock().layer, above.superblock().layer);
        let is_other = |one: &family::Found| {
            one.superblock.layer != child
                && one.superblock.parent.is_some_and(|parent| parent.layer == id)
        };
        let elsewhere = || on_images(&below.path, Image::of(&below.path).as_slice());
        if found.iter().any(is_other) || !elsewhere().is_empty() {
            return Ok(at + 1);
        }
    }
    Ok(0)
}

/// Puts one layer in the place of the highest. Answers the paths of the others, the highest first.
fn merge(disk: &Disk, progress: &Progress) -> Result<Vec<PathBuf>> {
    if disk.layers.len() < 2 {
        return Ok(Vec::new());
    }
    let (highest, lowest) = (disk.highest(), disk.lowest());
    let path = highest.path.clone();
    let superblock = highest.superblock;
    // The children of a frozen layer name its generation.
    let first = if superblock.frozen {
        superblock.generation.saturating_sub(1)
    } else {
        superblock.generation
    };
    let birth = Birth {
        identity: Some((superblock.layer, superblock.disk, first)),
        ..Birth::like(&superblock, lowest.superblock.parent)
    };
    progress.begin(disk.stored());
    let mut merged = Unnamed::draft(&path, &birth)?;
    folders::keep(&highest.backing, &merged.file);
    let permissions = highest.backing.metadata().map(|found| found.permissions());
    permissions
        .and_then(|permissions| merged.file.set_permissions(permissions))
        .and_then(|()| fill(&mut merged, disk, progress))
        .and_then(|()| settle::close(&mut merged.head, &merged.file, superblock.frozen))
        .and_then(|()| merged.file.sync_all())
        .and_then(|()| naming::replace(&merged.file, &path))
        .map_err(|error| failed(&path, "write", &error))?;
    let below = disk.layers.iter().rev().skip(1);
    Ok(below.map(|layer| layer.path.clone()).collect())
}

/// Writes all extents of a disk into an empty layer.
fn fill(to: &mut Unnamed, disk: &Disk, progress: &Progress) -> io::Result<()> {
    for extent in disk.index.iter() {
        match extent.place() {
            Place::Zero => to.head.zero(extent.block(), extent.end()),
            Place::At { layer, block } => {
                let from = &disk.layers[layer as usize].backing;
                let source = |part: &Target| (from, (block + part.block - extent.block()) * BLOCK);
                for part in places(&mut to.head, extent)? {
                    reserve(&to.head, &to.file, &part)?;
                    let (length, place) =
                        (u64::from(part.run.count) * BLOCK, part.run.block * BLOCK);
                    copy(source(&part), (&to.file, place), length, progress)?;
                    to.head.publish(&part);
                }
            }
        }
    }
    kill::point()
}

/// New places for the blocks of an extent.
pub(super) fn places(head: &mut Head, extent: Extent) -> io::Result<Vec<Target>> {
    let mut parts = Vec::new();
    let found = head.places(extent.block(), extent.end(), |part| parts.push(part));
    found.map(|()| parts).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))
}

/// Makes the file as long as the segments, so that the data is in few extents of the file system.
pub(super) fn reserve(head: &Head, file: &fs::File, part: &Target) -> io::Result<()> {
    let segment = head.space().segment_blocks() * BLOCK;
    let end = (part.run.block + u64::from(part.run.count)) * BLOCK;
    let length = file.metadata()?.len();
    match end.next_multiple_of(segment).checked_sub(length) {
        None | Some(0) => Ok(()),
        Some(missing) => settle::allocate(file, length, missing),
    }
}

/// Removes merged layers, the highest first, up to one on which a layer stands.
pub(in super::super) fn remove_unused(below: Vec<PathBuf>, prunes: bool) -> Result<Merged> {
    let mut merged = Merged::default();
    for path in below {
        let unused = prunes && merged.kept.is_empty() && remove(&path)?;
        if unused { &mut merged.removed } else { &mut merged.kept }.push(path);
    }
    Ok(merged)
}

/// Removes a frozen layer. False if another layer stands on it, or a server has it.
fn remove(path: &Path) -> Result<bool> {
    let layer = match Layer::open(path, &FileOptions::default()) {
        Err(error) if error.code == Code::Busy => return Ok(false),
        opened => opened?,
    };
    // A fork of the layer needs the lock, too.
    let is_base = || !on_images(path, Image::of(path).as_slice()).is_empty();
    if !family::children(path, layer.superblock().layer)?.is_empty() || is_base() {
        return Ok(false);
    }
    let removed = kill::point().and_then(|()| fs::remove_file(path));
    removed.and_then(|()| naming::sync(path)).map_err(|error| failed(path, "unlink", &error))?;
    Ok(true)
}
