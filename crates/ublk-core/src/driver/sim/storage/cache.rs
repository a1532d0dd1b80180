//! A real file behind a simulated write cache: written bytes stay in memory until a sync, and a power cut takes
//! unsynced bytes. Whether the real disk keeps the real file is no concern of a simulation: nothing waits for the
//! real disk.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;

use crate::driver::sim::rng::Rng;
use crate::driver::sim::storage::backend::SECTOR;
use crate::driver::sim::storage::io::cannot_allocate;

const SECTOR_BYTES: u64 = SECTOR as u64;
/// Longer ranges of zeros go to the file at once, as if the disk had synced.
const MAX_CACHED_ZEROS: u64 = 1 << 20;

const KEEP_SIZE: i32 = libc::FALLOC_FL_KEEP_SIZE;
const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP_SIZE;
const ZERO_RANGE: i32 = libc::FALLOC_FL_ZERO_RANGE;

/// The identity of a file: device and inode.
pub(crate) type FileId = (u64, u64);

/// A real file or block device, and the unsynced bytes.
#[derive(Debug)]
pub(crate) struct CachedFile {
    pub(crate) id: FileId,
    pub(crate) writable: bool,
    file: File,
    is_block_device: bool,
    dirty: BTreeMap<u64, [u8; SECTOR]>,
    /// Sectors dropped by a failed sync: visible to readers, stored by no sync.
    dropped: BTreeMap<u64, [u8; SECTOR]>,
    /// Syncs that have failed.
    pub(crate) failures: u64,
    /// Where the file ends for its readers, if its growth is still in the cache.
    end: u64,
}

impl CachedFile {
    /// Opens the file of `fd` once more: independent of the server's use of `fd`, and without the demands of direct
    /// I/O on memory.
    pub(crate) fn open(fd: RawFd, stat: &libc::stat) -> io::Result<Self> {
        // SAFETY: asks for flags of a descriptor; `fd` may be any number.
        let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
        let writable = flags & libc::O_ACCMODE != libc::O_RDONLY;
        let path = format!("/proc/self/fd/{fd}");
        Ok(Self {
            id: (stat.st_dev, stat.st_ino),
            writable,
            file: OpenOptions::new().read(true).write(writable).open(path)?,
            is_block_device: stat.st_mode & libc::S_IFMT == libc::S_IFBLK,
            dirty: BTreeMap::new(),
            dropped: BTreeMap::new(),
            failures: 0,
            end: 0,
        })
    }

    /// Goes on with a descriptor of the same file that has more rights.
    pub(crate) fn reopen(&mut self, with: Self) {
        self.file = with.file;
        self.writable = with.writable;
    }

    pub(crate) fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, i32> {
        let left = self.size()?.saturating_sub(offset);
        let mut bytes = vec![0; usize::try_from(left).unwrap_or(length).min(length)];
        read_at(&self.file, offset, &mut bytes)?;
        let end = offset + bytes.len() as u64;
        let sectors = offset / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES);
        let dropped = self.dropped.range(sectors.clone());
        for (&sector, contents) in dropped.chain(self.dirty.range(sectors)) {
            let start = (sector * SECTOR_BYTES).max(offset);
            let stop = ((sector + 1) * SECTOR_BYTES).min(end);
            let from = within(start - sector * SECTOR_BYTES);
            let length = within(stop - start);
            let to = within(start - offset);
            bytes[to..to + length].copy_from_slice(&contents[from..from + length]);
        }
        Ok(bytes)
    }

    /// Returns the number of bytes that there was room for.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8], durably: bool) -> Result<usize, i32> {
        if !self.writable {
            return Err(libc::EBADF);
        }
        let mut bytes = bytes;
        if self.is_block_device {
            let room = usize::try_from(self.size()?.saturating_sub(offset)).unwrap_or(usize::MAX);
            if room == 0 && !bytes.is_empty() {
                return Err(libc::ENOSPC);
            }
            bytes = &bytes[..room.min(bytes.len())];
        }
        let end = offset.checked_add(bytes.len() as u64).ok_or(libc::EFBIG)?;
        let mut at = offset;
        while at < end {
            let sector = at / SECTOR_BYTES;
            let stop = ((sector + 1) * SECTOR_BYTES).min(end);
            let mut contents = [0; SECTOR];
            if stop - at < SECTOR_BYTES {
                let old = self.read(sector * SECTOR_BYTES, SECTOR)?;
                contents[..old.len()].copy_from_slice(&old);
            }
            let from = within(at - sector * SECTOR_BYTES);
            let piece = &bytes[within(at - offset)..within(stop - offset)];
            contents[from..from + piece.len()].copy_from_slice(piece);
            self.dropped.remove(&sector);
            self.dirty.insert(sector, contents);
            self.end = self.end.max(stop);
            at = stop;
        }
        if durably {
            self.store(offset / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES))?;
        }
        Ok(bytes.len())
    }

    pub(crate) fn sync(&mut self) -> Result<(), i32> {
        self.store(0..u64::MAX)?;
        if self.end > self.real_size()? {
            self.file.set_len(self.end).map_err(|error| errno(&error))?;
        }
        Ok(())
    }

    /// A sync fails: some sectors are stored, and the others never will be unless written again.
    pub(crate) fn fail_sync(&mut self, rng: &mut Rng) {
        let dropped = &mut self.dropped;
        self.dirty.retain(|&sector, contents| {
            let stored = rng.chance(500);
            if !stored {
                dropped.insert(sector, *contents);
            }
            stored
        });
        // The sync fails anyway.
        let _ = self.store(0..u64::MAX);
        self.failures += 1;
    }

    /// Cuts the power: of each unsynced sector, the old or the new bytes remain.
    pub(crate) fn cut_power(&mut self, rng: &mut Rng) -> Result<(), i32> {
        self.dirty.retain(|_, _| rng.chance(500));
        self.store(0..u64::MAX)?;
        self.dropped.clear();
        self.end = 0;
        Ok(())
    }

    /// fallocate(2), and discards as holes.
    pub(crate) fn allocate(&mut self, mode: i32, offset: u64, length: u64) -> Result<(), i32> {
        let end = offset.checked_add(length).ok_or(libc::EFBIG)?;
        if length == 0 {
            return Err(libc::EINVAL);
        }
        let size = self.size()?;
        if self.is_block_device && cannot_allocate(offset, end, size, mode.cast_unsigned()) {
            return Err(libc::EINVAL);
        }
        let grows = mode & KEEP_SIZE == 0;
        let inside = if grows { length } else { length.min(size.saturating_sub(offset)) };
        match mode & !KEEP_SIZE {
            0 if grows => self.end = self.end.max(end),
            0 => {}
            libc::FALLOC_FL_PUNCH_HOLE | ZERO_RANGE => self.zero(offset, inside)?,
            _ => return Err(libc::EOPNOTSUPP),
        }
        Ok(())
    }

    fn zero(&mut self, offset: u64, length: u64) -> Result<(), i32> {
        if length <= MAX_CACHED_ZEROS {
            return self.write(offset, &vec![0; within(length)], false).map(drop);
        }
        let end = offset + length;
        let whole = offset.next_multiple_of(SECTOR_BYTES)..end / SECTOR_BYTES * SECTOR_BYTES;
        self.write(offset, &vec![0; within(whole.start - offset)], false)?;
        self.write(whole.end, &vec![0; within(end - whole.end)], false)?;
        for sectors in [&mut self.dirty, &mut self.dropped] {
            sectors.retain(|sector, _| !whole.contains(&(sector * SECTOR_BYTES)));
        }
        punch(&self.file, whole.start, whole.end - whole.start)
    }

    /// Moves sectors from the cache to the file.
    fn store(&mut self, sectors: std::ops::Range<u64>) -> Result<(), i32> {
        let size = self.size()?;
        let first = self.dirty.range(sectors.clone()).next().map(|(&sector, _)| sector);
        let mut next = first;
        while let Some(start) = next {
            let mut run = Vec::new();
            let mut sector = start;
            while sectors.contains(&sector) {
                let Some(contents) = self.dirty.remove(&sector) else { break };
                run.extend_from_slice(&contents);
                sector += 1;
            }
            let offset = start * SECTOR_BYTES;
            run.truncate(usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX));
            self.file.write_all_at(&run, offset).map_err(|error| errno(&error))?;
            next = self.dirty.range(sector..sectors.end.max(sector)).next().map(|(&at, _)| at);
        }
        Ok(())
    }

    fn size(&self) -> Result<u64, i32> {
        Ok(self.real_size()?.max(self.end))
    }

    fn real_size(&self) -> Result<u64, i32> {
        // A block device has a length only for seeks.
        (&self.file).seek(SeekFrom::End(0)).map_err(|error| errno(&error))
    }
}

fn read_at(file: &File, offset: u64, bytes: &mut [u8]) -> Result<(), i32> {
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], offset + done as u64) {
            // Bytes beyond are in the cache, or a hole.
            Ok(0) => return Ok(()),
            Ok(read) => done += read,
            Err(error) => return Err(errno(&error)),
        }
    }
    Ok(())
}

fn punch(file: &File, offset: u64, length: u64) -> Result<(), i32> {
    let number = |value: u64| libc::off_t::try_from(value).map_err(|_| libc::EFBIG);
    // SAFETY: a descriptor of ours and plain numbers.
    match unsafe { libc::fallocate(file.as_raw_fd(), PUNCH, number(offset)?, number(length)?) } {
        0 => Ok(()),
        _ => Err(errno(&io::Error::last_os_error())),
    }
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// A distance within memory.
fn within(bytes: u64) -> usize {
    usize::try_from(bytes).expect("no longer than a request")
}

#[cfg(test)]
mod tests {
    use std::os::fd::{FromRawFd, OwnedFd};

    use crate::driver::sim::storage::cache::*;

    /// A file of `size` zeros, without a name.
    fn file(size: u64) -> CachedFile {
        // SAFETY: a literal with its NUL.
        let fd = unsafe { libc::memfd_create(c"test".as_ptr(), libc::MFD_CLOEXEC) };
        // SAFETY: fresh from the kernel.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        file.set_len(size).unwrap();
        // SAFETY: all zeros is a valid `stat`.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: an open descriptor and a struct of ours.
        unsafe { libc::fstat(file.as_raw_fd(), &raw mut stat) };
        CachedFile::open(file.as_raw_fd(), &stat).unwrap()
    }

    fn on_disk(file: &CachedFile, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        file.file.read_exact_at(&mut bytes, offset).unwrap();
        bytes
    }

    #[test]
    fn what_is_written_is_read_and_reaches_the_file_when_synced() {
        let mut file = file(4096);
        assert_eq!(file.write(700, &[7; 1000], false), Ok(1000));
        let mut expected = vec![0; 4096];
        expected[700..1700].fill(7);
        assert_eq!(file.read(0, 4096), Ok(expected.clone()));
        assert_eq!(file.read(701, 600), Ok(vec![7; 600]));
        assert_eq!(on_disk(&file, 0, 4096), [0; 4096]);
        file.sync().unwrap();
        assert_eq!(on_disk(&file, 0, 4096), expected);
        assert_eq!(file.read(0, 4096), Ok(expected));
    }

    #[test]
    fn a_durable_write_takes_no_other_with_it() {
        let mut file = file(4096);
        file.write(0, &[1; 512], false).unwrap();
        file.write(1024, &[2; 512], true).unwrap();
        assert_eq!(on_disk(&file, 0, 512), [0; 512]);
        assert_eq!(on_disk(&file, 1024, 512), [2; 512]);
    }

    #[test]
    fn a_power_cut_keeps_what_was_synced_and_some_sectors_of_the_rest() {
        let mut file = file(64 << 10);
        file.write(0, &[1; 32 << 10], false).unwrap();
        file.sync().unwrap();
        file.write(0, &[2; 64 << 10], false).unwrap();
        file.cut_power(&mut Rng::new(1)).unwrap();
        let left = file.read(0, 64 << 10).unwrap();
        assert_eq!(left, on_disk(&file, 0, 64 << 10));
        let sectors: Vec<u8> = left.chunks(SECTOR).map(|sector| sector[0]).collect();
        assert!(left.chunks(SECTOR).all(|sector| sector.iter().all(|&b| b == sector[0])));
        assert!(sectors[..64].iter().all(|&b| b == 1 || b == 2), "{sectors:?}");
        for wanted in [0, 1, 2] {
            assert!(sectors.contains(&wanted), "{sectors:?} without {wanted}");
        }
    }

    #[test]
    fn a_file_grows_by_what_is_written_behind_its_end() {
        let mut file = file(512);
        file.write(1000, &[1; 100], false).unwrap();
        let mut expected = vec![0; 600];
        expected[488..588].fill(1);
        expected.truncate(588);
        assert_eq!(file.read(512, 4096), Ok(expected.clone()));
        file.sync().unwrap();
        assert_eq!(file.real_size(), Ok(1100));
        assert_eq!(file.read(512, 4096), Ok(expected));
    }

    #[test]
    fn growth_that_was_not_synced_goes_with_the_power() {
        let mut file = file(512);
        file.allocate(0, 0, 8192).unwrap();
        assert_eq!(file.read(0, 8192), Ok(vec![0; 8192]));
        file.cut_power(&mut Rng::new(1)).unwrap();
        assert_eq!(file.read(0, 8192).map(|bytes| bytes.len()), Ok(512));
    }

    #[test]
    fn holes_read_as_zeros_long_or_short() {
        for length in [3000, MAX_CACHED_ZEROS + 3000] {
            let mut file = file(4 << 20);
            file.write(0, &vec![9; 4 << 20], false).unwrap();
            file.allocate(PUNCH, 100, length).unwrap();
            let mut expected = vec![9; 4 << 20];
            expected[100..within(100 + length)].fill(0);
            assert!(file.read(0, 4 << 20).unwrap() == expected, "a hole of {length}");
            file.sync().unwrap();
            assert!(file.read(0, 4 << 20).unwrap() == expected, "a synced hole of {length}");
        }
    }
}
