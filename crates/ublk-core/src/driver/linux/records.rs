//! Records of devices: one text file per device, for the device's next server.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The folder of the records, a tmpfs: a reboot removes records and devices alike.
pub(super) const FOLDER: &str = "/run/ublk";

/// The name of a backing file in a record: the device number of a block device; the file system's
/// number and the inode of a regular file. `None` for a descriptor that is not open.
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

/// One name for all servers, since one at a time has the device: what a killed server has left is
/// replaced by the next one, and removed with the record.
fn draft(folder: &Path, id: u32) -> PathBuf {
    folder.join(format!("{id}.layout.draft"))
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
    let draft = draft(folder, id);
    let written = write(&draft, text).and_then(|()| fs::rename(&draft, path(folder, id)));
    if written.is_err() {
        // The caller gets the error of the write, whatever becomes of the draft.
        drop(fs::remove_file(&draft));
    }
    written
}

fn write(draft: &Path, text: &str) -> io::Result<()> {
    // A killed server may have left a draft. Removing the name, and creating the file anew, follows no
    // link that another user has planted.
    drop(fs::remove_file(draft));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.write_all(text.as_bytes())
}

pub(super) fn forget(folder: &Path, id: u32) {
    // A record that cannot be removed harms no later device: the record names the instance of its
    // device.
    drop(fs::remove_file(path(folder, id)));
    drop(fs::remove_file(draft(folder, id)));
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs::File;
    use std::os::unix::fs::PermissionsExt;
    use std::process;

    use super::*;

    #[test]
    fn a_record_replaces_the_previous_record_as_a_whole() {
        let folder = env::temp_dir().join(format!("ublk-records-{}", process::id()));
        assert_eq!(read(&folder, 3).unwrap(), None);
        keep(&folder, 3, "one").unwrap();
        keep(&folder, 3, "two").unwrap();
        keep(&folder, 4, "other").unwrap();
        assert_eq!(read(&folder, 3).unwrap().as_deref(), Some("two"));
        fs::write(draft(&folder, 3), "ha").unwrap();
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
