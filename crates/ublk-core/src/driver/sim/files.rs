//! What descriptors stand for: devices and disks of the model, or files of the real system.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use super::model::Model;
use super::shared::Memory;

/// An open file.
#[derive(Clone, Debug)]
pub(super) enum FileRef {
    /// `/dev/ublkcN`.
    Char(usize),
    /// A disk of the model.
    Disk(usize),
    /// Reads zeros, takes everything.
    Zero,
    /// Memory that can be mapped.
    Memory(Arc<Memory>),
    /// A real file or block device.
    Storage(Arc<OwnedFd>),
    /// A real descriptor that is read when it is ready: an eventfd, a pipe, `/dev/zero`.
    Stream(Arc<OwnedFd>),
}

impl FileRef {
    pub(super) fn is_stream(&self) -> bool {
        matches!(self, Self::Stream(_))
    }

    /// The real descriptor, if there is one.
    pub(super) fn real(&self) -> Option<RawFd> {
        match self {
            Self::Storage(fd) | Self::Stream(fd) => Some(fd.as_raw_fd()),
            _ => None,
        }
    }
}

impl Model {
    /// Makes a descriptor that only the model understands.
    pub(super) fn install(&mut self, file: FileRef) -> RawFd {
        let fd = self.next_fd;
        self.next_fd += 1;
        self.hold(&file);
        self.files.insert(fd, file);
        fd
    }

    /// Closes such a descriptor.
    pub(super) fn uninstall(&mut self, fd: RawFd) {
        if let Some(file) = self.files.remove(&fd) {
            self.put_file(&file);
        }
    }

    pub(super) fn open_file(&self, fd: RawFd) -> io::Result<FileRef> {
        self.files.get(&fd).map_or_else(|| adopt(fd), |file| Ok(file.clone()))
    }

    /// Counts one more user of a `/dev/ublkcN`.
    pub(super) fn hold(&mut self, file: &FileRef) {
        if let FileRef::Char(device) = file {
            self.devices[*device].files += 1;
        }
    }

    /// fput: the last one releases the device.
    pub(super) fn put_file(&mut self, file: &FileRef) {
        if let FileRef::Char(device) = *file {
            self.devices[device].files -= 1;
            if self.devices[device].files == 0 {
                self.devices[device].releasing = true;
                self.release_char(device);
            }
        }
    }

    pub(super) fn takes_discard(&self, file: &FileRef) -> bool {
        matches!(file, FileRef::Disk(disk) if self.disks[*disk].is_block_device)
    }
}

/// A real descriptor, held as a ring holds its files: whatever its owner closes.
fn adopt(fd: RawFd) -> io::Result<FileRef> {
    // SAFETY: asks for a new descriptor; `fd` may be any number.
    let held = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) };
    if held < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fresh from the kernel and owned by nobody else.
    let held = unsafe { OwnedFd::from_raw_fd(held) };
    // SAFETY: all zeros is a valid `stat`.
    let mut stat: libc::stat = unsafe { mem::zeroed() };
    // SAFETY: an open descriptor and a struct of ours.
    if unsafe { libc::fstat(held.as_raw_fd(), &raw mut stat) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let storage = matches!(stat.st_mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFBLK);
    let zero = stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == libc::makedev(1, 5);
    Ok(if zero {
        FileRef::Zero
    } else if storage {
        FileRef::Storage(Arc::new(held))
    } else {
        FileRef::Stream(Arc::new(held))
    })
}
