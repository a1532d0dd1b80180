//! Files that may be bases: as the layers on top know a base, by size and time of modification.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ublk_overlay::extent::BLOCK;
use ublk_overlay::superblock::Superblock;

use super::super::{fixed, folders, modified_of};
use super::family;
use crate::targets::qcow2;

/// A file that may be a base.
pub(super) struct Image {
    pub(super) path: PathBuf,
    /// Of the contents as a disk: the size in bytes, and the time of modification. Of a qcow2 image and of a
    /// frozen layer, there are both the file's and the disk's.
    disks: Vec<(u64, i64)>,
    /// The files that make up the disk.
    files: Vec<(u64, u64)>,
}

impl Image {
    /// None for a file that cannot be read, and what is no regular file.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
        let mut disks = vec![(found.len(), modified_of(&found))];
        let mut files = vec![(found.dev(), found.ino())];
        if is_qcow2(path)
            && let Ok((size, members)) = qcow2::members(path)
        {
            let newest = members.iter().filter_map(|member| member.modified).max();
            disks.push((size, newest.unwrap_or(0)));
            files.extend(members.iter().map(|member| member.identity));
        }
        if let Ok(Some((layer, _))) = family::read(path)
            && layer.frozen
        {
            disks.push((layer.blocks * BLOCK, fixed::identity(&layer)));
        }
        Some(Self { path: path.into(), disks, files })
    }

    /// Whether the layer was made for this base, as far as size and time of modification tell.
    pub(super) fn is_below(&self, layer: &Superblock) -> bool {
        self.disks.contains(&(layer.blocks * BLOCK, layer.base_modified))
    }
}

/// The file at `path` and the qcow2 images that have the file as a part, in its folder and in the folders that it
/// names.
pub(super) fn made_of(path: &Path) -> Vec<Image> {
    let Some(image) = Image::of(path) else { return Vec::new() };
    let folders = folders::noted(path).into_iter();
    let files = folders.flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
    let others = files.map(|entry| entry.path()).filter(|other| other != path && is_qcow2(other));
    let others = others.filter_map(|other| Image::of(&other));
    let made_of_it: Vec<_> = others.filter(|other| other.files.contains(&image.files[0])).collect();
    std::iter::once(image).chain(made_of_it).collect()
}

/// The layers that stand on one of these disks, of which the file at `path` is a part: in its folder, and in
/// the folders that it names.
pub(super) fn on_images(path: &Path, images: &[Image]) -> Vec<PathBuf> {
    let stands = |layer: &Superblock| images.iter().any(|image| image.is_below(layer));
    let folders = folders::noted(path).into_iter();
    let mut layers: Vec<_> =
        folders.flat_map(|folder| family::on_base(&folder, stands).unwrap_or_default()).collect();
    layers.sort();
    layers.dedup();
    layers
}

/// Whether a file is a qcow2 image, by its first bytes.
pub(super) fn is_qcow2(path: &Path) -> bool {
    let is_file = fs::metadata(path).is_ok_and(|found| found.is_file());
    is_file && File::open(path).is_ok_and(|file| qcow2::is_qcow2(&file))
}
