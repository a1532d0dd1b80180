//! The nodes of a device, `/dev/ublkcN` and `/dev/ublkbN`.
//!
//! The kernel makes and removes both in a devtmpfs, before `ADD_DEV` and `START_DEV` answer. Where
//! `/dev` is something else (a container's tmpfs), or somebody has removed a node, the server makes the
//! node, and removes the node when the device is gone.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crate::driver::BlockNode;

#[derive(Clone, Copy)]
enum Kind {
    Character,
    Block,
}

impl Kind {
    fn path(self, id: u32) -> String {
        match self {
            Self::Character => format!("/dev/ublkc{id}"),
            Self::Block => format!("/dev/ublkb{id}"),
        }
    }

    /// The number that the kernel has given the device.
    fn number(self, id: u32) -> Option<(u32, u32)> {
        let path = match self {
            Self::Character => format!("/sys/class/ublk-char/ublkc{id}/dev"),
            Self::Block => format!("/sys/block/ublkb{id}/dev"),
        };
        let text = fs::read_to_string(path).ok()?;
        let (major, minor) = text.trim_end().split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    }

    /// Makes the node; the node may be there by now.
    fn make(self, id: u32) -> io::Result<()> {
        let (major, minor) = self.number(id).ok_or(io::ErrorKind::NotFound)?;
        let kind = match self {
            Self::Character => libc::S_IFCHR,
            Self::Block => libc::S_IFBLK,
        };
        let path = CString::new(self.path(id))?;
        // SAFETY: the path is a C string that lives through the call, which only reads it.
        match unsafe { libc::mknod(path.as_ptr(), kind | 0o600, libc::makedev(major, minor)) } {
            0 => Ok(()),
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                error => Err(error),
            },
        }
    }

    /// Removes a node of a device that the kernel does not have any more.
    fn remove(self, id: u32) {
        let path = self.path(id);
        let Ok(node) = fs::symlink_metadata(&path) else { return };
        let (is_node, known) = match self {
            Self::Character => (node.file_type().is_char_device(), "char"),
            Self::Block => (node.file_type().is_block_device(), "block"),
        };
        let (major, minor) = number(&node);
        if is_node && !Path::new(&format!("/sys/dev/{known}/{major}:{minor}")).exists() {
            // A node that stays leads nowhere.
            drop(fs::remove_file(path));
        }
    }
}

/// Makes `/dev/ublkcN` of a device whose node is missing.
pub(super) fn make_char(id: u32) -> io::Result<()> {
    Kind::Character.make(id)
}

/// Removes the nodes that a server has made of a device that is gone. Those of a devtmpfs are gone with
/// the device, or those of the next device, which sysfs knows.
pub(super) fn remove(id: u32) {
    Kind::Block.remove(id);
    Kind::Character.remove(id);
}

/// What is at `/dev/ublkbN` of a device that has started; a missing node is made.
///
/// The node is not opened to find out: an open waits for the partition scan (in the background from
/// Linux 7.0 on), which waits for what the server answers. A server that was killed while it waits there
/// would never end: its requests are failed when its last thread has closed `/dev/ublkcN`, and the open
/// waits for them.
pub(super) fn look_at_block(id: u32) -> BlockNode {
    let path = Kind::Block.path(id);
    let Some(ours) = Kind::Block.number(id) else { return BlockNode::NotYet };
    if let Ok(node) = fs::metadata(&path)
        && node.file_type().is_block_device()
        && number(&node) == ours
    {
        return if may_be_read(&path) { BlockNode::Ready } else { BlockNode::NotYet };
    }
    match fs::symlink_metadata(&path) {
        Ok(found) => BlockNode::Occupied(what_is_there(found.file_type()).into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match Kind::Block.make(id) {
            Ok(()) => BlockNode::NotYet,
            Err(error) => BlockNode::Missing(error),
        },
        Err(error) => BlockNode::Missing(error),
    }
}

/// What is in the place of a node and stays there. `dd` leaves a plain file when it opens a device that
/// has just gone, and the kernel makes no node over a file.
fn what_is_there(found: fs::FileType) -> &'static str {
    match found {
        found if found.is_block_device() => "the node of another device",
        found if found.is_file() => "a plain file",
        found if found.is_dir() => "a folder",
        found if found.is_symlink() => "a symbolic link",
        _ => "no block device",
    }
}

fn number(node: &fs::Metadata) -> (u32, u32) {
    (libc::major(node.rdev()), libc::minor(node.rdev()))
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
    fn what_is_no_node_of_the_device_has_a_name() {
        let what = |path: &str| what_is_there(fs::symlink_metadata(path).unwrap().file_type());
        assert_eq!(what("/proc/self/stat"), "a plain file");
        assert_eq!(what("/proc"), "a folder");
        assert_eq!(what("/proc/self"), "a symbolic link");
        assert_eq!(what("/dev/null"), "no block device");
    }
}
