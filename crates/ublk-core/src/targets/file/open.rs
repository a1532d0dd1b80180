//! Opening what lies behind a file target, with a clear error for everything that cannot serve.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use super::limits::{self, Limits};
use super::{Direct, FileOptions, atime, lock};
use crate::error::{Code, Error, Result};
use crate::targets::{DiscardLimits, Geometry, GeometryError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Regular,
    Block,
}

pub(super) struct Opened {
    pub(super) fd: OwnedFd,
    pub(super) kind: Kind,
    pub(super) direct: bool,
    /// What discards must be aligned to, in bytes.
    pub(super) unit: u32,
    pub(super) geometry: Geometry,
}

pub(super) fn open(path: &Path, options: &FileOptions) -> Result<Opened> {
    let kind = kind(path)?;
    let (file, direct_limits) = open_as_asked(path, kind, options)?;
    if kind == Kind::Block && !options.read_only {
        check_writable(path, &file)?;
    }
    if !options.unlocked && kind == Kind::Regular {
        lock::take(path, &file, options.read_only)?;
    }
    atime::keep(&file);
    let limits = limits::read(&file, kind, direct_limits)
        .map_err(|error| failed(path, "fstat", "ask for the limits of", &error))?;
    let geometry = geometry(path, kind, &file, options, &limits)?;
    let (direct, unit) = (limits.direct.is_some(), limits.unit);
    Ok(Opened { fd: file.into(), kind, direct, unit, geometry })
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
        let what = match () {
            () if file_type.is_dir() => "a directory",
            () if file_type.is_fifo() => "a FIFO",
            () if file_type.is_socket() => "a socket",
            () => "a character device",
        };
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

/// Opens the file for direct I/O if the options ask for direct I/O and a read through io_uring
/// succeeds: overlayfs opens with `O_DIRECT` and then refuses each operation (trap 54). Where direct
/// I/O needs larger blocks than the device has, the page cache serves the device instead.
fn open_as_asked(
    path: &Path,
    kind: Kind,
    options: &FileOptions,
) -> Result<(File, Option<limits::DirectLimits>)> {
    if options.direct != Direct::No {
        match open_with(path, kind, options.read_only, libc::O_DIRECT) {
            Ok(file) => match limits::direct(&file) {
                Some(direct) if options.suits(direct) => return Ok((file, Some(direct))),
                Some(direct) if options.direct == Direct::Yes => {
                    return Err(too_small_for_direct(path, options, direct));
                }
                _ => {}
            },
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

impl FileOptions {
    /// The logical block of the device, if it has been decided.
    fn block(&self) -> Option<u32> {
        self.logical_block.or(self.promised.map(|promised| promised.logical_block))
    }

    /// Whether direct I/O can serve all requests that clients of the device may send.
    fn suits(&self, direct: limits::DirectLimits) -> bool {
        self.block().is_none_or(|block| direct.offset <= block)
            && self.promised.is_none_or(|promised| direct.memory - 1 <= promised.dma_alignment)
    }
}

fn too_small_for_direct(path: &Path, options: &FileOptions, direct: limits::DirectLimits) -> Error {
    let limits::DirectLimits { memory, offset } = direct;
    let message = format!(
        "direct I/O on {} needs blocks of {offset} bytes in memory that is aligned to {memory}, and \
         the device has blocks of {}",
        path.display(),
        options.block().unwrap_or(offset)
    );
    Error::new(Code::InvalidArgument, message)
        .hint("leave the option direct out, and the page cache is used where it must be")
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
        Some(libc::EBUSY) => failure.hint(
            "it is mounted, or another program uses it exclusively: maybe a server that is ending",
        ),
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

fn geometry(
    path: &Path,
    kind: Kind,
    file: &File,
    options: &FileOptions,
    limits: &Limits,
) -> Result<Geometry> {
    let logical_block = options.block().unwrap_or(limits.logical_block);
    let size = match options.size {
        Some(asked) if asked > limits.size => {
            return Err(Error::new(
                Code::InvalidArgument,
                format!("size is {asked}, but {} holds {}", path.display(), limits.size),
            )
            .hint(match kind {
                Kind::Regular if !options.read_only => {
                    format!("grow the file first: truncate -s {asked} {}", path.display())
                }
                _ => format!("ask for {} at most", limits.size),
            }));
        }
        Some(asked) => asked,
        // A file that has grown since its device was created may end within a block.
        None if options.promised.is_some() => limits.size - limits.size % u64::from(logical_block),
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
        discard: if writable { discard(kind, file, limits, logical_block) } else { None },
        dma_alignment: limits.direct.map_or(3, |direct| direct.memory - 1),
        virt_boundary: limits.virt_boundary,
        segments: limits.segments,
        ..Geometry::new(size)
    };
    let may_grow = kind == Kind::Regular && writable;
    geometry.validate().map_err(|error| unsuitable(path, &error, may_grow))?;
    Ok(geometry)
}

/// A hint changes the size of nothing but a file that was opened for writing.
fn unsuitable(path: &Path, error: &GeometryError, may_grow: bool) -> Error {
    let code = match error {
        GeometryError::LogicalBlock(_) => Code::InvalidArgument,
        _ => Code::BadBackend,
    };
    let failure = Error::new(code, format!("cannot serve {}: {error}", path.display()));
    match *error {
        GeometryError::Fraction { block, .. } if may_grow => {
            failure.hint(format!("round it up: truncate -s %{block} {}", path.display()))
        }
        GeometryError::Fraction { size, block } => failure.hint(format!(
            "serve its whole blocks only: --size {0}, or size: {0} in a program",
            size / u64::from(block) * u64::from(block)
        )),
        GeometryError::TooSmall { .. } if may_grow => {
            failure.hint(format!("give it a size: truncate -s 1G {}", path.display()))
        }
        _ => failure,
    }
}

const ALMOST_4_GIB: u32 = !0xffff;

fn discard(kind: Kind, file: &File, limits: &Limits, block: u32) -> Option<DiscardLimits> {
    match kind {
        Kind::Regular => can_punch(file, limits.size).then_some(DiscardLimits {
            granularity: limits.physical_block,
            max_discard: ALMOST_4_GIB,
            max_write_zeroes: ALMOST_4_GIB,
        }),
        Kind::Block => {
            let max_discard = if limits.can_discard { ALMOST_4_GIB } else { 0 };
            // A disk zeroes whole blocks of its own; where the device has smaller ones, clients
            // write zeros themselves.
            let can_write_zeroes = limits.can_write_zeroes && block >= limits.unit;
            let max_write_zeroes = if can_write_zeroes { ALMOST_4_GIB } else { 0 };
            (max_discard | max_write_zeroes != 0).then_some(DiscardLimits {
                granularity: limits.discard_granularity.max(limits.logical_block).max(block),
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

#[cfg(test)]
mod tests {
    use super::super::Promised;
    use super::limits::DirectLimits;
    use super::*;

    const NOW: DirectLimits = DirectLimits { memory: 512, offset: 4096 };

    fn promised(logical_block: u32, dma_alignment: u32) -> FileOptions {
        let promised = Some(Promised { logical_block, dma_alignment });
        FileOptions { promised, ..FileOptions::default() }
    }

    #[test]
    fn direct_io_serves_only_a_device_whose_requests_it_can_take() {
        let asked = |block| FileOptions { logical_block: Some(block), ..FileOptions::default() };
        assert!(FileOptions::default().suits(NOW), "a new device has what the file needs");
        assert!(asked(4096).suits(NOW));
        assert!(!asked(512).suits(NOW));
        assert!(promised(4096, 511).suits(NOW));
        assert!(promised(4096, 4095).suits(NOW));
        assert!(!promised(512, 511).suits(NOW), "clients know smaller blocks");
        assert!(!promised(4096, 3).suits(NOW), "clients have memory that is aligned less");
    }

    #[test]
    fn a_device_that_is_served_again_has_the_blocks_that_clients_know() {
        let limits = Limits {
            size: 10_000,
            logical_block: 4096,
            unit: 1,
            physical_block: 4096,
            rotational: false,
            can_discard: false,
            can_write_zeroes: false,
            discard_granularity: 0,
            virt_boundary: 0,
            segments: None,
            direct: None,
        };
        let nothing = File::open("/dev/null").unwrap();
        let served = |options: &FileOptions| {
            geometry(Path::new("image"), Kind::Regular, &nothing, options, &limits)
                .map(|geometry| (geometry.logical_block, geometry.size))
                .map_err(|error| error.code)
        };
        assert_eq!(served(&promised(512, 3)), Ok((512, 9728)), "grown by less than a block");
        assert_eq!(served(&promised(4096, 3)), Ok((4096, 8192)));
        let asked = FileOptions { logical_block: Some(1024), ..promised(4096, 3) };
        assert_eq!(served(&asked), Ok((1024, 9216)));
        assert_eq!(served(&FileOptions::default()), Err(Code::BadBackend));
    }

    #[test]
    fn direct_io_that_is_insisted_on_is_refused_where_its_blocks_are_larger() {
        let error = too_small_for_direct(Path::new("image"), &promised(512, 511), NOW);
        assert_eq!(error.code, Code::InvalidArgument);
        assert!(error.message.contains("needs blocks of 4096"), "{error}");
        assert!(error.message.contains("device has blocks of 512"), "{error}");
    }
}
