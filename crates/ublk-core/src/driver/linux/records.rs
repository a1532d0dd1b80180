//! Texts about devices that outlive the process that wrote them, and what they name things by.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;

/// Where they lie, gone with the devices when the machine restarts.
pub(super) const FOLDER: &str = "/run/ublk";

/// A block device by its number, a file by that of its file system and its inode.
pub(super) fn identity(fd: RawFd) -> Option<String> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: fstat fills `stat`, or fails.
    if unsafe { libc::fstat(fd, stat.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: fstat has succeeded.
    let stat = unsafe { stat.assume_init() };
    Some(match stat.st_mode & libc::S_IFMT {
        libc::S_IFBLK => format!("block/{}", stat.st_rdev),
        _ => format!("file/{}/{}", stat.st_dev, stat.st_ino),
    })
}

fn path(folder: &Path, id: u32) -> PathBuf {
    folder.join(format!("{id}.layout"))
}

pub(super) fn read(folder: &Path, id: u32) -> io::Result<Option<String>> {
    match fs::read_to_string(path(folder, id)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

pub(super) fn keep(folder: &Path, id: u32, text: &str) -> io::Result<()> {
    if let Err(error) = DirBuilder::new().mode(0o700).create(folder)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(error);
    }
    let draft = folder.join(format!("{id}.layout.{}", process::id()));
    let written = write(&draft, text).and_then(|()| fs::rename(&draft, path(folder, id)));
    if written.is_err() {
        // The error that is told is the one that was first.
        drop(fs::remove_file(&draft));
    }
    written
}

fn write(draft: &Path, text: &str) -> io::Result<()> {
    // What a process of the same number has left; never what lies at the end of a link.
    drop(fs::remove_file(draft));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.write_all(text.as_bytes())
}

pub(super) fn forget(folder: &Path, id: u32) {
    // One that stays says by its instance that it belongs to no device any more.
    drop(fs::remove_file(path(folder, id)));
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs::File;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_text_replaces_the_one_before_as_a_whole() {
        let folder = env::temp_dir().join(format!("ublk-records-{}", process::id()));
        assert_eq!(read(&folder, 3).unwrap(), None);
        keep(&folder, 3, "one").unwrap();
        keep(&folder, 3, "two").unwrap();
        keep(&folder, 4, "other").unwrap();
        assert_eq!(read(&folder, 3).unwrap().as_deref(), Some("two"));
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        forget(&folder, 3);
        assert_eq!(read(&folder, 3).unwrap(), None);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "no draft is left");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_file_keeps_its_identity_under_another_name() {
        use std::os::fd::AsRawFd;
        let folder = env::temp_dir().join(format!("ublk-identity-{}", process::id()));
        fs::create_dir(&folder).unwrap();
        let one = File::create_new(folder.join("one")).unwrap();
        let other = File::create_new(folder.join("other")).unwrap();
        fs::rename(folder.join("one"), folder.join("moved")).unwrap();
        let again = File::open(folder.join("moved")).unwrap();
        assert_eq!(identity(one.as_raw_fd()), identity(again.as_raw_fd()));
        assert_ne!(identity(one.as_raw_fd()), identity(other.as_raw_fd()));
        assert_eq!(identity(-1), None);
        fs::remove_dir_all(&folder).unwrap();
    }
}
