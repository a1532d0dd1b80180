//! The lock of an image.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::error::{Code, Error, Result};

/// Two servers writing to one image destroy it; readers may share. Released when the file closes.
pub(in super::super) fn take(path: &Path, file: &File, read_only: bool) -> Result<()> {
    let operation = if read_only { libc::LOCK_SH } else { libc::LOCK_EX };
    // SAFETY: flock on a descriptor that we own.
    if unsafe { libc::flock(file.as_raw_fd(), operation | libc::LOCK_NB) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::WouldBlock {
        let message = format!("cannot lock {}", path.display());
        return Err(Error::os(Code::Busy, message, "flock", &error)
            .hint(hint(file.metadata().ok().and_then(|found| holder(&found)))));
    }
    // Some network file systems have no locks.
    Ok(())
}

/// Makes the lock one that readers share.
pub(super) fn share(file: RawFd) -> io::Result<()> {
    // SAFETY: flock on a descriptor of our caller's.
    match unsafe { libc::flock(file, libc::LOCK_SH | libc::LOCK_NB) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Gives the lock up, also for copies of the descriptor.
pub(super) fn give_up(file: RawFd) -> io::Result<()> {
    // SAFETY: flock on a descriptor of our caller's.
    match unsafe { libc::flock(file, libc::LOCK_UN) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn hint(holder: Option<u32>) -> String {
    match holder {
        Some(pid) if is_ending(pid) => format!(
            "process {pid} has it, which is ending: the lock goes when the last of its I/O has \
             ended"
        ),
        holder => format!(
            "{} has it; see `ublk list`, or lsof; with the option lock: false (ublk add --no-lock) \
             it is served all the same",
            holder.map_or("another ublk server".into(), |pid| format!("process {pid}"))
        ),
    }
}

/// Who has the lock, as far as the kernel tells this process.
pub(in super::super) fn holder(metadata: &fs::Metadata) -> Option<u32> {
    let (major, minor) = (libc::major(metadata.dev()), libc::minor(metadata.dev()));
    let locks = fs::read_to_string("/proc/locks").ok()?;
    holder_in(&locks, &format!("{major:02x}:{minor:02x}:{}", metadata.ino()))
}

/// `1: FLOCK  ADVISORY  WRITE 2158 00:22:1054 0 EOF`
fn holder_in(locks: &str, file: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields[..] {
            [_, "FLOCK", _, _, pid, of, ..] if of == file => pid.parse().ok(),
            _ => None,
        }
    })
}

/// A process that was killed keeps its files open until its last I/O has ended.
fn is_ending(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    is_ending_by(&stat)
}

fn is_ending_by(stat: &str) -> bool {
    /// From linux/sched.h.
    const PF_EXITING: u64 = 4;
    // The name, in parentheses, may hold anything.
    let Some((_, fields)) = stat.rsplit_once(')') else { return true };
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let flags = fields.get(6).and_then(|flags| flags.parse::<u64>().ok()).unwrap_or(0);
    matches!(fields.first(), Some(&("Z" | "X"))) || flags & PF_EXITING != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_named() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 00:22:1054 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 2158 00:22:1054 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 9 00:22:1054 0 EOF\n";
        assert_eq!(holder_in(locks, "00:22:1054"), Some(2158));
        assert_eq!(holder_in(locks, "00:22:105"), None);
    }

    #[test]
    fn a_process_that_is_ending_is_told_from_one_that_lives() {
        assert!(is_ending_by("7 (a) b) Z 1 7 7 0 -1 4227084 0"));
        assert!(is_ending_by("7 (node) D 1 7 7 0 -1 4 0"));
        assert!(!is_ending_by("7 (Z) S 1 7 7 0 -1 4194304 0"));
        assert!(is_ending_by(""), "gone meanwhile");
        assert!(!is_ending(std::process::id()));
    }
}
