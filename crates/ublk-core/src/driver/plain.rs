//! Kernel structs as the bytes that travel with a command.

use ublk_sys::{ublk_params, ublk_shmem_buf_reg, ublksrv_ctrl_dev_info};

/// A struct of integers only.
///
/// # Safety
/// Every bit pattern must be a valid value.
pub(crate) unsafe trait Plain: Copy + Default {
    fn to_buffer(&self) -> Box<[u8]> {
        let mut buffer = vec![0_u8; size_of::<Self>()].into_boxed_slice();
        // SAFETY: the buffer is exactly as long; an unaligned write needs no alignment. Padding
        // may be copied: the bytes go to the kernel, which has access to all memory of the process, or
        // stay in the process.
        unsafe { buffer.as_mut_ptr().cast::<Self>().write_unaligned(*self) };
        buffer
    }

    /// Reads a struct. Missing bytes stay zero, as an older kernel leaves such bytes.
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
