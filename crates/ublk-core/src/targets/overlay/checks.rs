//! Whether a base suits an overlay, and a layer a base.

use std::path::Path;

use ublk_overlay::extent::BLOCK;
use ublk_overlay::superblock::{Superblock, blocks_of};

use super::super::Target;
use super::super::native::Native;
use super::ROUND;
use super::chain::{Layer, modified};
use crate::error::{Code, Error, Result};

/// Checks a base. Answers when the files of the base were last modified; of a frozen layer, its identity.
///
/// # Errors
/// `InvalidArgument` for an unsuitable base.
pub(super) fn check_base(base: &Native) -> Result<i64> {
    let refused = |what: &str| {
        let message = format!("{what} cannot be the base of an overlay");
        Err(Error::new(Code::InvalidArgument, message).hint(
            "a file, a block device, a qcow2 image, a frozen layer, or a target made of these can",
        ))
    };
    let geometry = base.geometry();
    if geometry.zoned.is_some() {
        return refused("a zoned target");
    }
    if geometry.integrity.is_some() {
        return refused("a target with integrity");
    }
    if base.elsewhere().is_some() {
        return refused("a handler");
    }
    // An overlay tells its base of no end of a read.
    if base.takes_rounds() {
        return refused("a live layer of an overlay");
    }
    if !base.remotes().is_empty() && geometry.chunk != 0 {
        return refused("a server that takes only short requests");
    }
    if !geometry.chunk.is_multiple_of(BLOCK) {
        return refused("a target whose requests are cut within blocks");
    }
    if base.max_steps() + ROUND > 250 {
        return refused("a target with so many targets below it");
    }
    if let Native::Fixed(fixed) = base {
        return Ok(fixed.identity());
    }
    let mut latest = 0;
    for &fd in base.files() {
        let time = modified(fd).map_err(|error| {
            Error::os(Code::Kernel, "cannot ask for the times of the base", "fstat", &error)
        })?;
        latest = latest.max(time.unwrap_or(0));
    }
    Ok(latest)
}

/// The size of the base.
///
/// # Errors
/// `InvalidArgument` for a size in no whole blocks.
pub(super) fn blocks(base: &Native) -> Result<u64> {
    let size = base.geometry().size;
    blocks_of(size).ok_or_else(|| {
        let message =
            format!("the base has {size} bytes; an overlay needs whole blocks of {BLOCK}");
        Error::new(Code::InvalidArgument, message).hint(match base {
            Native::Qcow2(_) => {
                format!("round it up: qemu-img resize IMAGE {}", size.next_multiple_of(BLOCK))
            }
            _ => format!("round it up: truncate -s %{BLOCK} BASE"),
        })
    })
}

/// Checks that the layer is live and of this base.
pub(super) fn check_live(layer: &Layer, (blocks, modified): (u64, i64)) -> Result<()> {
    let (superblock, path) = (layer.superblock(), layer.path.display());
    let refused =
        |message: String, hint: String| Err(Error::new(Code::BadBackend, message).hint(hint));
    if superblock.frozen {
        let message = format!("{path} is frozen: other layers stand on it, or will");
        return refused(message, format!("make a layer on it: ublk overlay fork {path} CHILD"));
    }
    check_same_base(&layer.path, superblock, (blocks, modified))
}

/// Checks that the disk has logical blocks of so many bytes, if these are asked for.
pub(super) fn check_asked(layer: &Layer, asked: Option<u32>) -> Result<()> {
    let found = layer.superblock().logical_block;
    if asked.is_none_or(|asked| asked == found) {
        return Ok(());
    }
    let path = layer.path.display();
    let message = format!("{path} is of a disk with logical blocks of {found} bytes");
    Err(Error::new(Code::InvalidArgument, message).hint(
        "partition tables and file systems on the disk count in these: leave logicalBlockSize (--block-size) out, \
         or make another layer",
    ))
}

/// Checks that the layer at `path` was made for a base of this size and time of modification.
pub(super) fn check_same_base(
    path: &Path,
    superblock: &Superblock,
    (blocks, modified): (u64, i64),
) -> Result<()> {
    let path = path.display();
    let refused =
        |message: String, hint: String| Err(Error::new(Code::BadBackend, message).hint(hint));
    if superblock.blocks != blocks {
        let message = format!(
            "{path} is of a base of {} bytes, and this one has {}",
            superblock.blocks * BLOCK,
            blocks * BLOCK
        );
        return refused(message, "name the base that the layer was made for".into());
    }
    if superblock.base_modified != modified && !superblock.committing {
        let message = format!("the base of {path} was modified since the layer was made");
        let hint = "the layer holds differences from the base as it was: put back that one, with its \
                    time of modification (cp -p)";
        if superblock.frozen {
            return refused(message, hint.into());
        }
        let otherwise =
            format!("where only the time differs: ublk overlay rebase {path} --unsafe --base BASE");
        return refused(message, format!("{hint}; {otherwise}"));
    }
    Ok(())
}
