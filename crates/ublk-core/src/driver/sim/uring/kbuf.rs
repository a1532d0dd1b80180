//! Rings of provided buffers (io_uring/kbuf.c), from which a multishot command takes what it
//! answers in.

use std::ptr;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::driver::sim::model::Model;
use crate::driver::sim::violation::Rule;

/// Bytes of a `struct io_uring_buf`.
const ENTRY: usize = 16;
/// Where `struct io_uring_buf_ring` has its tail: in what the first entry leaves unused.
const TAIL: usize = 14;
const CQE_F_BUFFER: u32 = 1;
const CQE_BUFFER_SHIFT: u32 = 16;

/// A registered buffer ring of the server.
#[derive(Debug)]
pub(crate) struct BufferGroup {
    /// The address of an `io_uring_buf_ring`.
    base: usize,
    entries: u16,
    head: u16,
}

/// A buffer that was found, and still is in its ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Selected {
    pub(crate) address: u64,
    pub(crate) length: u32,
    id: u16,
}

impl Selected {
    /// What a completion says of the buffer that it uses up.
    pub(crate) fn flags(&self) -> u32 {
        CQE_F_BUFFER | u32::from(self.id) << CQE_BUFFER_SHIFT
    }
}

impl BufferGroup {
    /// # Safety
    /// `ring`, aligned to pages, must be `entries` entries long and outlive this.
    pub(crate) unsafe fn new(ring: *mut u8, entries: u16) -> Self {
        Self { base: ring.expose_provenance(), entries, head: 0 }
    }

    fn tail(&self) -> u16 {
        let tail = ptr::with_exposed_provenance_mut::<u16>(self.base + TAIL);
        // SAFETY: within the ring by `new`'s contract, and aligned; the server writes it as an
        // atomic, too. Acquire pairs with the server's release: the entries that it announces are
        // there.
        unsafe { AtomicU16::from_ptr(tail) }.load(Ordering::Acquire)
    }

    fn first(&self) -> Selected {
        let at = usize::from(self.head & (self.entries - 1)) * ENTRY;
        let entry = ptr::with_exposed_provenance::<u8>(self.base + at);
        // SAFETY: within the ring by `new`'s contract, each field aligned as in the kernel's
        // struct. The server writes no entry that it has announced.
        unsafe {
            Selected {
                address: entry.cast::<u64>().read_volatile(),
                length: entry.add(8).cast::<u32>().read_volatile(),
                id: entry.add(12).cast::<u16>().read_volatile(),
            }
        }
    }
}

impl Model {
    /// io_buffer_select, for a buffer whose use is not certain yet.
    pub(crate) fn select_buffer(&mut self, ring: usize, group: u16) -> Option<Selected> {
        let found = self.ring(ring).groups.get(&group)?;
        let offered = found.tail().wrapping_sub(found.head);
        if offered == 0 {
            return None;
        }
        let (entries, selected) = (found.entries, found.first());
        if offered > entries {
            let what = format!("{offered} buffers in group {group}, a ring of {entries}");
            self.violate(Rule::Operation, what);
        }
        Some(selected)
    }

    /// io_kbuf_commit.
    pub(crate) fn use_buffer(&mut self, ring: usize, group: u16) {
        if let Some(found) = self.ring(ring).groups.get_mut(&group) {
            found.head = found.head.wrapping_add(1);
        }
    }
}
