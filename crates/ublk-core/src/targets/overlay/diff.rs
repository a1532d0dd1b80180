//! The difference between a disk without a server and its base, or a layer below.

use std::fs;
use std::path::Path;

use ublk_overlay::extent::BLOCK;
use ublk_overlay::index::Index;

use super::chain::{Layer, failed, unfit};
use super::verbs::reading;
use crate::error::{Code, Error, Result};

/// Bytes of a disk that a layer stores or makes zeros. The bytes below may be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The first byte, from the disk's beginning.
    pub offset: u64,
    /// The number of bytes.
    pub length: u64,
    /// Whether the bytes read as zeros and are not stored.
    pub zeros: bool,
}

/// The difference between the disk of the layer at `path` and the disk of the layer `from` below; from the
/// base without `from`. In order, without overlaps, and as few ranges as there can be.
///
/// # Errors
/// As for [`info`](super::info); `BadBackend` when the last server has not closed the layer;
/// `InvalidArgument` when `from` is no layer below the layer at `path`.
pub fn diff(path: &Path, from: Option<&Path>) -> Result<Vec<Change>> {
    let path = fs::canonicalize(path).map_err(|error| failed(path, "stat", &error))?;
    let layer = Layer::open(&path, &reading())?;
    if layer.superblock().in_use.is_some() {
        return Err(not_closed(&path));
    }
    let mut layers = layer.parents(&reading())?;
    let skipped = match from {
        Some(from) => position(&layers, &path, from)? + 1,
        None => 0,
    };
    layers.push(layer);
    let mut index = Index::new();
    for (number, Layer { path, contents, .. }) in (0..).zip(layers.into_iter().skip(skipped)) {
        contents.load(number, &mut index).map_err(|error| unfit(&path, &error))?;
    }
    Ok(changes(&index))
}

/// The place of the layer `from` among the layers below the layer at `path`.
pub(super) fn position(layers: &[Layer], path: &Path, from: &Path) -> Result<usize> {
    let from = fs::canonicalize(from).map_err(|error| failed(from, "stat", &error))?;
    layers.iter().position(|layer| layer.path == from).ok_or_else(|| {
        let message = format!("{} is no layer below {}", from.display(), path.display());
        Error::new(Code::InvalidArgument, message)
            .hint(format!("ublk overlay info {} names the layers below", path.display()))
    })
}

pub(super) fn not_closed(path: &Path) -> Error {
    let message = format!(
        "{} was not closed by its last server, so the file may lack answered writes",
        path.display()
    );
    Error::new(Code::BadBackend, message)
        .hint("serve the disk again and end that server (ublk stop), then ask again")
}

/// The extents of an index, those that adjoin as one.
fn changes(index: &Index) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    for extent in index.iter() {
        let (offset, length) = (extent.block() * BLOCK, u64::from(extent.count()) * BLOCK);
        let zeros = extent.layer().is_none();
        match changes.last_mut() {
            Some(last) if last.zeros == zeros && last.offset + last.length == offset => {
                last.length += length;
            }
            _ => changes.push(Change { offset, length, zeros }),
        }
    }
    changes
}
