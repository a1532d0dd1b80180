//! Memory of the server that the model touches: copy buffers, whose addresses came with FETCH and
//! COMMIT, shared memory, and what reads and writes name.

use std::sync::Weak;

use crate::driver::sim::model::Model;
use crate::driver::sim::ublk_drv::device::OWNED_BY_SRV;

impl Model {
    /// Whether an operation may use this memory: it lies in the copy buffer of a tag whose request
    /// the server has, in shared memory, or in memory of a target. With user copy or get-data the driver knows of no
    /// buffers, and any memory may be one.
    pub(crate) fn may_use_memory(&self, address: u64, length: u32) -> bool {
        let Some(end) = address.checked_add(u64::from(length)) else { return false };
        if self.devices.iter().any(|device| device.user_copies() || device.needs_get_data()) {
            return true;
        }
        if self.shared_at(address, length) || self.is_of_target(address, end) {
            return true;
        }
        self.devices.iter().filter(|device| device.copies()).any(|device| {
            let size = u64::from(device.info.max_io_buf_bytes);
            device.queues.iter().flat_map(|queue| &queue.ios).any(|io| {
                let owned = io.flags & OWNED_BY_SRV != 0 && io.buf != 0;
                owned && address >= io.buf && end <= io.buf + size
            })
        })
    }

    fn is_of_target(&self, address: u64, end: u64) -> bool {
        self.target_memory.iter().filter_map(Weak::upgrade).any(|memory| {
            let bytes = memory.addresses();
            address >= bytes.start as u64 && end <= bytes.end as u64
        })
    }
}

/// Writes into the server's memory.
pub(crate) fn store(address: u64, bytes: &[u8]) {
    // SAFETY: either the server named this buffer in a command, and with it promised, by
    // `Ring::push`, that it stays valid until the command completes; or `may_use_memory` has found
    // it within such a buffer. `bytes` is the model's own.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
}

/// Reads from the server's memory.
pub(crate) fn load(address: u64, bytes: &mut [u8]) {
    // SAFETY: as in `store`.
    unsafe { std::ptr::copy_nonoverlapping(address as *const u8, bytes.as_mut_ptr(), bytes.len()) };
}
