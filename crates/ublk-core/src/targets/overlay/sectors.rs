//! Logical blocks: the unit of a disk's requests, from 512 bytes up to the 4 KiB of the layers' blocks.

use std::path::Path;

use ublk_overlay::extent::{BLOCK, BLOCK_SHIFT};
use ublk_overlay::superblock;

use super::super::file::{FileOptions, Promised};
use super::super::native::Native;
use super::super::{Request, Target};
use super::chain::Layer;
use crate::error::{Code, Error, Result};

/// The logical block of a new disk on `base`, in bytes: `asked`, or the default.
///
/// # Errors
/// `InvalidArgument` for an impossible size, and for a base with larger logical blocks.
pub(super) fn of_new_disk(base: &Native, asked: Option<u32>) -> Result<u32> {
    let found = match (asked, base) {
        (Some(asked), _) => asked,
        // Whoever wrote the base's partition table or file system counted in these.
        (None, Native::Fixed(_) | Native::Qcow2(_)) => base.geometry().logical_block,
        (None, _) => u32::try_from(BLOCK).unwrap_or(u32::MAX),
    };
    if found == 0 || superblock::logical_block(found).is_none() {
        let message = format!("{found} is no size of a logical block");
        return Err(Error::new(Code::InvalidArgument, message)
            .hint("512, 1024, 2048 and 4096 bytes can be had"));
    }
    check_base(base, found)?;
    Ok(found)
}

/// Checks that a base can be read in logical blocks of so many bytes.
///
/// # Errors
/// `InvalidArgument` for a base that cannot.
pub(super) fn check_base(base: &Native, logical_block: u32) -> Result<()> {
    let geometry = base.geometry();
    let needs = geometry.logical_block.max(geometry.dma_alignment.saturating_add(1));
    let is_whole = u64::from(logical_block) == BLOCK;
    if is_whole || needs <= logical_block {
        return Ok(());
    }
    let message = format!(
        "the disk has logical blocks of {logical_block} bytes, and the base is read in blocks of {needs}"
    );
    Err(Error::new(Code::InvalidArgument, message).hint(format!(
        "open the base with logicalBlockSize: {logical_block}, which reads through the page cache where it must, \
         or make the layer with logicalBlockSize: {needs} (--block-size {needs})"
    )))
}

/// Opens the highest layer of a disk so that requests of the disk's logical blocks can be served: direct I/O that
/// needs larger ones is not used. Answers also how to open the other layers.
///
/// # Errors
/// As for [`Layer::open`].
pub(super) fn open(path: &Path, how: FileOptions) -> Result<(Layer, FileOptions)> {
    let layer = Layer::open(path, &how)?;
    let logical_block = layer.superblock().logical_block;
    if u64::from(logical_block) == BLOCK {
        return Ok((layer, how));
    }
    // Requests, and parts of requests, begin at any multiple of a logical block, in memory too.
    let alignment = how.promised.map_or(u32::MAX, |promised| promised.dma_alignment);
    let dma_alignment = alignment.min(logical_block - 1);
    let how = FileOptions { promised: Some(Promised { logical_block, dma_alignment }), ..how };
    // Not twice at once: the file is locked.
    drop(layer);
    Ok((Layer::open(path, &how)?, how))
}

/// The bytes of a request in a run of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clip {
    /// Where they begin in the request.
    pub(super) within: u32,
    /// Where they begin in the run.
    pub(super) skipped: u64,
    /// How many they are.
    pub(super) length: u64,
}

/// The bytes of a request in `count` blocks from `block` on, some of which are blocks of the request.
pub(super) fn clip(request: &Request, block: u64, count: u64) -> Clip {
    let (begin, end) = (block << BLOCK_SHIFT, (block + count) << BLOCK_SHIFT);
    let from = begin.max(request.offset);
    let to = end.min(request.offset + u64::from(request.length));
    // Fits: inside the request.
    let within = u32::try_from(from - request.offset).unwrap_or(u32::MAX);
    Clip { within, skipped: from - begin, length: to - from }
}

/// Whether the request has only a part of this block, one of its own.
pub(super) fn is_partial(request: &Request, block: u64) -> bool {
    clip(request, block, 1).length < BLOCK
}

/// The blocks of which a request has any byte: the first, and the first behind.
pub(super) fn blocks(request: &Request) -> (u64, u64) {
    let from = request.offset >> BLOCK_SHIFT;
    (from, (request.offset + u64::from(request.length)).div_ceil(BLOCK))
}

/// The blocks of which a request has all bytes: the first, and the first behind.
pub(super) fn whole_blocks(request: &Request) -> (u64, u64) {
    let end = request.offset + u64::from(request.length);
    (request.offset.div_ceil(BLOCK), end >> BLOCK_SHIFT)
}
