//! `/dev/ublkcN`: opening it and mapping its descriptors.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use ublk_sys::{cmd_buf_len, cmd_buf_offset};

use super::nodes;
use crate::driver::{Descriptors, OpenFile};
use crate::memory::Mapping;

/// The devices that this process has open.
static OPEN: Mutex<BTreeMap<u32, Weak<File>>> = Mutex::new(BTreeMap::new());

/// Whether this process has the device open, and so serves it.
pub(super) fn is_open(id: u32) -> bool {
    open_files().get(&id).is_some_and(|file| file.strong_count() > 0)
}

fn open_files() -> MutexGuard<'static, BTreeMap<u32, Weak<File>>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// std opens with `O_CLOEXEC`: a child that inherits the descriptor would keep the device alive
/// (trap 34). `O_NONBLOCK` lets io_uring carry out user copies inline: the driver's file says
/// nothing of `FMODE_NOWAIT` and cannot be polled, so each would go to a worker otherwise.
pub(super) fn open(id: u32) -> io::Result<OpenFile> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
    let path = format!("/dev/ublkc{id}");
    let file = match options.open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            nodes::make_char(id)?;
            options.open(&path)?
        }
        opened => opened?,
    };
    let file = Arc::new(file);
    let mut files = open_files();
    files.retain(|_, file| file.strong_count() > 0);
    files.insert(id, Arc::downgrade(&file));
    Ok(OpenFile::new(file.as_raw_fd(), file))
}

pub(super) fn map_descriptors(
    char_device: &OpenFile,
    queue: u16,
    depth: u16,
    stride: usize,
) -> io::Result<Descriptors> {
    let page = page_size();
    let size = u16::try_from(stride).map_err(io::Error::other)?;
    let length = cmd_buf_len(depth, size, page);
    let offset =
        libc::off_t::try_from(cmd_buf_offset(queue, size, page)).map_err(io::Error::other)?;
    let mapping = Mapping::window(char_device.fd(), offset, length)?;
    let base = mapping.base().cast_const().cast();
    // SAFETY: the mapping holds `depth` descriptors and is page-aligned; `mapping` unmaps it.
    Ok(unsafe { Descriptors::new(base, stride, depth, Box::new(mapping)) })
}

fn page_size() -> usize {
    // SAFETY: sysconf only reads.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}
