//! Files kept by a target in addition to the data: the state of zones, metadata.
//!
//! [`open`] is the only place where such a file is made or taken over. A file with the expected
//! length and header is taken over. A missing file is made, if the data is empty or the user has
//! asked for a new file; an unfinished file counts as missing. Every other file is refused and
//! stays unchanged: nothing is ever truncated.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::{Code, Error, Result};

mod emptiness;

pub(super) use emptiness::is_in_memory;

/// Bytes of the header. The body follows.
pub(super) const HEADER: u64 = HEADER_LENGTH as u64;
const HEADER_LENGTH: usize = 4096;
/// Bytes of a header's beginning, the mark of the kind of file.
pub(super) const MAGIC: usize = 16;

pub(super) type Header = [u8; HEADER_LENGTH];

/// The format of a kind of file.
pub(super) trait Format {
    /// The contents of the file, in the words of errors: "the state of zones".
    fn what(&self) -> &'static str;

    /// The option for the file's name.
    fn option(&self) -> &'static str;

    /// The first bytes of the header of a new file, beginning with the magic; zeros follow.
    fn header(&self) -> Vec<u8>;

    /// How many bytes a whole file has.
    fn length(&self) -> u64;

    /// Fills a part of a new file, from `offset` on, behind the header.
    fn fresh(&self, offset: u64, bytes: &mut [u8]);

    /// Checks a file of this length whose header begins with the magic.
    ///
    /// # Errors
    /// The defect of the file, as a text to follow the path, and the remedy.
    fn check(&self, header: &Header, length: u64) -> std::result::Result<(), Unfit>;
}

/// The defect of a file, and the remedy.
pub(super) type Unfit = (String, &'static str);

/// The data to which a file belongs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Data<'a> {
    pub(super) path: &'a Path,
    pub(super) size: u64,
}

/// The user's options for the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Make a missing file, whatever the data holds.
    pub(super) create: bool,
    /// The file is only read.
    pub(super) read_only: bool,
}

/// The path of a file next to the data.
pub(super) fn beside(data: &Path, suffix: &str) -> PathBuf {
    let mut name = data.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Opens and locks the file at `path`; makes the file where allowed.
///
/// # Errors
/// `NoBackend` when the file is missing and must not be made; `BadBackend` when there is something
/// else, or when the file would not outlive the machine's memory although the data does;
/// `InvalidArgument` when the file is the data itself; `Busy` when another target has the file;
/// `Permission`.
pub(super) fn open(
    path: &Path,
    format: &dyn Format,
    data: Data<'_>,
    wanted: Wanted,
) -> Result<File> {
    let subject = Subject { path, format, data, wanted };
    subject.check_durability()?;
    match fs::metadata(path) {
        Ok(found) => subject.take_over(&found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => subject.make(),
        Err(error) => Err(subject.failed("open", "stat", &error)),
    }
}

/// Makes an empty or unfinished file whole. The header is written last.
pub(super) fn fill(file: &File, format: &dyn Format) -> io::Result<()> {
    let length = format.length();
    file.set_len(length)?;
    let mut bytes = vec![0; CHUNK];
    let mut at = HEADER;
    while at < length {
        let size = chunk(length - at);
        format.fresh(at, &mut bytes[..size]);
        file.write_all_at(&bytes[..size], at)?;
        at += size as u64;
    }
    file.sync_all()?;
    file.write_all_at(&format.header(), 0)?;
    file.sync_all()
}

/// A file that is being opened.
struct Subject<'a> {
    path: &'a Path,
    format: &'a dyn Format,
    data: Data<'a>,
    wanted: Wanted,
}

impl Subject<'_> {
    fn take_over(&self, found: &fs::Metadata) -> Result<File> {
        if !found.is_file() {
            let kind =
                if found.file_type().is_block_device() { "a block device" } else { "no file" };
            return Err(self.unfit(format!("is {kind}")).hint(format!(
                "{} is kept in a regular file; name one with {}",
                self.format.what(),
                self.format.option()
            )));
        }
        let file = OpenOptions::new().read(true).write(!self.wanted.read_only).open(self.path);
        let file = file.map_err(|error| self.failed("open", "open", &error))?;
        let found = self.check_identity(&file)?;
        self.lock(&file)?;
        let mut header = [0; HEADER_LENGTH];
        let read = read_up_to(&file, &mut header, 0);
        let read = read.map_err(|error| self.failed("read", "read", &error))?;
        let magic = &self.format.header()[..MAGIC];
        if header.starts_with(magic) && read == header.len() {
            let checked = self.format.check(&header, found.len());
            checked.map_err(|(wrong, hint)| self.unfit(wrong).hint(hint))?;
            return self.keep(&file, &header).map(|()| file);
        }
        let unmade = found.len() == 0 || self.is_half_made(&file, &header, found.len())?;
        if !unmade {
            return Err(self.foreign());
        }
        self.may_be_made(&format!("{} is empty", self.path.display()))?;
        fill(&file, self.format).map_err(|error| self.failed("make", "write", &error))?;
        Ok(file)
    }

    /// Makes the header of a whole file durable. The page cache alone may have the header, where the sync
    /// of whoever made the file has failed: a power cut would leave a body without a header.
    fn keep(&self, file: &File, header: &Header) -> Result<()> {
        if self.wanted.read_only {
            return Ok(());
        }
        let kept = file.write_all_at(header, 0).and_then(|()| file.sync_data());
        kept.map_err(|error| self.failed("take over", "write", &error))
    }

    fn make(&self) -> Result<File> {
        self.may_be_made(&format!("there is no {}", self.path.display()))?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(self.path);
        let file = file.map_err(|error| self.failed("make", "open", &error))?;
        let made = self.lock(&file).and_then(|()| {
            let filled = fill(&file, self.format).and_then(|()| self.sync_folder());
            filled.map_err(|error| self.failed("make", "write", &error))
        });
        if let Err(error) = made {
            // Best effort: the caller gets the first error.
            let _ = fs::remove_file(self.path);
            return Err(error);
        }
        Ok(file)
    }

    /// Whether a new file destroys nothing: the data is empty, or the user has asked for the file.
    fn may_be_made(&self, why: &str) -> Result<()> {
        let (what, data) = (self.format.what(), self.data.path.display());
        if self.wanted.read_only {
            return Err(Error::new(Code::NoBackend, format!("{why}, where {what} should be"))
                .hint("serve the data once for writing, and the file is made"));
        }
        if self.wanted.create {
            return Ok(());
        }
        let empty = emptiness::is_empty(self.data.path, self.data.size).map_err(|error| {
            Error::os(Code::BadBackend, format!("cannot read {data}"), "read", &error)
        })?;
        if empty {
            return Ok(());
        }
        let message = format!("{why}, and {data} is not empty: {what} is missing");
        Err(Error::new(Code::NoBackend, message).hint(format!(
            "name the file that belongs to the data with {}; to begin with a new one, set create",
            self.format.option()
        )))
    }

    /// The header is written last: a file without a header consists of zeros and new contents.
    fn is_half_made(&self, file: &File, header: &Header, length: u64) -> Result<bool> {
        if length != self.format.length() || header.iter().any(|&byte| byte != 0) {
            return Ok(false);
        }
        let mut found = vec![0; CHUNK];
        let mut fresh = vec![0; CHUNK];
        let mut at = HEADER;
        while at < length {
            let size = chunk(length - at);
            let read = file.read_exact_at(&mut found[..size], at);
            read.map_err(|error| self.failed("read", "read", &error))?;
            self.format.fresh(at, &mut fresh[..size]);
            let pages = found[..size].chunks(PAGE).zip(fresh[..size].chunks(PAGE));
            let mut ours =
                pages.map(|(found, fresh)| found == fresh || found.iter().all(|&byte| byte == 0));
            if !ours.all(|ours| ours) {
                return Ok(false);
            }
            at += size as u64;
        }
        Ok(true)
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(folder(self.path))?.sync_all()
    }

    /// A file in the machine's memory is gone after a reboot, while the data may remain: a file
    /// next to `/dev/sdb` is in memory.
    fn check_durability(&self) -> Result<()> {
        let place = if self.path.exists() { self.path } else { folder(self.path) };
        let in_memory = |path: &Path| emptiness::is_in_memory(path);
        if in_memory(place) && !in_memory(self.data.path) {
            return Err(self
                .unfit(format!("would lie in memory, and {} does not", self.data.path.display()))
                .hint(format!(
                    "name a file that outlives a reboot with {}",
                    self.format.option()
                )));
        }
        Ok(())
    }

    fn check_identity(&self, file: &File) -> Result<fs::Metadata> {
        let failed = |error| self.failed("open", "fstat", &error);
        let found = file.metadata().map_err(failed)?;
        let data = fs::metadata(self.data.path).map_err(failed)?;
        if (found.dev(), found.ino()) == (data.dev(), data.ino()) {
            let message =
                format!("{} is to hold the data and {}", self.path.display(), self.format.what());
            return Err(Error::new(Code::InvalidArgument, message)
                .hint(format!("name another file with {}", self.format.option())));
        }
        Ok(found)
    }

    fn lock(&self, file: &File) -> Result<()> {
        let operation = if self.wanted.read_only { libc::LOCK_SH } else { libc::LOCK_EX };
        // SAFETY: flock on a descriptor owned here.
        if unsafe { libc::flock(file.as_raw_fd(), operation | libc::LOCK_NB) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::WouldBlock => Err(self
                .failed("lock", "flock", &error)
                .hint("another target has the file; each needs a file of its own")),
            // Some network file systems have no locks.
            _ => Ok(()),
        }
    }

    fn failed(&self, tried: &str, syscall: &'static str, error: &io::Error) -> Error {
        let code = match error.kind() {
            io::ErrorKind::WouldBlock => Code::Busy,
            _ => Code::of_file(error),
        };
        let tried = format!("cannot {tried} {} ({})", self.path.display(), self.format.what());
        Error::os(code, tried, syscall, error)
    }

    fn unfit(&self, wrong: impl AsRef<str>) -> Error {
        let message = format!("{} {}", self.path.display(), wrong.as_ref());
        Error::new(Code::BadBackend, message)
    }

    fn foreign(&self) -> Error {
        let (what, option) = (self.format.what(), self.format.option());
        self.unfit(format!("holds something else than {what}")).hint(format!(
            "the file is left as it is; say with the option {option} where {what} shall be kept"
        ))
    }
}

const PAGE: usize = 4096;
const CHUNK: usize = 1 << 20;

fn chunk(left: u64) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK)
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Reads until the end of the file, or until `bytes` are full.
fn read_up_to(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests;
