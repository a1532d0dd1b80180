//! Kernel structs as the bytes that travel with a command.

use ublk_sys::{ublk_params, ublk_shmem_buf_reg, ublksrv_ctrl_dev_info};

/// A struct that is nothing but numbers.
///
/// # Safety
/// Every bit pattern must be a valid value.
pub(super) unsafe trait Plain: Copy + Default {
    fn to_buffer(&self) -> Box<[u8]> {
        let mut buffer = vec![0_u8; size_of::<Self>()].into_boxed_slice();
        // SAFETY: the buffer is exactly as long; an unaligned write needs no alignment. Padding
        // may be copied: it goes to the kernel, which knows our memory anyway.
        unsafe { buffer.as_mut_ptr().cast::<Self>().write_unaligned(*self) };
        buffer
    }

    /// Bytes that are missing stay zero, as an older kernel leaves them.
    fn parse(bytes: &[u8]) -> Self {
        let mut value = Self::default();
        let length = bytes.len().min(size_of::<Self>());
        // SAFETY: `length` is within both; any bytes make a valid value by the trait's contract.
        unsafe {
            std::ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                std::ptr::from_mut(&mut value).cast(),
                length,
            );
        }
        value
    }
}

// SAFETY: integers only.
unsafe impl Plain for ublksrv_ctrl_dev_info {}
// SAFETY: integers only.
unsafe impl Plain for ublk_params {}
// SAFETY: integers only.
unsafe impl Plain for ublk_shmem_buf_reg {}
// SAFETY: an integer.
unsafe impl Plain for u64 {}
