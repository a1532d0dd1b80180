//! Mapping what clients share.

use std::io;
use std::os::fd::RawFd;
use std::ptr;

use crate::driver::MemoryMap;

pub(super) fn map(fd: RawFd, writable: bool) -> io::Result<MemoryMap> {
    let length = size(fd)?;
    let protection = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
    // SAFETY: a new mapping at an address of the kernel's choice.
    let base = unsafe { libc::mmap(ptr::null_mut(), length, protection, libc::MAP_SHARED, fd, 0) };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let owner = Mapping { base: base as usize, length };
    // SAFETY: exactly what mmap returned; `owner` unmaps it.
    Ok(unsafe { MemoryMap::new(base.cast(), length, Box::new(owner)) })
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

#[derive(Debug)]
struct Mapping {
    base: usize,
    length: usize,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what mmap returned; `MemoryMap` owns us and is dropped by whoever has
        // made sure that nobody uses the address any more.
        unsafe { libc::munmap(self.base as *mut libc::c_void, self.length) };
    }
}
