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

fn with_bytes<const N: usize>(mut entry: Entry, at: usize, bytes: [u8; N]) -> Entry {
    // SAFETY: an entry is 64 plain bytes, checked above, any of which may have any value.
    let raw = unsafe { &mut *std::ptr::from_mut(&mut entry).cast::<[u8; 64]>() };
    raw[at..at + N].copy_from_slice(&bytes);
    entry
}

#[cfg(test)]
mod tests {
    use io_uring::opcode::{ProvideBuffers, UringCmd16};
    use io_uring::types::Fd;

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
    fn the_buffer_group_is_where_the_crate_puts_it() {
        let provided = ProvideBuffers::new(std::ptr::null_mut(), 0, 0, 0x1234, 0).build();
        let ours = with_buffer_group(UringCmd16::new(Fd(0), 0).build(), 0x1234);
        assert_eq!(raw(&provided)[BUF_GROUP..BUF_GROUP + 2], raw(&ours)[BUF_GROUP..BUF_GROUP + 2]);
    }
}
