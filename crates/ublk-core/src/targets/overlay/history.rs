//! The end of a layer's history, on a tmpfs: the unflushed extents, for the server after a kill.
//!
//! A power cut may lose an answered and unflushed write, and the death of a server must not. The data is in
//! the layer's file or the page cache, but only the index in the dead server's memory knew the place. So
//! the target writes each extent here before answering the request.
//!
//! The file: a page with a header, then records of 32 bytes in regions of 1,024. Records are numbered in
//! order, so the order does not depend on the place. A region is written again once
//! all of its records are durable in the layer's log. Nothing is mapped: a truncated
//! file is an error, and no SIGBUS.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ublk_overlay::extent::Extent;
use uuid::Uuid;

use super::super::Boot;
use super::super::state::is_in_memory;
use crate::error::{Code, Error, Result};

mod record;

use record::{HEADER, Header, RECORD, Record};

/// Records of a region.
const REGION: u64 = if cfg!(test) { 16 } else { 1024 };
const REGION_BYTES: u64 = REGION * RECORD as u64;
/// The most regions: 1 MiB.
const MOST_REGIONS: usize = if cfg!(test) { 3 } else { 32 };
/// The fewest regions: while one is filled, a flush makes another free, without more memory.
const LEAST_REGIONS: usize = 2;
/// The most extents that are added at once.
pub(super) const MOST_AT_ONCE: usize = 8;

/// The owner of a history.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    pub(super) layer: Uuid,
    /// Device and inode of the layer's file.
    pub(super) file: (u64, u64),
    pub(super) boot: [u8; 16],
}

impl Owner {
    pub(super) fn of(layer: Uuid, file: &File, boot: &Boot) -> io::Result<Self> {
        let found = file.metadata()?;
        Ok(Self { layer, file: (found.dev(), found.ino()), boot: boot.id() })
    }

    /// The file, in the folder of histories: a copy of a layer has another.
    pub(super) fn path(&self, folder: &Path) -> PathBuf {
        let (device, inode) = self.file;
        folder.join(format!("overlay-{}-{device:x}-{inode:x}", self.layer.simple()))
    }
}

/// Why extents were not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// There is room again after a flush.
    Full,
    /// The file cannot be written.
    Failed,
}

/// The locked file, and the place of the next record.
#[derive(Debug)]
pub(super) struct History {
    path: PathBuf,
    file: File,
    header: Header,
    /// The number of the last record of each region.
    regions: Vec<u64>,
    /// The place of the next record: region, and record in the region.
    region: usize,
    at: u64,
    next: u64,
    /// All records before this number are durable in the log.
    durable: u64,
    failed: bool,
}

impl History {
    /// Makes an empty history of this number, in the place of any other history of the owner.
    ///
    /// # Errors
    /// `Unsupported` when `folder` is not in memory; `Busy` when another server has the history;
    /// `BadBackend` for a file that is no history, which stays as it is; `Permission`; `Resources` when
    /// there is no memory.
    pub(super) fn new(folder: &Path, owner: &Owner, number: u64) -> Result<Self> {
        let path = owner.path(folder);
        let file = open(folder, &path, true)?;
        let is_foreign = is_foreign(&file).map_err(|error| {
            Error::os(Code::Kernel, format!("cannot use {}", path.display()), "read", &error)
        })?;
        if is_foreign {
            let message =
                format!("{} holds something else than an overlay's history", path.display());
            return Err(Error::new(Code::BadBackend, message).hint(
                "the file is left as it is; move it away, or name another folder with the option \
                 history (ublk add overlay --history FOLDER)",
            ));
        }
        let mut this = Self::of(path, file, Header::new(owner, number), Vec::new());
        this.clear().map_err(|error| {
            Error::os(Code::Resources, "cannot reserve memory", "fallocate", &error)
                .hint(format!("{} is full: make room there", folder.display()))
        })?;
        Ok(this)
    }

    /// Opens the history of this number, and answers the extents of a killed server: the end of the
    /// layer's history, in order. None: the folder has no such history.
    ///
    /// # Errors
    /// `Unsupported` when `folder` is not in memory; `Busy` when another server has the history;
    /// `Permission`.
    pub(super) fn resume(
        folder: &Path,
        owner: &Owner,
        number: u64,
    ) -> Result<Option<(Self, Vec<Extent>)>> {
        let path = owner.path(folder);
        if !path.exists() {
            return Ok(None);
        }
        let file = open(folder, &path, false)?;
        let header = Header::new(owner, number);
        let left = read(&file, &header).map_err(|error| {
            Error::os(Code::Kernel, format!("cannot use {}", path.display()), "read", &error)
                .hint("the overlay keeps there what a killed server must not lose")
        })?;
        let Some((regions, extents)) = left else { return Ok(None) };
        let mut this = Self::of(path, file, header, regions);
        this.durable = this.next - extents.len() as u64;
        Ok(Some((this, extents)))
    }

    fn of(path: PathBuf, file: File, header: Header, regions: Vec<u64>) -> Self {
        let next = regions.iter().max().map_or(1, |last| last + 1);
        // No region is open.
        let (region, at) = (0, REGION);
        Self { path, file, header, regions, region, at, next, durable: next, failed: false }
    }

    fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        (0..LEAST_REGIONS).try_for_each(|_| self.grow())?;
        self.write_header()
    }

    /// Adds a region; the space of the file is there before anything is written.
    fn grow(&mut self) -> io::Result<()> {
        let end = HEADER as u64 + (self.regions.len() as u64 + 1) * REGION_BYTES;
        let end = libc::off_t::try_from(end).map_err(io::Error::other)?;
        // SAFETY: fallocate of a descriptor that we own.
        if unsafe { libc::fallocate(self.file.as_raw_fd(), 0, 0, end) } != 0 {
            return Err(io::Error::last_os_error());
        }
        self.regions.push(0);
        Ok(())
    }

    fn write_header(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.header.to_bytes(), 0)
    }

    /// Adds extents, at most [`MOST_AT_ONCE`]: all or none.
    pub(super) fn append(
        &mut self,
        extents: impl Iterator<Item = Extent>,
    ) -> std::result::Result<(), Refused> {
        let mut bytes = [0; MOST_AT_ONCE * RECORD];
        let mut count = 0;
        for (number, extent) in (self.next..).zip(extents) {
            let record = Record { number, extent }.to_bytes(&self.header);
            bytes[count * RECORD..][..RECORD].copy_from_slice(&record);
            count += 1;
        }
        if count == 0 {
            return Ok(());
        }
        if self.failed {
            return Err(Refused::Failed);
        }
        let fits = usize::try_from(REGION - self.at).unwrap_or(0).min(count);
        let next_region =
            if fits < count { Some(self.free_region().ok_or(Refused::Full)?) } else { None };
        self.put(&bytes[..fits * RECORD])?;
        if let Some(region) = next_region {
            (self.region, self.at) = (region, 0);
            self.put(&bytes[fits * RECORD..count * RECORD])?;
        }
        Ok(())
    }

    /// Writes records at the place of the next record, in a region.
    fn put(&mut self, records: &[u8]) -> std::result::Result<(), Refused> {
        if records.is_empty() {
            return Ok(());
        }
        let count = (records.len() / RECORD) as u64;
        let place = HEADER as u64 + self.region as u64 * REGION_BYTES + self.at * RECORD as u64;
        if self.file.write_all_at(records, place).is_err() {
            // Some records may be there: their places must not be reused.
            self.failed = true;
            return Err(Refused::Failed);
        }
        self.next += count;
        self.at += count;
        self.regions[self.region] = self.next - 1;
        Ok(())
    }

    fn free_region(&mut self) -> Option<usize> {
        let (durable, open) = (self.durable, (self.at < REGION).then_some(self.region));
        let mut regions = self.regions.iter().enumerate();
        let free = regions.position(|(region, &last)| last < durable && Some(region) != open);
        free.or_else(|| {
            let grown = self.regions.len() < MOST_REGIONS && self.grow().is_ok();
            grown.then(|| self.regions.len() - 1)
        })
    }

    /// The records so far, for [`durable`](Self::durable).
    pub(super) fn mark(&self) -> u64 {
        self.next
    }

    /// Records before this mark are durable in the log.
    pub(super) fn durable(&mut self, mark: u64) {
        self.durable = self.durable.max(mark);
    }

    /// A superblock with this number is going to be written.
    ///
    /// # Errors
    /// The error of the write to the header.
    pub(super) fn expect(&mut self, number: u64) -> io::Result<()> {
        self.header.numbers[1] = number;
        self.write_header()
    }

    /// The expected superblock is durable.
    ///
    /// # Errors
    /// The error of the write to the header.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        self.header.numbers = [self.header.numbers[1]; 2];
        self.write_header()
    }

    /// Where the file is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Nothing is left to the next server.
    pub(super) fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

/// Where histories are kept unless a user says otherwise: `/run/ublk` for root, where `/run` is in memory,
/// and `/dev/shm` elsewhere.
pub(super) fn default_folder() -> PathBuf {
    // SAFETY: asks for a number.
    let is_root = unsafe { libc::geteuid() } == 0;
    let place = if is_root && is_in_memory(Path::new("/run")) { "/run/ublk" } else { "/dev/shm" };
    place.into()
}

fn open(folder: &Path, path: &Path, create: bool) -> Result<File> {
    let hint =
        "name a folder on a tmpfs with the option history (ublk add overlay --history FOLDER)";
    let kept = "what a killed server must not lose is kept in memory";
    let failed = |error: &io::Error, syscall| {
        let code = match error.kind() {
            io::ErrorKind::PermissionDenied => Code::Permission,
            _ => Code::BadBackend,
        };
        Error::os(code, format!("cannot open {} ({kept})", path.display()), syscall, error)
            .hint(hint)
    };
    if create && folder == Path::new("/run/ublk") {
        // A folder that cannot be made is reported when the file is opened.
        let _ = fs::create_dir(folder);
    }
    if folder.exists() && !is_in_memory(folder) {
        let message = format!("{} is not on a tmpfs: {kept}", folder.display());
        return Err(Error::new(Code::Unsupported, message).hint(hint));
    }
    let how = |options: &mut OpenOptions| {
        options.read(true).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path)
    };
    let file = how(OpenOptions::new().create(create).truncate(false));
    let file = file.map_err(|error| failed(&error, "open"))?;
    // SAFETY: flock on a descriptor that we own.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
        let error = io::Error::last_os_error();
        let busy =
            Error::os(Code::Busy, format!("cannot lock {}", path.display()), "flock", &error);
        return Err(busy.hint("another server has the overlay"));
    }
    let found = file.metadata().map_err(|error| failed(&error, "fstat"))?;
    // SAFETY: asks for a number.
    let own = unsafe { libc::geteuid() };
    if !found.is_file() || found.uid() != own {
        let message = format!("{} is not a file of this user", path.display());
        return Err(Error::new(Code::Permission, message)
            .hint("serve the overlay as the user that served it before, or remove the file"));
    }
    Ok(file)
}

/// Whether a file is neither a history, nor empty, nor what a killed server has begun: zeros.
fn is_foreign(file: &File) -> io::Result<bool> {
    let length = file.metadata()?.len();
    let begun = HEADER as u64 + LEAST_REGIONS as u64 * REGION_BYTES;
    let mut bytes = vec![0; usize::try_from(length.min(begun)).unwrap_or(HEADER)];
    file.read_exact_at(&mut bytes, 0)?;
    let is_begun = length <= begun && bytes.iter().all(|&byte| byte == 0);
    Ok(!is_begun && !bytes.starts_with(&record::MAGIC))
}

/// The last number of each region, and the unbroken end of the history.
type Left = (Vec<u64>, Vec<Extent>);

/// Reads a file that has the owner and the number of `wanted`; none for any other file.
fn read(file: &File, wanted: &Header) -> io::Result<Option<Left>> {
    let length = file.metadata()?.len();
    let whole = |regions: usize| HEADER as u64 + regions as u64 * REGION_BYTES;
    if length < whole(LEAST_REGIONS) || length > whole(MOST_REGIONS) {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(HEADER)];
    file.read_exact_at(&mut bytes, 0)?;
    let header = Header::parse(&bytes[..HEADER]).filter(|header| header.continues(wanted));
    let Some(header) = header else { return Ok(None) };
    let mut records = Vec::new();
    let mut regions = Vec::new();
    for region in bytes[HEADER..].chunks(usize::try_from(REGION_BYTES).unwrap_or(usize::MAX)) {
        let found = region.chunks_exact(RECORD).filter_map(|bytes| Record::parse(bytes, &header));
        let before = records.len();
        records.extend(found);
        regions
            .push(records[before..].iter().map(|record: &Record| record.number).max().unwrap_or(0));
    }
    records.sort_unstable_by_key(|record| record.number);
    let unbroken = records.windows(2).rposition(|two| two[0].number + 1 != two[1].number);
    let extents = records.drain(unbroken.map_or(0, |at| at + 1)..).map(|record| record.extent);
    Ok(Some((regions, extents.collect())))
}

#[cfg(test)]
mod tests;
