//! The images of a disk: an image, the backing file that it names, and so on.

use std::ffi::OsStr;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use ublk_qcow2::header::Backing;

use super::super::Target;
use super::super::file::{Direct, File};
use super::Qcow2Options;
use super::image::{Format, Image};
use crate::error::{Code, Error, Result};

/// The largest number of images of a disk.
const MOST_IMAGES: usize = 200;

/// The images of a disk, the highest first.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) images: Vec<Image>,
}

/// Opens the image at `path` and all images below.
pub(super) fn open(path: &Path, options: &Qcow2Options) -> Result<Chain> {
    let mut images: Vec<Image> = Vec::new();
    let mut known = Vec::new();
    let mut next = Some((path.to_owned(), Format::Qcow2));
    while let Some((path, format)) = next.take() {
        let image = match Image::open(&path, format, options) {
            Err(error) => return Err(below(&images, error)),
            Ok(image) => image,
        };
        let identity = image.identity()?;
        if known.contains(&identity) {
            let message = format!("{} is below itself", path.display());
            return Err(below(&images, Error::new(Code::BadBackend, message)));
        }
        known.push(identity);
        if images.len() == MOST_IMAGES {
            let message = format!("there are more than {MOST_IMAGES} images");
            let hint = "merge some of them: qemu-img convert -O qcow2 IMAGE NEW";
            return Err(below(&images, Error::new(Code::BadBackend, message).hint(hint)));
        }
        let backing = image.header.as_ref().and_then(|header| header.backing.as_ref());
        next = backing.map(|backing| find(&image.path, backing)).transpose()?;
        images.push(image);
    }
    Ok(Chain { images })
}

/// An error of an image below others.
fn below(images: &[Image], error: Error) -> Error {
    let Some(above) = images.last() else { return error };
    let path = above.path.display();
    let message = format!("the backing file of {path}: {}", error.message);
    let hint = error.hint.clone().unwrap_or_else(|| {
        format!("name the right file: qemu-img rebase -u -b FILE -F FORMAT {path}")
    });
    Error { message, ..error }.hint(hint)
}

/// Where the backing file of the image at `path` is, and of which format.
fn find(path: &Path, backing: &Backing) -> Result<(PathBuf, Format)> {
    let name = String::from_utf8_lossy(&backing.name).into_owned();
    let refused = |what: String, hint: String| {
        let message = format!("cannot serve {}: {what}", path.display());
        Err(Error::new(Code::BadBackend, message).hint(hint))
    };
    let format = match backing.format.as_deref() {
        Some("qcow2") => Format::Qcow2,
        Some("raw" | "file" | "host_device") => Format::Raw,
        Some(format) => {
            let what = format!("its backing file {name} has the format {format}");
            let hint = "ublk reads qcow2 and raw: qemu-img convert -O qcow2 writes all of it";
            return refused(what, format!("{hint} to a new image"));
        }
        None => {
            let what = format!("it does not declare the format of its backing file {name}");
            let hint = format!("qemu-img rebase -u -b {name} -F qcow2 (or raw) {}", path.display());
            return refused(what, format!("declare it: {hint}"));
        }
    };
    let plain = backing.name.strip_prefix(b"file:").unwrap_or(&backing.name);
    // QEMU takes what is before a colon in the first name for a protocol.
    let first = plain.split(|&byte| byte == b'/').next().unwrap_or(plain);
    if first.contains(&b':') || plain.contains(&0) {
        let what = format!("its backing file is {name}, which is no path");
        return refused(what, "copy the backing file to this machine, and name the copy".into());
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    Ok((folder.join(OsStr::from_bytes(plain)), format))
}

impl Chain {
    fn highest(&self) -> &Image {
        self.images.first().expect("a chain has an image")
    }

    /// The size of the disk, in bytes.
    pub(super) fn size(&self) -> u64 {
        self.highest().size()
    }

    /// Bytes of a cluster of the highest image.
    pub(super) fn cluster(&self) -> u64 {
        self.highest().header.as_ref().map_or(512, ublk_qcow2::header::Header::cluster)
    }

    /// The files of the images, the lowest first, opened for pieces at multiples of `unit` bytes. A file whose
    /// direct I/O needs larger blocks is served through the page cache.
    pub(super) fn files(self, options: &Qcow2Options, unit: u32) -> Result<Vec<File>> {
        let suits = |image: &Image| image.file.geometry().logical_block <= unit;
        let all_suit = self.images.iter().all(suits);
        let lowest_first = self.images.into_iter().rev();
        let open = |image: Image| match all_suit {
            true => Ok(image.file),
            false => image.again(options, unit),
        };
        lowest_first.map(open).collect()
    }
}

/// A file of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where the file is.
    pub path: PathBuf,
    /// The device and the number of the file.
    pub identity: (u64, u64),
    /// When a regular file was last modified, in nanoseconds.
    pub modified: Option<i64>,
}

/// The size of the disk of the image at `path` in bytes, and all files of the disk. Nothing is locked.
///
/// # Errors
/// As [`Qcow2::open`](super::Qcow2::open).
pub fn members(path: &Path) -> Result<(u64, Vec<Member>)> {
    use std::os::unix::fs::MetadataExt;
    let how = Qcow2Options { direct: Direct::No, unlocked: true, ..Qcow2Options::default() };
    let chain = open(path, &how)?;
    let member = |image: &Image| {
        let failed = |error| super::image::failed(&image.path, "fstat", &error);
        let found = image.backing.metadata().map_err(failed)?;
        let modified = super::super::overlay::modified(image.backing.as_raw_fd());
        Ok(Member {
            path: image.path.clone(),
            identity: (found.dev(), found.ino()),
            modified: modified.map_err(failed)?,
        })
    };
    let all = chain.images.iter().map(member).collect::<Result<_>>()?;
    Ok((chain.size(), all))
}
