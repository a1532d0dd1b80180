//! The files behind descriptors: devices and disks of the model, or files of the real system.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::driver::sim::model::Model;
use crate::driver::sim::storage::cache::CachedFile;
use crate::driver::sim::ublk_drv::shared::Memory;

/// An open file.
#[derive(Clone, Debug)]
pub(crate) enum FileRef {
    /// `/dev/ublkcN`.
    Char(usize),
    /// A disk of the model, and the number of the disk's failed syncs that this open file has reported.
    Disk(usize, Reported),
    /// Reads zeros, takes everything.
    Zero,
    /// Memory that can be mapped.
    Memory(Arc<Memory>),
    /// A real file or block device, behind a cache of the model.
    Storage(usize, Reported),
    /// A real descriptor that is read when it is ready: an eventfd, a pipe, `/dev/zero`.
    Stream(Arc<OwnedFd>),
}

/// How many failed syncs an open file has reported (`file->f_wb_err`); clones are of the same open file.
#[derive(Clone, Debug)]
pub(crate) struct Reported(Arc<AtomicU64>);

impl Reported {
    /// For a file that is opened after so many failed syncs.
    pub(crate) fn new(failures: u64) -> Self {
        Self(Arc::new(AtomicU64::new(failures)))
    }

    /// file_check_and_advance_wb_err: fails once for all syncs that have failed since the last call.
    pub(crate) fn check(&self, failures: u64) -> Result<(), i32> {
        if self.0.swap(failures, Ordering::Relaxed) == failures { Ok(()) } else { Err(libc::EIO) }
    }
}

impl FileRef {
    pub(crate) fn is_stream(&self) -> bool {
        matches!(self, Self::Stream(_))
    }

    /// The descriptor to wait for, if any.
    pub(crate) fn real(&self) -> Option<RawFd> {
        match self {
            Self::Stream(fd) => Some(fd.as_raw_fd()),
            _ => None,
        }
    }
}

impl Model {
    /// Makes a descriptor of the model.
    pub(crate) fn install(&mut self, file: FileRef) -> RawFd {
        let fd = self.next_fd;
        self.next_fd += 1;
        self.hold(&file);
        self.files.insert(fd, file);
        fd
    }

    /// Opens the disk of a descriptor of the model once more.
    pub(crate) fn reopen(&mut self, fd: RawFd) -> Option<RawFd> {
        let Some(&FileRef::Disk(disk, _)) = self.files.get(&fd) else { return None };
        let reported = Reported::new(self.disks[disk].failures);
        Some(self.install(FileRef::Disk(disk, reported)))
    }

    /// Closes a descriptor of the model.
    pub(crate) fn uninstall(&mut self, fd: RawFd) {
        if let Some(file) = self.files.remove(&fd) {
            self.put_file(&file);
        }
    }

    pub(crate) fn open_file(&mut self, fd: RawFd) -> io::Result<FileRef> {
        match self.files.get(&fd) {
            Some(file) => Ok(file.clone()),
            None => self.adopt(fd),
        }
    }

    /// A real descriptor, held as a ring holds files: open even after the owner's close.
    fn adopt(&mut self, fd: RawFd) -> io::Result<FileRef> {
        // SAFETY: all zeros is a valid `stat`.
        let mut stat: libc::stat = unsafe { mem::zeroed() };
        // SAFETY: a struct of ours; `fd` may be any number.
        if unsafe { libc::fstat(fd, &raw mut stat) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let kind = stat.st_mode & libc::S_IFMT;
        if matches!(kind, libc::S_IFREG | libc::S_IFBLK) {
            let storage = self.adopt_storage(fd, &stat)?;
            let reported = Reported::new(self.storages[storage].failures);
            return Ok(FileRef::Storage(storage, reported));
        }
        if kind == libc::S_IFCHR && stat.st_rdev == libc::makedev(1, 5) {
            return Ok(FileRef::Zero);
        }
        // SAFETY: open, as fstat has shown, and as long as the owner calls the model.
        let stream = unsafe { BorrowedFd::borrow_raw(fd) };
        Ok(FileRef::Stream(Arc::new(stream.try_clone_to_owned()?)))
    }

    /// Every descriptor of a file shares one cache.
    fn adopt_storage(&mut self, fd: RawFd, stat: &libc::stat) -> io::Result<usize> {
        let opened = CachedFile::open(fd, stat)?;
        let known = self.storages.iter().position(|storage| storage.id == opened.id);
        if let Some(known) = known {
            if opened.writable {
                self.storages[known].reopen(opened);
            }
            return Ok(known);
        }
        self.storages.push(opened);
        Ok(self.storages.len() - 1)
    }

    /// Counts one more user of a `/dev/ublkcN`.
    pub(crate) fn hold(&mut self, file: &FileRef) {
        if let FileRef::Char(device) = file {
            self.devices[*device].files += 1;
        }
    }

    /// fput: the last one releases the device.
    pub(crate) fn put_file(&mut self, file: &FileRef) {
        if let FileRef::Char(device) = *file {
            self.devices[device].files -= 1;
            if self.devices[device].files == 0 {
                self.devices[device].releasing = true;
                self.release_char(device);
            }
        }
    }

    /// As [`Ring::capacity`](crate::driver::Ring::capacity).
    pub(crate) fn capacity(&self, fd: RawFd) -> Option<u64> {
        match self.files.get(&fd) {
            Some(FileRef::Disk(disk, _)) => self.disks[*disk].capacity(),
            Some(_) => None,
            None => ublk_driver::capacity(fd),
        }
    }

    pub(crate) fn takes_discard(&self, file: &FileRef) -> bool {
        matches!(file, FileRef::Disk(disk, _) if self.disks[*disk].is_block_device)
    }
}
