//! One image of a chain: a file, the header, and the errors that name both.

use std::fs;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use ublk_qcow2::header::{Header, MAGIC};
use ublk_qcow2::{SECTOR, Unfit};

use super::super::Target;
use super::super::file::{File, FileOptions};
use super::{Qcow2Options, locks};
use crate::error::{Code, Error, Result};

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Qcow2,
    Raw,
}

/// A file of a chain, open and locked.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// The same file, through the page cache.
    pub(super) backing: fs::File,
    /// The length of the file, in bytes.
    pub(super) length: u64,
    /// Absent for a raw file.
    pub(super) header: Option<Header>,
}

impl Image {
    /// # Errors
    /// As [`Qcow2::open`](super::Qcow2::open).
    pub(super) fn open(path: &Path, format: Format, options: &Qcow2Options) -> Result<Self> {
        let file = open(path, options, block(options))?;
        let failed = |syscall| move |error: io::Error| failed(path, syscall, &error);
        let fd = file.files()[0];
        let mut backing = fs::File::open(format!("/proc/self/fd/{fd}")).map_err(failed("open"))?;
        // Of a block device, the metadata tells no length.
        let length = backing.seek(SeekFrom::End(0)).map_err(failed("lseek"))?;
        let header = match format {
            Format::Raw => None,
            Format::Qcow2 => Some(read_header(&backing, length).map_err(|why| unfit(path, &why))?),
        };
        Ok(Self { path: path.into(), file, backing, length, header })
    }

    /// The size of the disk, in bytes; of a raw file with its last, partial sector.
    pub(super) fn size(&self) -> u64 {
        self.header.as_ref().map_or(self.length.next_multiple_of(SECTOR), |header| header.size)
    }

    /// The identity of the file, or of the block device.
    pub(super) fn identity(&self) -> Result<(bool, u64, u64)> {
        let found = self.backing.metadata();
        let found = found.map_err(|error| failed(&self.path, "fstat", &error))?;
        Ok(match found.file_type().is_block_device() {
            true => (true, found.rdev(), 0),
            false => (false, found.dev(), found.ino()),
        })
    }

    /// Opens the same file again, for logical blocks of so many bytes.
    pub(super) fn again(&self, options: &Qcow2Options, block: u32) -> Result<File> {
        let same = PathBuf::from(format!("/proc/self/fd/{}", self.backing.as_raw_fd()));
        open(&same, options, Some(block))
    }
}

/// Opens and locks a file for reading.
fn open(path: &Path, options: &Qcow2Options, block: Option<u32>) -> Result<File> {
    let file = File::open(path, &how(path, options, block)).map_err(|error| {
        // The hint of a missing file is to make one.
        match error.code {
            Code::NoBackend => Error { hint: None, ..error },
            _ => error,
        }
    })?;
    if !options.unlocked {
        locks::take(path, file.files()[0])?;
    }
    Ok(file)
}

/// The block size that a user or clients want, if any does.
fn block(options: &Qcow2Options) -> Option<u32> {
    options.asked.logical_block.or(options.promised.map(|promised| promised.logical_block))
}

fn how(path: &Path, options: &Qcow2Options, block: Option<u32>) -> FileOptions {
    // The end of a file may be anywhere; the index knows where.
    let length = fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|found| found.len());
    let whole = |length: u64| match length {
        4096.. => length - length % 4096,
        _ => length - length % SECTOR,
    };
    FileOptions {
        direct: options.direct,
        read_only: true,
        logical_block: block,
        size: length.map(whole),
        unlocked: options.unlocked,
        promised: options.promised,
    }
}

fn read_header(file: &fs::File, length: u64) -> std::result::Result<Header, Unfit> {
    Header::read(length, |offset, bytes| file.read_exact_at(bytes, offset))
}

/// Whether a file begins like an image.
pub(in super::super) fn is_qcow2(file: &fs::File) -> bool {
    let mut start = [0; 4];
    file.read_exact_at(&mut start, 0).is_ok() && start == MAGIC
}

/// An error of a system call on an image.
pub(super) fn failed(path: &Path, syscall: &'static str, error: &io::Error) -> Error {
    Error::os(
        Code::of_file(error),
        format!("cannot read the image {}", path.display()),
        syscall,
        error,
    )
}

/// The error of an image that cannot be served.
pub(super) fn unfit(path: &Path, why: &Unfit) -> Error {
    let name = path.display();
    let hint = match why {
        Unfit::Io(error) => return failed(path, "read", error),
        Unfit::Foreign => "a raw image is served by targets.file (ublk add file)".to_owned(),
        Unfit::Unsupported(_) => {
            format!("make an image without it: qemu-img convert -O qcow2 {name} NEW")
        }
        Unfit::Dirty => format!("repair it: qemu-img check -r all {name}"),
        Unfit::Corrupt => format!("repair a copy of it: qemu-img check -r all {name}"),
        Unfit::Damaged { .. } => {
            format!("take the file from a backup; qemu-img check {name} names all damage")
        }
    };
    Error::new(Code::BadBackend, format!("cannot serve {name} as qcow2: {why}")).hint(hint)
}
