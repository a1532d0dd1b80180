//! Files that are written without a name, and get a name once they are whole.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::chain::folder;
use super::offline::kill;

/// A file without a name in the folder of `path`; gone on drop, unless the file gets a name.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE).open(folder(path))
}

/// Names the file `path`, durably. The file's contents must be durable.
///
/// # Errors
/// `AlreadyExists` when there is something of this name.
pub(super) fn link(file: &File, path: &Path) -> io::Result<()> {
    name(file, path)?;
    sync(path)
}

/// Puts the file in the place of the file at `path`, durably: at any moment, there is one or the other. The
/// file's contents must be durable.
///
/// A kill may leave a [draft](draft) beside `path`, which the next replacement removes.
pub(super) fn replace(file: &File, path: &Path) -> io::Result<()> {
    let draft = draft(path);
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    kill::point()?;
    name(file, &draft)?;
    kill::point()?;
    if let Err(error) = fs::rename(&draft, path) {
        let _ = fs::remove_file(&draft);
        return Err(error);
    }
    kill::point()?;
    sync(path)
}

/// Makes what was named or removed in the folder of `path` durable.
pub(super) fn sync(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

/// Exchanges the names of two files, in one step.
pub(super) fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    let (one, other) = (c_string(one)?, c_string(other)?);
    // SAFETY: two strings with their NULs. By number, since not every libc has the function.
    let exchanged = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            libc::AT_FDCWD,
            one.as_ptr(),
            libc::AT_FDCWD,
            other.as_ptr(),
            libc::RENAME_EXCHANGE,
        )
    };
    if exchanged == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The name of a file that is about to replace the file at `path`.
fn draft(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".draft");
    folder(path).join(name)
}

/// Whether a killed replacement has left a file of this name.
pub(super) fn is_draft(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b".") && name.as_bytes().ends_with(b".draft")
}

fn name(file: &File, path: &Path) -> io::Result<()> {
    let from = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let to = c_string(path)?;
    let (here, follow) = (libc::AT_FDCWD, libc::AT_SYMLINK_FOLLOW);
    // SAFETY: two strings with their NULs.
    match unsafe { libc::linkat(here, from.as_ptr(), here, to.as_ptr(), follow) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn c_string(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}
