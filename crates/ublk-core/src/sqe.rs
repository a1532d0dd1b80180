//! What submission entries can carry and the io-uring crate cannot build.
//!
//! Its `Entry` is a `repr(C)` wrapper of the kernel's 64-byte `struct io_uring_sqe`, whose fields
//! are part of the ABI; this is the only place that reaches into it.

use io_uring::squeue::{Entry, Flags};

/// Places in `struct io_uring_sqe` (include/uapi/linux/io_uring.h).
const URING_CMD_FLAGS: usize = 28;
const BUF_GROUP: usize = 40;

const _: () = assert!(size_of::<Entry>() == 64);

/// Sets `uring_cmd_flags`.
pub(crate) fn with_command_flags(entry: Entry, flags: u32) -> Entry {
    with_bytes(entry, URING_CMD_FLAGS, flags.to_ne_bytes())
}

/// Lets the command take its buffers from `group`.
pub(crate) fn with_buffer_group(entry: Entry, group: u16) -> Entry {
    with_bytes(entry, BUF_GROUP, group.to_ne_bytes()).flags(Flags::BUFFER_SELECT)
}

/// A transfer between a fixed file and a registered buffer, made in eight stores.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer {
    pub(crate) file: u32,
    pub(crate) slot: u16,
    pub(crate) offset: u64,
    /// Where in the buffer.
    pub(crate) at: u32,
    pub(crate) length: u32,
    /// `IOSQE_*`, beside that of a fixed file.
    pub(crate) flags: u8,
}

impl Transfer {
    const READ_FIXED: u8 = 4;
    const WRITE_FIXED: u8 = 5;
    const FIXED_FILE: u8 = 1 << 0;

    #[inline(always)]
    pub(crate) fn read(self) -> Entry {
        self.entry(Self::READ_FIXED, 0)
    }

    /// With these `RWF_*`.
    #[inline(always)]
    pub(crate) fn write(self, rw_flags: u32) -> Entry {
        self.entry(Self::WRITE_FIXED, rw_flags)
    }

    #[inline(always)]
    fn entry(self, operation: u8, rw_flags: u32) -> Entry {
        let head = u64::from(operation)
            | u64::from(self.flags | Self::FIXED_FILE) << 8
            | u64::from(self.file) << 32;
        let size = u64::from(self.length) | u64::from(rw_flags) << 32;
        let words =
            [head, self.offset, self.at.into(), size, 0, self.slot.into(), 0, 0].map(u64::to_le);
        // SAFETY: an entry is 64 plain bytes, checked above, any of which may have any value.
        unsafe { std::mem::transmute::<[u64; 8], Entry>(words) }
    }
}

fn with_bytes<const N: usize>(mut entry: Entry, at: usize, bytes: [u8; N]) -> Entry {
    // SAFETY: an entry is 64 plain bytes, checked above, any of which may have any value.
    let raw = unsafe { &mut *std::ptr::from_mut(&mut entry).cast::<[u8; 64]>() };
    raw[at..at + N].copy_from_slice(&bytes);
    entry
}

#[cfg(test)]
mod tests {
    use io_uring::opcode::{ProvideBuffers, ReadFixed, UringCmd16, WriteFixed};
    use io_uring::types::{Fd, Fixed};

    use super::*;

    fn raw(entry: &Entry) -> [u8; 64] {
        // SAFETY: as in `with_bytes`.
        unsafe { std::ptr::from_ref(entry).cast::<[u8; 64]>().read() }
    }

    #[test]
    fn command_flags_are_where_the_crate_puts_its_own() {
        let fixed = UringCmd16::new(Fd(0), 0).buf_index(Some(0)).build();
        let ours =
            with_command_flags(UringCmd16::new(Fd(0), 0).build(), ublk_sys::IORING_URING_CMD_FIXED);
        assert_eq!(raw(&fixed), raw(&ours));
    }

    #[test]
    fn transfers_are_what_the_crate_makes_of_them() {
        let address = 0x1000_usize;
        let transfer =
            Transfer { file: 7, slot: 9, offset: 1 << 40, at: 0x1000, length: 8192, flags: 0 };
        let crates = ReadFixed::new(Fixed(7), std::ptr::without_provenance_mut(address), 8192, 9);
        assert_eq!(raw(&transfer.read()), raw(&crates.offset(1 << 40).build()));
        let crates = WriteFixed::new(Fixed(7), std::ptr::without_provenance(address), 8192, 9)
            .offset(1 << 40)
            .rw_flags(libc::RWF_DSYNC)
            .build()
            .flags(Flags::IO_LINK);
        let linked = Transfer { flags: Flags::IO_LINK.bits(), ..transfer };
        assert_eq!(raw(&linked.write(libc::RWF_DSYNC.cast_unsigned())), raw(&crates));
    }

    #[test]
    fn the_buffer_group_is_where_the_crate_puts_it() {
        let provided = ProvideBuffers::new(std::ptr::null_mut(), 0, 0, 0x1234, 0).build();
        let ours = with_buffer_group(UringCmd16::new(Fd(0), 0).build(), 0x1234);
        assert_eq!(raw(&provided)[BUF_GROUP..BUF_GROUP + 2], raw(&ours)[BUF_GROUP..BUF_GROUP + 2]);
    }
}
