//! Sending the changes of a disk as a [stream], and making a layer of a stream.

use std::io::{self, BufReader, BufWriter};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use ublk_overlay::extent::{BLOCK, Extent, Place};
use ublk_overlay::superblock::{FileName, Parent};

use super::super::chain::{failed, folder};
use super::super::checks::{blocks, check_base};
use super::super::diff::position;
use super::super::folders;
use super::super::make::{Birth, Unnamed};
use super::super::settle::{self, random};
use super::super::verbs::committing;
use super::disk::{Access, Disk};
use super::pipe::Pipe;
use super::rebase::write as write_blocks;
use super::stream::{Header, MOST_BLOCKS, Reader, Writer};
use super::{Progress, family, kill};
use crate::error::{Code, Error, Result};
use crate::targets::native::Native;

/// Writes the difference between the disk of the layer at `path` and the disk of the layer `from` below, or the
/// base without `from`, to `out`, for [`receive`].
///
/// # Errors
/// As for [`diff`](super::super::diff()); `BadBackend` when `out` fails.
pub fn send(
    path: &Path,
    from: Option<&Path>,
    out: BorrowedFd<'_>,
    progress: &Progress,
) -> Result<()> {
    let mut since = None;
    let disk = Disk::open(path, Access::Shared, |layers| {
        let Some(from) = from else { return Ok(0) };
        let [below @ .., highest] = layers else { return Ok(0) };
        let position = position(below, &highest.path, from)?;
        let found = below[position].superblock();
        since = Some((found.layer, found.generation));
        Ok(position + 1)
    })?;
    let superblock = disk.highest().superblock;
    if superblock.committing {
        return Err(committing(&disk.highest().path));
    }
    let header = Header {
        stream: random(),
        blocks: superblock.blocks,
        logical_block: superblock.logical_block,
        layer: superblock.layer,
        generation: superblock.generation,
        frozen: superblock.frozen,
        from: since,
        base_modified: superblock.base_modified,
        stored: disk.stored(),
    };
    progress.begin(header.stored);
    write(&disk, header, Pipe::new(out, progress), progress)
        .map_err(|error| Error::os(Code::BadBackend, "cannot write the changes", "write", &error))
}

fn write(disk: &Disk, header: Header, out: Pipe<'_>, progress: &Progress) -> io::Result<()> {
    let mut writer = Writer::new(BufWriter::new(out), header)?;
    let mut bytes = Vec::new();
    for extent in disk.index.iter() {
        let Place::At { layer, .. } = extent.place() else {
            writer.put(extent, &[])?;
            continue;
        };
        let mut at = extent.block();
        while at < extent.end() {
            let part = extent.part(at, extent.end().min(at + u64::from(MOST_BLOCKS)));
            let Place::At { block, .. } = part.place() else { break };
            bytes.resize(bytes_of(part)?, 0);
            disk.layers[layer as usize].backing.read_exact_at(&mut bytes, block * BLOCK)?;
            writer.put(part, &bytes)?;
            progress.advance(bytes.len() as u64)?;
            at = part.end();
        }
    }
    writer.end()
}

fn bytes_of(extent: Extent) -> io::Result<usize> {
    usize::try_from(u64::from(extent.count()) * BLOCK).map_err(io::Error::other)
}

/// Makes the layer `path` of the changes that [`send`] has written, read from `input`. The layer stands on
/// the layer since which the changes are, which is looked for in the folder of `path`; on `base`, for
/// changes since the base. A frozen layer stays the layer that it was, so that further changes follow.
/// There is no layer before all of the changes are in it.
///
/// # Errors
/// `BadBackend` when `path` exists, for a stream that is cut or damaged, or of another base;
/// `NoBackend` when the folder lacks the layer since which the changes are; `InvalidArgument` without a base for changes since the base, and for an unsuitable base;
/// `Unsupported` on a file system without fallocate or `O_TMPFILE`.
pub fn receive(
    input: BorrowedFd<'_>,
    path: &Path,
    base: Option<&Native>,
    progress: &Progress,
) -> Result<()> {
    let unreadable = |error: &io::Error| {
        let message = format!("cannot make {} of the changes", path.display());
        Error::os(Code::BadBackend, message, "read", error)
            .hint("nothing has changed; write the changes again: ublk overlay diff LAYER --stream")
    };
    let mut reader = Reader::new(BufReader::new(Pipe::new(input, progress)))
        .map_err(|error| unreadable(&error))?;
    let header = reader.header;
    let parent = match header.from {
        Some(from) => Some(parent(path, from, &header)?),
        None => {
            check_base_of(&header, base)?;
            None
        }
    };
    let birth = Birth {
        identity: header.frozen.then_some((
            header.layer,
            header.layer,
            header.generation.saturating_sub(1),
        )),
        parent,
        ..Birth::new(header.blocks, header.logical_block, header.base_modified)
    };
    let mut made = Unnamed::make(path, &birth)?;
    progress.begin(header.stored);
    let mut bytes = Vec::new();
    while let Some(extent) = reader.next(&mut bytes).map_err(|error| unreadable(&error))? {
        store(&mut made, extent, &bytes, progress)
            .map_err(|error| failed(path, "write", &error))?;
    }
    kill::point()
        .and_then(|()| settle::close(&mut made.head, &made.file, header.frozen))
        .and_then(|()| made.file.sync_all())
        .and_then(|()| kill::point())
        .map_err(|error| failed(path, "write", &error))?;
    match base.filter(|_| header.from.is_none()) {
        Some(base) => folders::name(made, base),
        None => made.name(),
    }
    .map(drop)
}

/// The frozen layer in the folder of `path` since which the changes are.
fn parent(path: &Path, (layer, generation): (uuid::Uuid, u64), header: &Header) -> Result<Parent> {
    let folder = folder(path);
    let found = family::layers_in(folder)?.into_iter().find(|found| {
        let superblock = &found.superblock;
        (superblock.layer, superblock.generation, superblock.frozen, superblock.blocks)
            == (layer, generation, true, header.blocks)
    });
    let file = found.and_then(|found| FileName::new(found.path.file_name()?.as_encoded_bytes()));
    let Some(file) = file else {
        let message = format!(
            "the changes are since layer {layer}, generation {generation}, and {} does not hold this layer",
            folder.display()
        );
        return Err(Error::new(Code::NoBackend, message)
            .hint("name a file in the folder of that layer, or apply the earlier changes first"));
    };
    Ok(Parent { layer, generation, file })
}

/// Checks that the changes are since this base.
fn check_base_of(header: &Header, base: Option<&Native>) -> Result<()> {
    let Some(base) = base else {
        let message = "the changes are since the base of the disk";
        return Err(Error::new(Code::InvalidArgument, message).hint("name the base (--base BASE)"));
    };
    let (size, modified) = (blocks(base)?, check_base(base)?);
    if (size, modified) == (header.blocks, header.base_modified) {
        return Ok(());
    }
    let message = "the changes are since a base of another size or time of modification";
    Err(Error::new(Code::BadBackend, message)
        .hint("copy the base of the disk with its time (cp -p, rsync -t), and name the copy"))
}

fn store(made: &mut Unnamed, extent: Extent, bytes: &[u8], progress: &Progress) -> io::Result<()> {
    kill::point()?;
    if extent.place() == Place::Zero {
        made.head.zero(extent.block(), extent.end());
        return Ok(());
    }
    write_blocks(&mut made.head, &made.file, extent, bytes)?;
    progress.advance(bytes.len() as u64)
}
