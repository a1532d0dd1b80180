//! What `PREP_IO_CMDS` and `COMMIT_IO_CMDS` read.

use ublk_sys::{ublk_batch_io, ublk_elem_header};

use crate::buffers::Buffers;
use crate::tag::Tag;

/// What the kernel reads of one tag in `PREP_IO_CMDS` and `COMMIT_IO_CMDS`, but for the result.
#[derive(Clone, Copy, Debug)]
pub(super) struct Element {
    /// A `ublk_elem_header` whose result is 0.
    header: u64,
    /// Where to copy the next request's data, in copy mode; or where a zone append went, in
    /// sectors; else not there.
    memory: u64,
}

/// Where a `ublk_elem_header` has its result.
const RESULT_SHIFT: u32 = 32;

/// Room for elements, in the memory that the kernel reads: `words` of 8 bytes each.
#[derive(Debug)]
pub(super) struct Elements {
    words: Box<[u64]>,
    each: usize,
}

impl Element {
    pub(super) fn new(tag: Tag, buffers: &Buffers) -> Self {
        let slot = match buffers {
            Buffers::Auto { slots } => slots[tag.index()].get(),
            Buffers::Register { .. } | Buffers::GetData | Buffers::UserCopy => 0,
            Buffers::Copy(pool) => return Self::of_copy(tag, pool.at(tag.index(), 0)),
        };
        Self { header: header(tag, slot), memory: 0 }
    }

    /// Of a tag whose data the kernel copies to and from `memory`.
    pub(super) fn of_copy(tag: Tag, memory: *mut u8) -> Self {
        Self { header: header(tag, 0), memory: memory as u64 }
    }

    /// The tag's next request is to be registered in another slot.
    pub(super) fn move_slot(&mut self, tag: Tag, slot: u16) {
        self.header = header(tag, slot);
    }

    pub(super) fn set_memory(&mut self, word: u64) {
        self.memory = word;
    }
}

fn header(tag: Tag, buf_index: u16) -> u64 {
    let header = ublk_elem_header { tag: tag.number(), buf_index, result: 0 };
    u64::from_le_bytes(header.to_bytes())
}

impl Elements {
    /// Room for `count` elements of `each` words.
    pub(super) fn new(count: u16, each: usize) -> Self {
        Self { words: vec![0; usize::from(count) * each].into(), each }
    }

    /// Room for as many elements, each longer by a word.
    pub(super) fn wider(&self) -> Self {
        let count = self.words.len() / self.each;
        Self { words: vec![0; count * (self.each + 1)].into(), each: self.each + 1 }
    }

    /// The size of each, in bytes.
    #[inline]
    pub(super) fn element_bytes(&self) -> usize {
        self.each * 8
    }

    #[inline(always)]
    pub(super) fn set(&mut self, index: usize, element: &Element, result: i32) {
        let header = element.header | u64::from(result.cast_unsigned()) << RESULT_SHIFT;
        if self.each == 1 {
            self.words[index] = header.to_le();
        } else {
            self.words[2 * index] = header.to_le();
            self.words[2 * index + 1] = element.memory;
        }
    }

    /// What a command says that is about `count` of them, of a queue.
    #[inline]
    pub(super) fn described(&self, queue: u16, flags: u16, count: usize) -> ublk_batch_io {
        #[expect(clippy::cast_possible_truncation, reason = "at most 4096, and 16 bytes each")]
        let (nr_elem, elem_bytes) = (count as u16, self.element_bytes() as u8);
        ublk_batch_io { q_id: queue, flags, nr_elem, elem_bytes, ..Default::default() }
    }

    /// Where the kernel finds the element at `index`.
    #[inline]
    pub(super) fn address(&self, index: usize) -> u64 {
        // Past the end only for no element at all.
        self.words[index * self.each..].as_ptr() as u64
    }

    /// The tag and the result in an element.
    pub(super) fn get(&self, index: usize) -> (Tag, i32) {
        let bytes = self.words[index * self.each].to_ne_bytes();
        let tag = u16::from_ne_bytes([bytes[0], bytes[1]]);
        (Tag::new(tag), i32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]))
    }
}
