//! The layers of a folder: who stands on whom.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ublk_overlay::superblock::{PAGE, SUPERBLOCKS, Superblock};
use uuid::Uuid;

use super::super::chain::{failed, folder};
use super::super::naming::is_draft;
use crate::error::{Code, Error, Result};

/// A layer's file, as found in a folder. Unlocked: a server may have it.
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) superblock: Superblock,
    pub(super) metadata: fs::Metadata,
}

/// The layers in a folder, by name. Links and drafts of killed verbs do not count.
///
/// # Errors
/// When the folder, or a file in the folder, cannot be read: the file might be a layer.
pub(super) fn layers_in(folder: &Path) -> Result<Vec<Found>> {
    files_in(folder)?.into_iter().collect()
}

/// The layers in a folder, by name, and the errors of files that cannot be read.
fn files_in(folder: &Path) -> Result<Vec<Result<Found>>> {
    let unreadable = |error| failed(folder, "readdir", &error);
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if !is_draft(&entry.file_name()) && entry.file_type().map_err(unreadable)?.is_file() {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths.into_iter().filter_map(|path| found(path).transpose()).collect())
}

fn found(path: PathBuf) -> Result<Option<Found>> {
    match read(&path) {
        Ok(found) => Ok(found.map(|(superblock, metadata)| Found { path, superblock, metadata })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(&path, "read", &error)),
    }
}

/// The superblock of a file; none if the file is no layer.
pub(super) fn read(path: &Path) -> io::Result<Option<(Superblock, fs::Metadata)>> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.len() < SUPERBLOCKS * PAGE as u64 {
        return Ok(None);
    }
    let mut pages = [[0; PAGE]; 2];
    file.read_exact_at(pages.as_flattened_mut(), 0)?;
    Ok(Superblock::newest(&pages).ok().map(|superblock| (superblock, metadata)))
}

/// The layers that stand on `layer`, whose file is at `path`.
pub(super) fn children(path: &Path, layer: Uuid) -> Result<Vec<PathBuf>> {
    let all = layers_in(folder(path))?.into_iter();
    let stands =
        |found: &Found| found.superblock.parent.is_some_and(|parent| parent.layer == layer);
    Ok(all.filter(stands).map(|found| found.path).collect())
}

/// The layers in a folder that stand on a base, of which `stands` says that it is the base; of layers on each
/// other, the lowest. Files that cannot be read are passed over.
pub(super) fn on_base(folder: &Path, stands: impl Fn(&Superblock) -> bool) -> Result<Vec<PathBuf>> {
    let found: Vec<_> = files_in(folder)?.into_iter().flatten().collect();
    let (on_it, _): (Vec<_>, Vec<_>) = found.iter().partition(|one| stands(&one.superblock));
    let is_lowest = |one: &&&Found| {
        let parent = one.superblock.parent.map(|parent| parent.layer);
        !on_it.iter().any(|other| Some(other.superblock.layer) == parent)
    };
    Ok(on_it.iter().filter(is_lowest).map(|one| one.path.clone()).collect())
}

/// The error of a base that is not written to, since layers stand on it.
pub(super) fn has_children(base: &Path, layers: &[PathBuf]) -> Error {
    let message = format!(
        "{} is the base of other layers, and is not written to: {}",
        base.display(),
        names(layers)
    );
    Error::new(Code::InvalidArgument, message).hint(format!(
        "serve a new layer on it; or, if these layers are no longer needed, remove them, or touch {}",
        base.display()
    ))
}

/// Paths with commas between.
pub(super) fn names(paths: &[PathBuf]) -> String {
    let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    names.join(", ")
}
