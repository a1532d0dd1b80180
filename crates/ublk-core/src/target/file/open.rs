//! Opening what lies behind a file target, with a clear error for everything that cannot serve.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use super::limits::{self, Limits};
use super::{Direct, FileOptions, atime};
use crate::error::{Code, Error, Result};
use crate::target::{DiscardLimits, Geometry, GeometryError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Regular,
    Block,
}

pub(super) struct Opened {
    pub(super) fd: OwnedFd,
    pub(super) kind: Kind,
    pub(super) direct: bool,
    pub(super) geometry: Geometry,
}

pub(super) fn open(path: &Path, options: &FileOptions) -> Result<Opened> {
    let kind = kind(path)?;
    let (file, direct_limits) = open_as_asked(path, kind, options)?;
    if kind == Kind::Block && !options.read_only {
        check_writable(path, &file)?;
    }
    if !options.unlocked && kind == Kind::Regular {
        lock(path, &file, options.read_only)?;
    }
    atime::keep(&file);
    let limits = limits::read(&file, kind, direct_limits)
        .map_err(|error| failed(path, "fstat", "ask for the limits of", &error))?;
    let geometry = geometry(path, kind, &file, options, &limits)?;
    Ok(Opened { fd: file.into(), kind, direct: limits.direct.is_some(), geometry })
}

fn kind(path: &Path) -> Result<Kind> {
    let metadata = fs::metadata(path).map_err(|error| {
        let failure = failed(path, "stat", "open", &error);
        match error.kind() {
            io::ErrorKind::NotFound => failure
                .hint(format!("create it first, for example: truncate -s 1G {}", path.display())),
            _ => failure,
        }
    })?;
    let file_type = metadata.file_type();
    if file_type.is_file() {
        Ok(Kind::Regular)
    } else if file_type.is_block_device() {
        Ok(Kind::Block)
    } else {
        let what = if file_type.is_dir() { "a directory" } else { "neither" };
        Err(Error::new(Code::BadBackend, format!("cannot serve {}: it is {what}", path.display()))
            .hint("the file target needs a regular file or a block device"))
    }
}

/// The kernel opens a read-only block device (`losetup -r`, `blockdev --setro`) for writing without
/// an error, and then refuses each write.
fn check_writable(path: &Path, file: &File) -> Result<()> {
    let read_only = limits::is_read_only(file)
        .map_err(|error| failed(path, "ioctl", "ask for the permissions of", &error))?;
    if !read_only {
        return Ok(());
    }
    let message = format!("cannot write to {}: the block device is read-only", path.display());
    Err(Error::new(Code::Permission, message).hint(
        "to serve it without writing to it, set readOnly (ublk add --read-only); \
         `blockdev --setrw` makes a block device writable that was set read-only",
    ))
}

/// Opens for direct I/O if that was asked for and works, checked with a read through io_uring:
/// overlayfs opens with `O_DIRECT` and then refuses each operation (trap 54).
fn open_as_asked(
    path: &Path,
    kind: Kind,
    options: &FileOptions,
) -> Result<(File, Option<limits::DirectLimits>)> {
    if options.direct != Direct::No {
        match open_with(path, kind, options.read_only, libc::O_DIRECT) {
            Ok(file) => {
                if let Some(direct) = limits::direct(&file) {
                    return Ok((file, Some(direct)));
                }
            }
            Err(error) if error.raw_os_error() != Some(libc::EINVAL) => {
                return Err(cannot_open(path, options, &error));
            }
            Err(_) => {}
        }
        if options.direct == Direct::Yes {
            return Err(Error::new(
                Code::BadBackend,
                format!("cannot open {} for direct I/O: its file system cannot", path.display()),
            )
            .hint("leave the option direct out, and the page cache is used where it must be"));
        }
    }
    let file = open_with(path, kind, options.read_only, 0)
        .map_err(|error| cannot_open(path, options, &error))?;
    Ok((file, None))
}

fn open_with(path: &Path, kind: Kind, read_only: bool, flags: i32) -> io::Result<File> {
    // On a block device O_EXCL is not about creation: it fails while somebody has it mounted.
    let exclusive = if kind == Kind::Block && !read_only { libc::O_EXCL } else { 0 };
    OpenOptions::new().read(true).write(!read_only).custom_flags(flags | exclusive).open(path)
}

fn cannot_open(path: &Path, options: &FileOptions, error: &io::Error) -> Error {
    let failure = failed(path, "open", "open", error);
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM | libc::EROFS) if !options.read_only => {
            failure.hint("to serve it without writing to it, set readOnly")
        }
        Some(libc::EBUSY) => failure.hint("it is mounted or another program uses it exclusively"),
        _ => failure,
    }
}

fn failed(path: &Path, syscall: &'static str, tried: &str, error: &io::Error) -> Error {
    let code = match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => Code::NoBackend,
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => Code::Permission,
        Some(libc::EBUSY | libc::ETXTBSY) => Code::Busy,
        _ => Code::BadBackend,
    };
    Error::os(code, format!("cannot {tried} {}", path.display()), syscall, error)
}

/// Two servers writing to one image destroy it; readers may share. Released when the file closes.
fn lock(path: &Path, file: &File, read_only: bool) -> Result<()> {
    let operation = if read_only { libc::LOCK_SH } else { libc::LOCK_EX };
    // SAFETY: flock on a descriptor that we own.
    if unsafe { libc::flock(file.as_raw_fd(), operation | libc::LOCK_NB) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::WouldBlock {
        return Err(Error {
            hint: Some(
                "another ublk server has it; see `ublk list`, or lsof; with the option lock: false \
                 (ublk add --no-lock) it is served all the same"
                    .into(),
            ),
            ..Error::os(Code::Busy, format!("cannot lock {}", path.display()), "flock", &error)
        });
    }
    // Some network file systems have no locks.
    Ok(())
}

fn geometry(
    path: &Path,
    kind: Kind,
    file: &File,
    options: &FileOptions,
    limits: &Limits,
) -> Result<Geometry> {
    let logical_block = match options.logical_block {
        Some(asked) if asked < limits.logical_block => {
            return Err(Error::new(
                Code::InvalidArgument,
                format!(
                    "logicalBlockSize is {asked}, but {} needs at least {}",
                    path.display(),
                    limits.logical_block
                ),
            ));
        }
        Some(asked) => asked,
        None => limits.logical_block,
    };
    let size = match options.size {
        Some(asked) if asked > limits.size => {
            return Err(Error::new(
                Code::InvalidArgument,
                format!("size is {asked}, but {} holds {}", path.display(), limits.size),
            )
            .hint(format!("grow it first: truncate -s {asked} {}", path.display())));
        }
        Some(asked) => asked,
        None => limits.size,
    };
    let writable = !options.read_only;
    let physical_block = limits.physical_block.max(logical_block);
    let geometry = Geometry {
        logical_block,
        physical_block,
        io_min: physical_block,
        io_opt: physical_block,
        read_only: options.read_only,
        rotational: limits.rotational,
        volatile_cache: writable,
        fua: writable,
        discard: if writable { discard(kind, file, limits) } else { None },
        dma_alignment: limits.direct.map_or(3, |direct| direct.memory - 1),
        virt_boundary: limits.virt_boundary,
        segments: limits.segments,
        ..Geometry::new(size)
    };
    geometry.validate().map_err(|error| unsuitable(path, &error, logical_block))?;
    Ok(geometry)
}

fn unsuitable(path: &Path, error: &GeometryError, block: u32) -> Error {
    let code = match error {
        GeometryError::LogicalBlock(_) => Code::InvalidArgument,
        _ => Code::BadBackend,
    };
    let failure = Error::new(code, format!("cannot serve {}: {error}", path.display()));
    match error {
        GeometryError::Fraction { .. } => {
            failure.hint(format!("round it up: truncate -s %{block} {}", path.display()))
        }
        GeometryError::TooSmall { .. } => {
            failure.hint(format!("give it a size: truncate -s 1G {}", path.display()))
        }
        _ => failure,
    }
}

const ALMOST_4_GIB: u32 = !0xffff;

fn discard(kind: Kind, file: &File, limits: &Limits) -> Option<DiscardLimits> {
    match kind {
        Kind::Regular => can_punch(file, limits.size).then_some(DiscardLimits {
            granularity: limits.physical_block,
            max_discard: ALMOST_4_GIB,
            max_write_zeroes: ALMOST_4_GIB,
        }),
        Kind::Block => {
            let max_discard = if limits.can_discard { ALMOST_4_GIB } else { 0 };
            let max_write_zeroes = if limits.can_write_zeroes { ALMOST_4_GIB } else { 0 };
            (max_discard | max_write_zeroes != 0).then_some(DiscardLimits {
                granularity: limits.discard_granularity.max(limits.logical_block),
                max_discard,
                max_write_zeroes,
            })
        }
    }
}

/// Asks by punching a hole beyond the end, which changes nothing.
fn can_punch(file: &File, size: u64) -> bool {
    let Ok(offset) = libc::off_t::try_from(size.next_multiple_of(1 << 20)) else { return false };
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: fallocate on a descriptor that we own.
    unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, 4096) == 0 }
}
