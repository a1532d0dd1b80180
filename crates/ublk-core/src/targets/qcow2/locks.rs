//! QEMU's locks of images: locks on single bytes of the file, which belong to an open file.
//!
//! A byte from 100 on says what a program does with the image, and a byte from 200 on what others must not do
//! meanwhile; both times, the permission's number is added. `qemu-img` and QEMU refuse to write to an image
//! that is locked so.

use std::io;
use std::os::fd::RawFd;
use std::path::Path;

use crate::error::{Code, Error, Result};

const DOES: i64 = 100;
const FORBIDS: i64 = 200;
const READS: i64 = 0;
const WRITES: i64 = 1;
const RESIZES: i64 = 3;

/// Locks an image for reading, until the file closes.
///
/// # Errors
/// `Busy` when a program writes to the image, or lets no other program read the image.
pub(super) fn take(path: &Path, fd: RawFd) -> Result<()> {
    for byte in [DOES + READS, FORBIDS + WRITES, FORBIDS + RESIZES] {
        // Some file systems have no locks.
        if lock(fd, byte, libc::F_RDLCK, libc::F_OFD_SETLK).is_err() {
            return Ok(());
        }
    }
    for byte in [DOES + WRITES, DOES + RESIZES, FORBIDS + READS] {
        if !is_free(fd, byte) {
            let message = format!("cannot lock {}: a program writes to it", path.display());
            return Err(Error::new(Code::Busy, message).hint(
                "end the virtual machine or the qemu-img that has it; with the option lock: false \
                 (ublk add qcow2 --no-lock) it is served all the same, and must not change",
            ));
        }
    }
    Ok(())
}

fn is_free(fd: RawFd, byte: i64) -> bool {
    lock(fd, byte, libc::F_WRLCK, libc::F_OFD_GETLK).is_ok_and(|kind| kind == libc::F_UNLCK)
}

/// Answers the kind of lock that the kernel has put into the question.
fn lock(fd: RawFd, byte: i64, kind: i32, command: i32) -> io::Result<i32> {
    // SAFETY: all zeros is a valid `flock`; open-file locks want the process to be 0.
    let mut question: libc::flock = unsafe { std::mem::zeroed() };
    question.l_type = i16::try_from(kind).map_err(io::Error::other)?;
    question.l_whence = i16::try_from(libc::SEEK_SET).map_err(io::Error::other)?;
    question.l_start = byte;
    question.l_len = 1;
    // SAFETY: a descriptor of our caller's, and a struct of ours.
    match unsafe { libc::fcntl(fd, command, &raw mut question) } {
        0 => Ok(question.l_type.into()),
        _ => Err(io::Error::last_os_error()),
    }
}
