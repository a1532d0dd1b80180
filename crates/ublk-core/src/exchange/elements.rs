//! What `PREP_IO_CMDS` and `COMMIT_IO_CMDS` read.

use ublk_sys::ublk_elem_header;

use crate::buffers::Buffers;

/// What the kernel reads of one tag in `PREP_IO_CMDS` and `COMMIT_IO_CMDS`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Element {
    header: ublk_elem_header,
    /// Where to copy the next request's data; only there in copy mode.
    memory: u64,
}

/// Room for elements, in the memory that the kernel reads: `words` of 8 bytes each.
#[derive(Debug)]
pub(super) struct Elements {
    words: Box<[u64]>,
    each: usize,
}

impl Element {
    pub(super) fn new(tag: u16, buffers: &Buffers) -> Self {
        let header = ublk_elem_header { tag, ..Default::default() };
        match buffers {
            Buffers::Auto { slots } => {
                let buf_index = slots[usize::from(tag)];
                Self { header: ublk_elem_header { buf_index, ..header }, memory: 0 }
            }
            Buffers::Register { .. } => Self { header, memory: 0 },
            Buffers::Copy(pool) => Self { header, memory: pool.at(tag, 0) as u64 },
        }
    }

    pub(super) fn move_to(&mut self, memory: *mut u8) {
        self.memory = memory as u64;
    }

    #[inline]
    pub(super) fn with(self, result: i32) -> Self {
        Self { header: ublk_elem_header { result, ..self.header }, ..self }
    }
}

impl Elements {
    /// Room for `count` elements of `each` words.
    pub(super) fn new(count: u16, each: usize) -> Self {
        Self { words: vec![0; usize::from(count) * each].into(), each }
    }

    /// The size of each, in bytes.
    #[inline]
    pub(super) fn element_bytes(&self) -> usize {
        self.each * 8
    }

    #[inline]
    pub(super) fn set(&mut self, index: usize, element: &Element) {
        let place = &mut self.words[index * self.each..][..self.each];
        place[0] = u64::from_ne_bytes(element.header.to_bytes());
        if let Some(memory) = place.get_mut(1) {
            *memory = element.memory;
        }
    }

    /// Where the kernel finds the element at `index`.
    #[inline]
    pub(super) fn address(&self, index: usize) -> u64 {
        // Past the end only for no element at all.
        self.words[index * self.each..].as_ptr() as u64
    }

    /// The tag and the result in an element.
    pub(super) fn get(&self, index: usize) -> (u16, i32) {
        let bytes = self.words[index * self.each].to_ne_bytes();
        let tag = u16::from_ne_bytes([bytes[0], bytes[1]]);
        (tag, i32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]))
    }
}
