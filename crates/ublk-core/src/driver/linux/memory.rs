//! Mapping what clients share.

use std::io;
use std::os::fd::RawFd;

use crate::driver::MemoryMap;
use crate::memory::Mapping;

pub(super) fn map(fd: RawFd, writable: bool) -> io::Result<MemoryMap> {
    let length = size(fd)?;
    let mapping = Mapping::shared(fd, length, writable)?;
    // SAFETY: exactly what is mapped; `mapping` unmaps it.
    Ok(unsafe { MemoryMap::new(mapping.base(), length, Box::new(mapping)) })
}

fn size(fd: RawFd) -> io::Result<usize> {
    // SAFETY: all zeros is a valid `stat`.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: a struct of ours; `fd` may be any number.
    if unsafe { libc::fstat(fd, &raw mut stat) } != 0 {
        return Err(io::Error::last_os_error());
    }
    usize::try_from(stat.st_size).map_err(io::Error::other)
}
