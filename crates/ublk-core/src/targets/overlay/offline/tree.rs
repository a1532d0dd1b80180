//! Who stands on whom in a folder, and the bases that have layers.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ublk_overlay::extent::BLOCK;
use ublk_overlay::superblock::Superblock;
use uuid::Uuid;

use super::super::chain::failed;
use super::bases::{Image, made_of, on_images};
use super::family::{Found, has_children, layers_in};
use crate::error::Result;
use crate::targets::file;

/// A layer in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// Where the file is.
    pub path: PathBuf,
    /// The layer's identity.
    pub layer: Uuid,
    /// The number of superblocks written so far.
    pub generation: u64,
    /// The size of the disk, in bytes.
    pub size: u64,
    /// Bytes of the file system that the file takes.
    pub allocated: u64,
    /// Whether the layer is never written to again.
    pub frozen: bool,
    /// Whether the last server has closed the layer; false while a server has the layer.
    pub closed: bool,
    /// The file of the layer below, or of the base; none if the folder has no such file.
    pub below: Option<PathBuf>,
    /// Whether `below` is a layer, and not the base.
    pub on_layer: bool,
    /// The process that has the live layer, as far as the kernel tells.
    pub server: Option<u32>,
}

/// Describes all layers in a folder, by name. The layers are not locked: servers may have these. The base of a layer
/// is the first file in the folder with the size and the time of modification of the layer's base.
///
/// # Errors
/// `NoBackend` for a missing folder; `Permission` where a file cannot be read.
pub fn tree(folder: &Path) -> Result<Vec<Branch>> {
    let folder = fs::canonicalize(folder).map_err(|error| failed(folder, "stat", &error))?;
    let all = layers_in(&folder)?;
    let images = images_in(&folder, &all)?;
    Ok(all.iter().map(|found| branch(found, &all, &images)).collect())
}

fn branch(found: &Found, all: &[Found], images: &[Image]) -> Branch {
    let Superblock { layer, generation, blocks, frozen, in_use, parent, .. } = found.superblock;
    let below = match parent {
        Some(parent) => all
            .iter()
            .find(|other| {
                let other = &other.superblock;
                (other.layer, other.generation) == (parent.layer, parent.generation)
            })
            .map(|other| other.path.clone()),
        None => images
            .iter()
            .find(|image| image.is_below(&found.superblock))
            .map(|image| image.path.clone()),
    };
    let server = if frozen { None } else { file::holder(&found.metadata) };
    Branch {
        path: found.path.clone(),
        layer,
        generation,
        size: blocks * BLOCK,
        allocated: found.metadata.blocks() * 512,
        frozen,
        closed: in_use.is_none(),
        below,
        on_layer: parent.is_some(),
        server,
    }
}

/// The regular files in a folder that are no layers, by name.
fn images_in(folder: &Path, layers: &[Found]) -> Result<Vec<Image>> {
    let entries = fs::read_dir(folder).map_err(|error| failed(folder, "readdir", &error))?;
    let files = entries.flatten().map(|entry| entry.path());
    let images = files.filter(|path| !layers.iter().any(|layer| layer.path == *path));
    let mut images: Vec<_> = images.filter_map(|path| Image::of(&path)).collect();
    images.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(images)
}

/// Checks that the regular file at `path`, which is about to be served for writing, is not the base of layers in its folder or in
/// folders that the base names, or an image below such a base, as far as size and time of modification tell. Files that cannot be read are passed over.
///
/// # Errors
/// `InvalidArgument`, with the names of the layers.
pub fn check_no_base(path: &Path) -> Result<()> {
    let Ok(path) = fs::canonicalize(path) else { return Ok(()) };
    let images = made_of(&path);
    if images.is_empty() {
        return Ok(());
    }
    match on_images(&path, &images) {
        layers if layers.is_empty() => Ok(()),
        layers => Err(has_children(&path, &layers)),
    }
}
