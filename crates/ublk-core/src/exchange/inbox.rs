//! The buffers that the kernel delivers tags in: a ring of provided buffers.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::driver::Ring;
use crate::memory::Mapping;
use crate::tag::Tag;

/// When all are in use the fetch ends with `ENOBUFS` and is armed again.
const BUFFERS: u16 = 64;
/// What the kernel fills at most: 128 tags of two bytes.
const BUFFER_BYTES: u32 = 256;
/// Where the tail of an `io_uring_buf_ring` lies: in the reserved field of its first entry.
const TAIL: usize = 14;
const ENTRY_BYTES: usize = 16;

#[derive(Debug)]
pub(super) struct Inbox {
    ring: Mapping,
    buffers: Mapping,
    tail: u16,
    /// Buffers are not given back any more.
    closed: bool,
}

/// Tags that have arrived in one of the buffers.
#[derive(Debug)]
pub(crate) struct Tags {
    buffer: u16,
    base: *const Tag,
    count: u16,
    /// The fetch command has ended.
    pub(super) last: bool,
}

impl Tags {
    /// How many there are.
    #[inline]
    pub(crate) fn len(&self) -> u16 {
        self.count
    }

    /// The tag at `index`.
    #[inline]
    pub(crate) fn get(&self, index: u16) -> Tag {
        assert!(index < self.count);
        // SAFETY: inside the buffer, aligned, and ours until it is given back, for which the
        // inbox takes us.
        unsafe { self.base.add(index.into()).read() }
    }
}

impl Inbox {
    pub(super) fn new() -> io::Result<Self> {
        let ring = Mapping::anonymous(ENTRY_BYTES * usize::from(BUFFERS))?;
        let buffers = Mapping::anonymous(BUFFER_BYTES as usize * usize::from(BUFFERS))?;
        Ok(Self { ring, buffers, tail: 0, closed: false })
    }

    /// The kernel gets no buffer back from now on.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Gives all buffers to the kernel, as those of `group`.
    pub(super) fn register<R: Ring>(&mut self, ring: &mut R, group: u16) -> io::Result<()> {
        // SAFETY: both mappings live as long as the exchange, which its reactor drops after the ring,
        // or after the group has been unregistered.
        unsafe { ring.register_buffer_ring(self.ring.base(), BUFFERS, group) }?;
        (0..BUFFERS).for_each(|buffer| self.give(buffer));
        Ok(())
    }

    /// What a completion of `bytes` bytes with these flags says.
    #[inline]
    pub(super) fn arrived(&self, bytes: i32, flags: u32) -> Tags {
        const MORE: u32 = 1 << 1;
        const BUFFER_SHIFT: u32 = 16;
        #[expect(clippy::cast_possible_truncation, reason = "16 bits left; at most 256 bytes")]
        #[expect(clippy::cast_sign_loss, reason = "the caller has seen that it is no error")]
        let (buffer, count) = ((flags >> BUFFER_SHIFT) as u16, (bytes / 2) as u16);
        // Without tags there is no buffer either.
        let base = if count == 0 { std::ptr::null() } else { self.buffer(buffer).cast() };
        Tags { buffer, base, count, last: flags & MORE == 0 }
    }

    /// Gives a buffer back to the kernel.
    #[inline]
    #[expect(clippy::needless_pass_by_value, reason = "nobody looks at tags that were given back")]
    pub(super) fn emptied(&mut self, tags: Tags) {
        if tags.count > 0 && !self.closed {
            self.give(tags.buffer);
        }
    }

    #[inline]
    fn give(&mut self, buffer: u16) {
        let index = usize::from(self.tail % BUFFERS) * ENTRY_BYTES;
        let address = self.buffer(buffer) as u64;
        // SAFETY: the entry lies in the ring and is ours, being beyond the tail; the tail's place,
        // the last two bytes of entry 0, is not written here.
        unsafe {
            let entry = self.ring.base().add(index);
            entry.cast::<u64>().write(address);
            entry.add(8).cast::<u32>().write(BUFFER_BYTES);
            entry.add(12).cast::<u16>().write(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: aligned, in the ring, and written by us only; the kernel reads it with acquire.
        let tail = unsafe { AtomicU16::from_ptr(self.ring.base().add(TAIL).cast()) };
        // Release: the entry is written before the kernel sees that it is there.
        tail.store(self.tail, Ordering::Release);
    }

    #[inline]
    fn buffer(&self, number: u16) -> *mut u8 {
        assert!(number < BUFFERS);
        // SAFETY: inside the mapping, just checked.
        unsafe { self.buffers.base().add(usize::from(number) * BUFFER_BYTES as usize) }
    }
}
