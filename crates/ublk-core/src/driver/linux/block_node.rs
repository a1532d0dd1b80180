//! The node of a device's block device, `/dev/ublkbN`.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

/// Whether the node is the device's and this user may open the node.
///
/// It is not opened to find out: an open waits for the partition scan (in the background from Linux
/// 7.0 on), which waits for what the server answers. A server that was killed while it waits there
/// would never end: its requests are failed when its last thread has let go of `/dev/ublkcN`, and
/// the open waits for them.
pub(super) fn is_ready(id: u32) -> bool {
    let path = format!("/dev/ublkb{id}");
    let Ok(node) = fs::metadata(&path) else { return false };
    let number = Some((libc::major(node.rdev()), libc::minor(node.rdev())));
    node.file_type().is_block_device() && number_in_sysfs(id) == number && may_be_read(&path)
}

/// What lies in the place of the node and stays there: the kernel makes its node before `START_DEV`
/// answers, and not over a file (`dd` leaves one when it opens a device that has just gone).
pub(super) fn in_its_place(id: u32) -> Option<String> {
    let found = fs::symlink_metadata(format!("/dev/ublkb{id}")).ok()?.file_type();
    what_is_no_node(found).map(str::to_owned)
}

fn what_is_no_node(found: fs::FileType) -> Option<&'static str> {
    match found {
        found if found.is_block_device() => None,
        found if found.is_file() => Some("a plain file"),
        found if found.is_dir() => Some("a folder"),
        found if found.is_symlink() => Some("a symbolic link"),
        _ => Some("no block device"),
    }
}

fn number_in_sysfs(id: u32) -> Option<(u32, u32)> {
    let text = fs::read_to_string(format!("/sys/block/ublkb{id}/dev")).ok()?;
    let (major, minor) = text.trim_end().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn may_be_read(path: &str) -> bool {
    let Ok(path) = CString::new(path) else { return false };
    // SAFETY: the path is a C string that lives through the call, which only reads it.
    unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::R_OK, libc::AT_EACCESS) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_block_device_is_a_node() {
        let what = |path: &str| what_is_no_node(fs::symlink_metadata(path).unwrap().file_type());
        assert_eq!(what("/proc/self/stat"), Some("a plain file"));
        assert_eq!(what("/proc"), Some("a folder"));
        assert_eq!(what("/proc/self"), Some("a symbolic link"));
        assert_eq!(what("/dev/null"), Some("no block device"));
    }
}
