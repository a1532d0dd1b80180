//! Commit of a layer into its base.
//!
//! The base is written in place. Before that, the layer's superblock says so durably: from then on the base
//! may have another time of modification, and the layer has all blocks that are written. So the disk reads
//! the same at any moment, also from a base that is written in part. In the end an empty layer of the same
//! UUID, which names the base's new time, takes the place of the layer. A commit that was interrupted is
//! done again from the start.

use std::fs;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::SystemTime;

use ublk_overlay::extent::{BLOCK, Extent, Place};
use ublk_overlay::superblock::Superblock;

use super::super::chain::{Layer, failed, folder, modified};
use super::super::checks::check_same_base;
use super::super::make::{Birth, Unnamed};
use super::super::{naming, settle};
use super::bases::{is_qcow2, made_of, on_images};
use super::copy::{CHUNK, copy};
use super::disk::{Access, Disk};
use super::{Progress, family, kill};
use crate::error::{Code, Error, Result};
use crate::targets::file;

/// Writes the blocks of the layer at `path` into the raw file or block device `base`, and empties the layer.
/// The disk has the same contents at any moment. After a kill or a cancellation the disk can be served, and
/// a second commit does the rest; until then the layer cannot be forked.
///
/// # Errors
/// As for [`flatten`](super::flatten); `InvalidArgument` when the layer stands on another layer or is
/// frozen, and when other layers in the folder of the layer or of the base stand on the base;
/// `BadBackend` for another base than that of the layer; `Busy` when another disk on the base is served.
pub fn commit_into_base(base: &Path, path: &Path, progress: &Progress) -> Result<()> {
    let disk = Disk::open(path, Access::Alone, check_alone)?;
    let base_path = fs::canonicalize(base).map_err(|error| failed_on_base(base, &error))?;
    if is_qcow2(&base_path) {
        let message = format!("{} is a qcow2 image, which ublk only reads", base_path.display());
        return Err(Error::new(Code::InvalidArgument, message)
            .hint("write the disk to a raw file: ublk overlay export BASE LAYER OUT"));
    }
    let images = made_of(&base_path);
    let base = open_base(&base_path)?;
    let layer = disk.highest();
    let found = size_and_time(&base).map_err(|error| failed_on_base(&base_path, &error))?;
    check_same_base(&layer.path, &layer.superblock, found)?;
    let stands = |other: &Superblock| (other.blocks, other.base_modified) == found;
    let mut others = on_images(&base_path, &images);
    others.extend(family::on_base(folder(&layer.path), stands)?);
    others.sort();
    others.dedup();
    others.retain(|other| *other != layer.path);
    if !others.is_empty() {
        return Err(family::has_children(&base_path, &others));
    }
    let failed = |error: io::Error| failed(&layer.path, "write", &error);
    progress.begin(disk.index.iter().map(length).sum());
    let announced = Superblock {
        generation: layer.superblock.generation + 1,
        committing: true,
        ..layer.superblock
    };
    kill::point().and_then(|()| settle::write(&layer.backing, &announced)).map_err(failed)?;
    for extent in disk.index.iter() {
        write(&disk, extent, &base, progress)
            .map_err(|error| failed_on_base(&base_path, &error))?;
    }
    let base_modified = finish(&base).map_err(|error| failed_on_base(&base_path, &error))?;
    let birth = Birth {
        identity: Some((announced.layer, announced.disk, announced.generation)),
        base_modified,
        ..Birth::like(&announced, None)
    };
    let mut empty = Unnamed::draft(&layer.path, &birth)?;
    let permissions = layer.backing.metadata().map(|found| found.permissions());
    permissions
        .and_then(|permissions| empty.file.set_permissions(permissions))
        .and_then(|()| settle::close(&mut empty.head, &empty.file, false))
        .and_then(|()| empty.file.sync_all())
        .and_then(|()| naming::replace(&empty.file, &layer.path))
        .map_err(failed)
}

/// Opens and locks a base. Nothing is changed, not even the time of modification.
fn open_base(path: &Path) -> Result<fs::File> {
    let failed = |error: &io::Error| failed_on_base(path, error);
    // A block device that is mounted is refused.
    let flags = libc::O_EXCL | libc::O_NONBLOCK;
    let base = fs::OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
    let base = base.map_err(|error| failed(&error))?;
    let kind = base.metadata().map_err(|error| failed(&error))?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        let message = format!("{} is neither a regular file nor a block device", path.display());
        return Err(Error::new(Code::InvalidArgument, message).hint("name the base of the layer"));
    }
    file::lock(path, &base, false)?;
    Ok(base)
}

/// The size of a base in blocks, and the time of modification.
fn size_and_time(mut base: &fs::File) -> io::Result<(u64, i64)> {
    let bytes = base.seek(SeekFrom::End(0))?;
    Ok((bytes / BLOCK, modified(base.as_raw_fd())?.unwrap_or(0)))
}

/// Checks that the layer is live, on its base.
fn check_alone(layers: &[Layer]) -> Result<usize> {
    let [layer] = layers else {
        let path = layers.last().map_or(Path::new(""), |layer| &layer.path).display();
        let message = format!("{path} stands on other layers, and not on its base");
        return Err(Error::new(Code::InvalidArgument, message)
            .hint(format!("merge the layers first: ublk overlay flatten {path}")));
    };
    if !layer.superblock().frozen {
        return Ok(0);
    }
    let message = format!("{} is frozen: other layers stand on it, or will", layer.path.display());
    Err(Error::new(Code::InvalidArgument, message).hint("name a live layer"))
}

fn length(extent: Extent) -> u64 {
    u64::from(extent.count()) * BLOCK
}

/// Writes an extent of the layer into the base.
fn write(disk: &Disk, extent: Extent, base: &fs::File, progress: &Progress) -> io::Result<()> {
    kill::point()?;
    let at = extent.block() * BLOCK;
    match extent.place() {
        Place::At { layer, block } => {
            let from = &disk.layers[layer as usize].backing;
            copy((from, block * BLOCK), (base, at), length(extent), progress)
        }
        Place::Zero => {
            zero(base, at, length(extent))?;
            progress.advance(length(extent))
        }
    }
}

/// Makes a range read as zeros, and gives the space back where the base can.
fn zero(base: &fs::File, mut at: u64, mut length: u64) -> io::Result<()> {
    let range = (libc::off_t::try_from(at), libc::off_t::try_from(length));
    let (Ok(from), Ok(count)) = range else { return Err(io::ErrorKind::InvalidInput.into()) };
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: fallocate of a descriptor that we own.
    if unsafe { libc::fallocate(base.as_raw_fd(), mode, from, count) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() != Some(libc::EOPNOTSUPP) {
        return Err(error);
    }
    let zeros = vec![0; usize::try_from(length.min(CHUNK)).map_err(io::Error::other)?];
    while length > 0 {
        let piece = length.min(CHUNK);
        base.write_all_at(&zeros[..usize::try_from(piece).map_err(io::Error::other)?], at)?;
        (at, length) = (at + piece, length - piece);
    }
    Ok(())
}

/// Makes the base durable. Answers the new time of modification.
fn finish(base: &fs::File) -> io::Result<i64> {
    kill::point()?;
    // Two writes within a tick of the kernel's clock have the same time: other layers would not see it.
    if base.metadata()?.is_file() {
        base.set_modified(SystemTime::now())?;
    }
    base.sync_all()?;
    kill::point()?;
    Ok(modified(base.as_raw_fd())?.unwrap_or(0))
}

fn failed_on_base(path: &Path, error: &io::Error) -> Error {
    Error::os(
        Code::of_file(error),
        format!("cannot write to the base {}", path.display()),
        "write",
        error,
    )
}
