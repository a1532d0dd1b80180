//! Backend I/O: reads, writes, syncs, holes, on disks of the model and on cached real files.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use crate::driver::sim::model::Model;
use crate::driver::sim::storage::backend::SECTOR;
use crate::driver::sim::storage::files::FileRef;
use crate::driver::sim::storage::memory;
use crate::driver::sim::storage::power::Power;
use crate::driver::sim::uring::sqe::{OP_FALLOCATE, OP_FSYNC, Sqe};
use crate::driver::sim::violation::Rule;

/// Where short results of real files end: the page cache's unit, and as much as direct I/O needs.
const PAGE: usize = 4096;
const RWF_DSYNC: u32 = 2;
const KEEP_SIZE: u32 = libc::FALLOC_FL_KEEP_SIZE.cast_unsigned();
const PUNCH_HOLE: u32 = libc::FALLOC_FL_PUNCH_HOLE.cast_unsigned();
const ZERO_RANGE: u32 = libc::FALLOC_FL_ZERO_RANGE.cast_unsigned();

impl Model {
    /// A read or write. What it moves is what it answers.
    pub(crate) fn transfer(
        &mut self,
        ring: usize,
        operation: usize,
        file: &FileRef,
    ) -> Result<i32, i32> {
        let sqe = self.ring(ring).ops[operation].sqe;
        if sqe.op_flags & !RWF_DSYNC != 0 {
            self.violate(Rule::Operation, format!("the model does not know {sqe:?}"));
            return Err(libc::EOPNOTSUPP);
        }
        if !sqe.is_fixed() && !self.may_use_memory(sqe.addr, sqe.len) {
            self.violate(Rule::Memory, format!("{:#x} was given back meanwhile", sqe.addr));
            return Err(libc::EFAULT);
        }
        let limit = self.draw_fault(ring, operation, file, &sqe)?;
        let moved = if sqe.is_read() {
            let bytes = self.read_file(file, sqe.off, limit)?;
            self.fill(ring, operation, &bytes);
            bytes.len()
        } else {
            let bytes = self.fetch_bytes(ring, operation, limit);
            self.write_file(file, sqe.off, &bytes, sqe.op_flags & RWF_DSYNC != 0)?
        };
        i32::try_from(moved).map_err(|_| libc::EINVAL)
    }

    /// How many bytes chance lets through.
    fn draw_fault(
        &mut self,
        ring: usize,
        operation: usize,
        file: &FileRef,
        sqe: &Sqe,
    ) -> Result<usize, i32> {
        let length = sqe.len as usize;
        // Disks and the page cache stop between sectors; only the end of a file is elsewhere.
        let unit = match file {
            FileRef::Disk(disk, _) => SECTOR.max(self.disks[*disk].trouble.alignment as usize),
            FileRef::Storage(..) => PAGE,
            _ => return Ok(length),
        };
        if self.power == Power::Off {
            return Err(libc::EIO);
        }
        let faults = self.config.faults;
        if self.rng.chance(faults.interrupted) {
            self.injected.interrupted += 1;
            return Err(if self.rng.chance(500) { libc::EINTR } else { libc::EAGAIN });
        }
        if self.rng.chance(faults.error) {
            self.injected.error += 1;
            self.tear(ring, operation, file, sqe);
            return Err(libc::EIO);
        }
        let units = length.div_ceil(unit);
        if units > 1 && self.rng.chance(faults.short) {
            self.injected.short += 1;
            return Ok(unit * (1 + self.rng.index(units - 1)));
        }
        Ok(length)
    }

    /// A failed write leaves some of its sectors behind.
    pub(crate) fn tear(&mut self, ring: usize, operation: usize, file: &FileRef, sqe: &Sqe) {
        if sqe.is_read() {
            return;
        }
        let bytes = self.fetch_bytes(ring, operation, sqe.len as usize);
        let mut at = sqe.off;
        for sector in bytes.chunks(SECTOR) {
            if self.rng.chance(500) {
                // It fails anyway.
                let _ = self.write_file(file, at, sector, false);
            }
            at += sector.len() as u64;
        }
    }

    fn read_file(&mut self, file: &FileRef, offset: u64, length: usize) -> Result<Vec<u8>, i32> {
        match file {
            FileRef::Disk(disk, _) => {
                let disk = &self.disks[*disk];
                if disk.misaligned(offset, length as u64) {
                    self.injected.error += 1;
                    return Err(libc::EINVAL);
                }
                if let Some(errno) = disk.trouble.reads {
                    self.injected.error += 1;
                    return Err(errno);
                }
                let bytes = disk.read(offset, length).to_vec();
                // What a block device has lost is lost to its clients.
                let lost = bytes.len() < length && disk.capacity().is_some();
                self.injected.error += u32::from(lost);
                Ok(bytes)
            }
            FileRef::Zero => Ok(vec![0; length]),
            FileRef::Storage(file, _) => self.storages[*file].read(offset, length),
            FileRef::Stream(fd) => {
                let mut bytes = vec![0_u8; length];
                let offset = offset_t(offset)?;
                // SAFETY: `length` bytes of ours.
                let read = unsafe {
                    libc::pread(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), length, offset)
                };
                bytes.truncate(moved(read)?);
                Ok(bytes)
            }
            FileRef::Char(_) | FileRef::Memory(_) => Err(libc::EINVAL),
        }
    }

    fn write_file(
        &mut self,
        file: &FileRef,
        offset: u64,
        bytes: &[u8],
        durably: bool,
    ) -> Result<usize, i32> {
        match file {
            FileRef::Disk(disk, _) => {
                let disk = &mut self.disks[*disk];
                let length = bytes.len() as u64;
                if disk.misaligned(offset, length) {
                    self.injected.error += 1;
                    return Err(libc::EINVAL);
                }
                let room = match disk.trouble.writes {
                    Some(errno) => Err(errno),
                    None => disk.room(offset, length),
                };
                let Ok(room) = room.map(|room| usize::try_from(room).unwrap_or(bytes.len())) else {
                    self.injected.error += 1;
                    return Err(room.err().unwrap_or(libc::EIO));
                };
                disk.write(offset, &bytes[..room], durably && disk.trouble.syncs.is_none());
                if durably {
                    self.report_sync(file)?;
                }
                Ok(room)
            }
            FileRef::Zero => Ok(bytes.len()),
            FileRef::Storage(storage, _) => {
                let moved = self.storages[*storage].write(offset, bytes, durably)?;
                if durably {
                    self.report_sync(file)?;
                }
                Ok(moved)
            }
            FileRef::Stream(fd) => {
                let offset = offset_t(offset)?;
                // SAFETY: reads a slice of ours.
                moved(unsafe {
                    libc::pwrite(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), offset)
                })
            }
            FileRef::Char(_) | FileRef::Memory(_) => Err(libc::EINVAL),
        }
    }

    /// Into the request's pages or the server's memory.
    fn fill(&mut self, ring: usize, operation: usize, bytes: &[u8]) {
        let op = &self.ring(ring).ops[operation];
        let (address, node) = (op.sqe.addr, op.node);
        match node {
            Some(node) => {
                let id = self.ring(ring).nodes[node].request;
                let at = usize::try_from(address).unwrap_or(usize::MAX);
                self.request(id).pages()[at..at + bytes.len()].copy_from_slice(bytes);
            }
            None => memory::store(address, bytes),
        }
    }

    /// Out of the request's pages or the server's memory.
    fn fetch_bytes(&mut self, ring: usize, operation: usize, length: usize) -> Vec<u8> {
        let op = &self.ring(ring).ops[operation];
        let (address, node) = (op.sqe.addr, op.node);
        match node {
            Some(node) => {
                let id = self.ring(ring).nodes[node].request;
                let at = usize::try_from(address).unwrap_or(usize::MAX);
                self.request(id).pages()[at..at + length].to_vec()
            }
            None => {
                let mut bytes = vec![0; length];
                memory::load(address, &mut bytes);
                bytes
            }
        }
    }

    /// fsync, fallocate, discard.
    pub(crate) fn change(&mut self, sqe: &Sqe, file: &FileRef) -> Result<(), i32> {
        let faulty = matches!(file, FileRef::Disk(..) | FileRef::Storage(..));
        if faulty && self.power == Power::Off {
            return Err(libc::EIO);
        }
        if faulty && self.rng.chance(self.config.faults.error) {
            self.injected.error += 1;
            if sqe.opcode == OP_FSYNC {
                self.fail_sync(file);
                return self.report_sync(file);
            }
            return Err(libc::EIO);
        }
        match (sqe.opcode, file) {
            (OP_FSYNC, FileRef::Disk(disk, _)) => {
                self.report_sync(file)?;
                self.disks[*disk].sync();
                Ok(())
            }
            (OP_FSYNC, FileRef::Storage(storage, _)) => {
                self.report_sync(file)?;
                self.storages[*storage].sync()
            }
            (OP_FALLOCATE, FileRef::Disk(disk, _)) => {
                self.allocate(*disk, sqe.len, sqe.off, sqe.addr)
            }
            (OP_FALLOCATE, FileRef::Storage(file, _)) => {
                self.storages[*file].allocate(sqe.len.cast_signed(), sqe.off, sqe.addr)
            }
            // blk_validate_byte_range
            (_, FileRef::Disk(disk, _)) if self.disks[*disk].ends_before(sqe.addr, sqe.addr3) => {
                self.injected.error += 1;
                Err(libc::EINVAL)
            }
            (_, FileRef::Disk(disk, _)) => self.punch(*disk, sqe.addr, sqe.addr3),
            _ => Err(libc::EINVAL),
        }
    }

    /// A sync drops what it should have stored, for all who have the file open.
    fn fail_sync(&mut self, file: &FileRef) {
        let mut rng = self.rng.clone();
        match file {
            FileRef::Disk(disk, _) => self.disks[*disk].fail_sync(&mut rng),
            FileRef::Storage(storage, _) => self.storages[*storage].fail_sync(&mut rng),
            _ => {}
        }
        self.rng = rng;
    }

    /// Whether a sync through this open file has anything to report: what fails now, and what has
    /// failed since the last time, whoever asked for it.
    fn report_sync(&mut self, file: &FileRef) -> Result<(), i32> {
        let (failures, reported) = match file {
            FileRef::Disk(disk, reported) => {
                let pulled = (self.disks[*disk].capacity() == Some(0)).then_some(libc::EIO);
                if let Some(errno) = self.disks[*disk].trouble.syncs.or(pulled) {
                    self.injected.error += 1;
                    self.fail_sync(file);
                    let _now = reported.check(self.disks[*disk].failures);
                    return Err(errno);
                }
                (self.disks[*disk].failures, reported)
            }
            FileRef::Storage(storage, reported) => (self.storages[*storage].failures, reported),
            _ => return Ok(()),
        };
        reported.check(failures)
    }

    fn allocate(&mut self, disk: usize, mode: u32, offset: u64, length: u64) -> Result<(), i32> {
        let end = offset.checked_add(length).ok_or(libc::EFBIG)?;
        if length == 0 {
            return Err(libc::EINVAL);
        }
        let capacity = self.disks[disk].capacity();
        self.injected.error += u32::from(self.disks[disk].ends_before(offset, length));
        if capacity.is_some_and(|size| cannot_allocate(offset, end, size, mode)) {
            return Err(libc::EINVAL);
        }
        let size = capacity.unwrap_or(self.disks[disk].contents.len() as u64);
        let inside = length.min(size.saturating_sub(offset));
        match mode & !KEEP_SIZE {
            PUNCH_HOLE if mode & KEEP_SIZE != 0 => self.punch(disk, offset, inside),
            ZERO_RANGE if self.disks[disk].trouble.no_zero_range => Err(libc::EOPNOTSUPP),
            ZERO_RANGE => {
                let length = if mode & KEEP_SIZE == 0 { length } else { inside };
                self.write_zeros(disk, offset, length)
            }
            0 => {
                if mode & KEEP_SIZE == 0 && end > size {
                    self.disks[disk].resize(usize::try_from(end).map_err(|_| libc::EFBIG)?);
                }
                Ok(())
            }
            _ => Err(libc::EOPNOTSUPP),
        }
    }

    fn punch(&mut self, disk: usize, offset: u64, length: u64) -> Result<(), i32> {
        if self.disks[disk].trouble.no_punch {
            return Err(libc::EOPNOTSUPP);
        }
        self.write_zeros(disk, offset, length)
    }

    fn write_zeros(&mut self, disk: usize, offset: u64, length: u64) -> Result<(), i32> {
        let disk = &mut self.disks[disk];
        if let Some(errno) = disk.trouble.writes {
            self.injected.error += 1;
            return Err(errno);
        }
        disk.write(offset, &vec![0; usize::try_from(length).map_err(|_| libc::EFBIG)?], false);
        Ok(())
    }
}

/// blkdev_fallocate: a range that begins inside of the device and ends beyond it is cut, and that is
/// success, as long as the size is to be kept.
pub(crate) fn cannot_allocate(begin: u64, end: u64, size: u64, mode: u32) -> bool {
    begin >= size || end > size && mode & KEEP_SIZE == 0
}

/// A read of a descriptor that is ready.
pub(crate) fn read_stream(fd: RawFd, length: u32) -> Result<Vec<u8>, i32> {
    let mut bytes = vec![0_u8; length as usize];
    // SAFETY: `length` bytes of ours.
    let read = unsafe { libc::read(fd, bytes.as_mut_ptr().cast(), bytes.len()) };
    bytes.truncate(moved(read)?);
    Ok(bytes)
}

fn moved(result: isize) -> Result<usize, i32> {
    usize::try_from(result).map_err(|_| errno())
}

fn offset_t(value: u64) -> Result<libc::off_t, i32> {
    libc::off_t::try_from(value).map_err(|_| libc::EINVAL)
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}
