//! Memory of our own for requests that the kernel copies.

use std::io;
use std::sync::Arc;

use crate::bridge::Channel;
use crate::memory::{Mapping, Region};
use crate::tag::Tag;

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
    /// Each by itself; somebody else may see them too.
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

    /// `count` buffers of `stride` bytes, each of which can be exchanged.
    pub(crate) fn apart(count: u16, stride: u32) -> io::Result<Self> {
        let region = |_| Region::new(stride as usize).map(Arc::new);
        let memory = Memory::Lent((0..count).map(region).collect::<io::Result<_>>()?);
        Ok(Self { stride: stride as usize, memory })
    }

    /// Another buffer for a tag of a pool whose buffers are apart; the one that it had.
    pub(crate) fn lend(&mut self, tag: Tag, buffer: Arc<Region>) -> Option<Arc<Region>> {
        match &mut self.memory {
            Memory::Lent(lent) => Some(std::mem::replace(&mut lent[tag.index()], buffer)),
            Memory::Own(_) => None,
        }
    }

    /// How large a buffer is.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// Where the buffer with this number is, plus `offset` bytes.
    #[inline]
    pub(crate) fn at(&self, number: usize, offset: u32) -> *mut u8 {
        let (base, offset, length) = match &self.memory {
            Memory::Own(own) => {
                let offset = number * self.stride + offset as usize;
                (own.base(), offset, own.length())
            }
            Memory::Lent(lent) => {
                let region = &lent[number];
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
