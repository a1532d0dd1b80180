//! Bases name the folders with layers that stand on them.
//!
//! An extended attribute for each folder, whose name is a number made of the folder's and whose value is the
//! folder. So nothing is lost when two are set at once. An attribute changes neither the contents of a file nor
//! the time of modification.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::super::Target;
use super::super::native::Native;
use super::chain::folder;
use super::make::Unnamed;
use crate::error::Result;

const PREFIX: &str = "user.ublk.layers.";
/// The most notes of a file, so that the list of their names is never too long for the kernel.
const MOST: usize = 1000;
/// The longest list of names of attributes, and the longest value, in bytes.
const LONGEST: usize = 64 << 10;

/// Notes at each file of a base that the layer at `path` stands on the base. A base without a place for notes
/// (another owner, a file system without such attributes, too many notes) is not guarded from other folders.
pub(super) fn note(base: &Native, path: &Path) {
    let Ok(folder) = folder(path).canonicalize() else { return };
    for &fd in base.files() {
        let own = std::fs::read_link(format!("/proc/self/fd/{fd}"));
        if own.is_ok_and(|file| file.parent() != Some(&folder)) {
            add(fd, &folder);
        }
    }
}

/// Gives a new layer on a base its name. The base is guarded before, so that a kill leaves no layer whose base does not
/// know of it.
///
/// # Errors
/// As for [`Unnamed::name`].
pub(super) fn name(made: Unnamed, base: &Native) -> Result<Uuid> {
    note(base, &made.path);
    made.name()
}

/// The folder of a file, and the folders with layers that stand on the file or a disk of which the file is a
/// part, as far as these are there.
pub(super) fn noted(path: &Path) -> Vec<PathBuf> {
    let mut all = vec![folder(path).to_owned()];
    for name in names(path).unwrap_or_default() {
        if let Some(folder) = value(path, &name).filter(|folder| folder.is_dir()) {
            all.push(folder);
        }
    }
    all
}

/// Gives a file that is about to replace another one the notes of the other.
pub(super) fn keep(from: &File, to: &File) {
    let path = PathBuf::from(format!("/proc/self/fd/{}", from.as_raw_fd()));
    for name in names(&path).unwrap_or_default() {
        if let Some(folder) = value(&path, &name) {
            // Not guarded.
            let _ = set(to.as_raw_fd(), &folder);
        }
    }
}

/// Adds a note to a file. Where a file has no room for another note, those of folders that are gone make room; they
/// stay otherwise, since a folder may lie on a file system that is not mounted now.
fn add(fd: RawFd, folder: &Path) {
    let path = PathBuf::from(format!("/proc/self/fd/{fd}"));
    let has_room = || names(&path).is_ok_and(|names| names.len() < MOST);
    if has_room() && set(fd, folder).is_ok() {
        return;
    }
    for name in names(&path).unwrap_or_default() {
        if value(&path, &name).is_none_or(|folder| !folder.is_dir()) {
            // SAFETY: a string with its NUL; the descriptor may be any number.
            unsafe { libc::fremovexattr(fd, name.as_ptr()) };
        }
    }
    if has_room() {
        // Not guarded.
        let _ = set(fd, folder);
    }
}

fn set(fd: RawFd, folder: &Path) -> io::Result<()> {
    let value = folder.as_os_str().as_bytes();
    let name = CString::new(format!("{PREFIX}{:08x}", crc32c::crc32c(value)))?;
    // SAFETY: a string with its NUL, and bytes with their length.
    let done = unsafe { libc::fsetxattr(fd, name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The attributes of ours.
fn names(path: &Path) -> io::Result<Vec<CString>> {
    let file = CString::new(path.as_os_str().as_bytes())?;
    let mut list = vec![0_u8; LONGEST];
    // SAFETY: a string with its NUL, and memory with its length.
    let length = unsafe { libc::listxattr(file.as_ptr(), list.as_mut_ptr().cast(), list.len()) };
    list.truncate(usize::try_from(length).map_err(|_| io::Error::last_os_error())?);
    let ours = list.split(|&byte| byte == 0).filter(|name| name.starts_with(PREFIX.as_bytes()));
    ours.map(|name| Ok(CString::new(name)?)).collect()
}

fn value(path: &Path, name: &CString) -> Option<PathBuf> {
    let file = CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut value = vec![0_u8; LONGEST];
    // SAFETY: two strings with their NULs, and memory with its length.
    let length = unsafe {
        libc::getxattr(file.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len())
    };
    value.truncate(usize::try_from(length).ok()?);
    let folder = PathBuf::from(OsString::from_vec(value));
    // Anybody who may write to the file may write the attribute.
    (folder.is_absolute() && folder.as_os_str() != OsStr::new("/")).then_some(folder)
}
