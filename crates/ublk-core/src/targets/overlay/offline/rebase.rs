//! Rebase: another base below a disk.
//!
//! Blocks in no layer that the old and the new base have otherwise are copied from the old base into the
//! highest layer. Then the disk reads the same from either base, and the layer's superblock may name the new
//! one. Frozen layers are not written to, and stay valid for other disks on the old base.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ublk_overlay::extent::{BLOCK, Extent, MAX_COUNT, Place};
use ublk_overlay::head::Head;
use ublk_overlay::index::Index;
use ublk_overlay::superblock::Superblock;

use super::super::chain::{Layer, failed, unfit};
use super::super::checks::{blocks, check_base, check_same_base};
use super::super::diff::not_closed;
use super::super::folders;
use super::super::sectors;
use super::super::settle::{self, Flush, random};
use super::super::verbs::{committing, reading};
use super::base::Base;
use super::copy::CHUNK;
use super::merge::{places, reserve};
use super::{Progress, kill};
use crate::error::{Code, Error, Result};
use crate::targets::file::{File, FileOptions};
use crate::targets::native::Native;

/// What a rebase has put into the layer, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rebased {
    /// Copied from the old base.
    pub copied: u64,
    /// Made zeros, as in the old base.
    pub zeros: u64,
}

/// A live layer without a server, alone.
struct Live {
    path: PathBuf,
    head: Head,
    backing: fs::File,
    /// Hold the locks of all layers.
    _files: Vec<File>,
}

/// Makes `to` the base of the disk of the live layer at `path`. With the present base, `from`, the contents of the
/// disk stay the same, at any moment; without, only the name changes, as for a base that was copied elsewhere.
///
/// # Errors
/// As for [`info`](super::super::info); `InvalidArgument` for a frozen layer, and for an unsuitable base;
/// `BadBackend` when the last server has not closed the layer, when `from` is not the base of the layer, and
/// when `to` has another size; `Busy` when a server has the layer, or a layer above.
pub fn rebase(
    path: &Path,
    from: Option<&Native>,
    to: &Native,
    progress: &Progress,
) -> Result<Rebased> {
    let mut live = Live::open(path)?;
    let superblock = *live.head.superblock();
    let base_modified = check_base(to)?;
    check_size(&superblock, blocks(to)?)?;
    sectors::check_base(to, superblock.logical_block)?;
    let mut rebased = Rebased::default();
    if let Some(from) = from {
        check_same_base(&live.path, &superblock, (blocks(from)?, check_base(from)?))?;
        rebased = live.keep(&mut Base::open(from)?, &mut Base::open(to)?, progress)?;
    }
    folders::note(to, &live.path);
    let named = Superblock { base_modified, ..settle::next(&live.head, None) };
    kill::point()
        .and_then(|()| settle::write(&live.backing, &named))
        .map_err(|error| failed(&live.path, "write", &error))?;
    Ok(rebased)
}

fn check_size(superblock: &Superblock, blocks: u64) -> Result<()> {
    if superblock.blocks == blocks {
        return Ok(());
    }
    let (disk, base) = (superblock.blocks * BLOCK, blocks * BLOCK);
    let message = format!("the new base has {base} bytes, and the disk has {disk}");
    Err(Error::new(Code::BadBackend, message)
        .hint(format!("name a base of the disk's size (truncate -s {disk} BASE)")))
}

impl Live {
    fn open(path: &Path) -> Result<Self> {
        let path = fs::canonicalize(path).map_err(|error| failed(path, "stat", &error))?;
        let layer = Layer::open(&path, &FileOptions::default())?;
        let superblock = *layer.superblock();
        if superblock.frozen {
            let message =
                format!("{} is frozen: other layers stand on it, or will", path.display());
            return Err(Error::new(Code::InvalidArgument, message)
                .hint("rebase the live layers on it, or make one: ublk overlay fork"));
        }
        if superblock.in_use.is_some() {
            return Err(not_closed(&path));
        }
        if superblock.committing {
            return Err(committing(&path));
        }
        let (mut index, mut files) = (Index::new(), Vec::new());
        let mut number = 0;
        for below in layer.parents(&reading())? {
            let Layer { path, file, contents, .. } = below;
            contents.load(number, &mut index).map_err(|error| unfit(&path, &error))?;
            files.push(file);
            number += 1;
        }
        let Layer { file, backing, contents, .. } = layer;
        files.push(file);
        let head = contents.load_head(number, index, random(), &[]);
        let head = head.map_err(|error| unfit(&path, &error))?;
        Ok(Self { path, head, backing, _files: files })
    }

    /// Copies all blocks in no layer of which the two bases have other contents, durably.
    fn keep(
        &mut self,
        old: &mut Base<'_>,
        new: &mut Base<'_>,
        progress: &Progress,
    ) -> Result<Rebased> {
        let all = self.head.index().pieces(0, self.head.superblock().blocks);
        let pieces = all.filter(|piece| piece.place.is_none());
        let ranges: Vec<_> =
            pieces.map(|one| (one.block * BLOCK, (one.block + one.count) * BLOCK)).collect();
        progress.begin(ranges.iter().map(|(from, to)| to - from).sum());
        let io = |error: io::Error| failed(&self.path, "write", &error);
        let length = self.backing.metadata().map_err(io)?.len();
        let mut rebased = Rebased::default();
        let mut keep = || -> io::Result<()> {
            for &range in &ranges {
                copy(&mut self.head, &self.backing, range, (old, new), &mut rebased, progress)?;
            }
            Ok(())
        };
        if let Err(error) = keep() {
            // No log names what was written.
            let _ = self.backing.set_len(length);
            return Err(io(error));
        }
        let flush = kill::point().and_then(|()| Flush::of(&mut self.head)).map_err(io)?;
        flush.write(&self.backing, fs::File::sync_data).map_err(io)?;
        self.head.flushed(flush.number);
        Ok(rebased)
    }
}

/// Copies the blocks of a range in bytes that differ.
fn copy(
    head: &mut Head,
    file: &fs::File,
    (mut at, end): (u64, u64),
    (old, new): (&mut Base<'_>, &mut Base<'_>),
    rebased: &mut Rebased,
    progress: &Progress,
) -> io::Result<()> {
    let (mut kept, mut other) = (Vec::new(), Vec::new());
    while at < end {
        let data = [old.data_from(at, end), new.data_from(at, end)].into_iter().flatten().min();
        let from = data.map_or(end, |data| (data - data % BLOCK).max(at));
        let to = end.min(from.saturating_add(CHUNK));
        let length = usize::try_from(to - from).map_err(io::Error::other)?;
        kept.resize(length, 0);
        other.resize(length, 0);
        old.read(from, &mut kept)?;
        new.read(from, &mut other)?;
        for run in runs(&kept, &other) {
            let bytes = &kept[run.from..run.to];
            kill::point()?;
            store(head, file, from / BLOCK + (run.from as u64) / BLOCK, bytes, run.is_zero)?;
            let counted = if run.is_zero { &mut rebased.zeros } else { &mut rebased.copied };
            *counted += bytes.len() as u64;
        }
        progress.advance(to - at)?;
        at = to;
    }
    Ok(())
}

/// Bytes of whole blocks.
struct Differing {
    from: usize,
    to: usize,
    is_zero: bool,
}

/// The runs of blocks that differ, zeros apart from others.
fn runs(old: &[u8], new: &[u8]) -> Vec<Differing> {
    let size = usize::try_from(BLOCK).unwrap_or(usize::MAX);
    let mut runs: Vec<Differing> = Vec::new();
    for (number, (old, new)) in old.chunks(size).zip(new.chunks(size)).enumerate() {
        if old == new {
            continue;
        }
        let (from, is_zero) = (number * size, old.iter().all(|&byte| byte == 0));
        let to = from + old.len();
        match runs.last_mut() {
            Some(last) if last.to == from && last.is_zero == is_zero => last.to = to,
            _ => runs.push(Differing { from, to, is_zero }),
        }
    }
    runs
}

/// Puts blocks into the layer.
fn store(
    head: &mut Head,
    file: &fs::File,
    block: u64,
    bytes: &[u8],
    is_zero: bool,
) -> io::Result<()> {
    // Fits: at most CHUNK bytes.
    let count = u32::try_from(bytes.len() as u64 / BLOCK).unwrap_or(MAX_COUNT);
    if is_zero {
        head.zero(block, block + u64::from(count));
        return Ok(());
    }
    write(head, file, Extent::new(block, count, Place::Zero), bytes)
}

/// Writes the blocks of an extent to new places in a layer, and publishes these.
pub(super) fn write(
    head: &mut Head,
    file: &fs::File,
    extent: Extent,
    bytes: &[u8],
) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let mut rest = bytes;
    for part in places(head, extent)? {
        reserve(head, file, &part)?;
        let length =
            usize::try_from(u64::from(part.run.count) * BLOCK).map_err(io::Error::other)?;
        let (now, later) = rest.split_at(length);
        file.write_all_at(now, part.run.block * BLOCK)?;
        head.publish(&part);
        rest = later;
    }
    Ok(())
}
