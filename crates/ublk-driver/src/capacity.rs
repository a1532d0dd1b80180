//! What a block device holds.

use std::mem;
use std::os::fd::RawFd;

const BLKGETSIZE64: libc::Ioctl = 0x8008_1272_u32 as libc::Ioctl;

/// As [`Ring::capacity`](crate::Ring::capacity).
pub fn capacity(file: RawFd) -> Option<u64> {
    // SAFETY: all zeros is a valid `stat`.
    let mut stat: libc::stat = unsafe { mem::zeroed() };
    // SAFETY: a struct of ours; `file` may be any number.
    let known = unsafe { libc::fstat(file, &raw mut stat) } == 0;
    if !known || stat.st_mode & libc::S_IFMT != libc::S_IFBLK {
        return None;
    }
    let mut bytes = 0_u64;
    // SAFETY: BLKGETSIZE64 stores a u64.
    let told = unsafe { libc::ioctl(file, BLKGETSIZE64, &raw mut bytes) } == 0;
    Some(if told { bytes } else { 0 })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_plain_file_has_none() {
        let file = File::open(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(capacity(file.as_raw_fd()), None);
        assert_eq!(capacity(-1), None);
    }
}
