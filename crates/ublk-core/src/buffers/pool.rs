//! Memory of our own for requests that the kernel copies.

use std::io;
use std::sync::Arc;

use crate::bridge::Channel;
use crate::memory::{Mapping, Region};

/// A buffer of our own for each tag.
#[derive(Debug)]
pub(crate) struct Pool {
    stride: usize,
    memory: Memory,
}

#[derive(Debug)]
enum Memory {
    /// One buffer behind another.
    Own(Mapping),
    /// Buffers that somebody else sees too, each by itself.
    Lent(Box<[Arc<Region>]>),
}

impl Pool {
    /// `count` page-aligned buffers of `stride` bytes, zeroed, taking memory only once touched.
    pub(crate) fn new(count: u16, stride: u32) -> io::Result<Self> {
        let stride = stride as usize;
        let memory = Mapping::anonymous(usize::from(count) * stride)?;
        Ok(Self { stride, memory: Memory::Own(memory) })
    }

    /// Buffers of `stride` bytes that a channel's peer sees too.
    pub(crate) fn lent(channel: &Channel, stride: u32) -> io::Result<Self> {
        let memory = Memory::Lent(channel.make_buffers(stride)?);
        Ok(Self { stride: stride as usize, memory })
    }

    /// Another buffer for a tag of a pool that is lent.
    pub(crate) fn lend(&mut self, tag: u16, buffer: Arc<Region>) {
        if let Memory::Lent(lent) = &mut self.memory {
            lent[usize::from(tag)] = buffer;
        }
    }

    /// Where the buffer of `tag` is, plus `offset` bytes.
    #[inline]
    pub(crate) fn at(&self, tag: u16, offset: u32) -> *mut u8 {
        let (base, offset, length) = match &self.memory {
            Memory::Own(own) => {
                let offset = usize::from(tag) * self.stride + offset as usize;
                (own.base(), offset, own.length())
            }
            Memory::Lent(lent) => {
                let region = &lent[usize::from(tag)];
                (region.base(), offset as usize, region.size())
            }
        };
        assert!(offset < length);
        // SAFETY: inside the memory, just checked.
        unsafe { base.add(offset) }
    }

    /// Which buffer an address is in, of a pool of its own memory.
    pub(crate) fn index(&self, address: *mut u8) -> u16 {
        let offset = (address as usize).wrapping_sub(self.at(0, 0) as usize);
        #[expect(clippy::cast_possible_truncation, reason = "there are at most 65,535")]
        {
            (offset / self.stride) as u16
        }
    }
}
