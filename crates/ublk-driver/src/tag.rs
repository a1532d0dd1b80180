//! The tag of a request.

use std::fmt;

/// The number of a request's place in its queue, from 0 to the queue depth: the kernel gives a tag to one
/// request at a time. Structs of the kernel's ABI, and JavaScript, have the bare [`number`](Self::number).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Tag(u16);

impl Tag {
    /// The tag with this number.
    #[inline(always)]
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    /// The number, for the kernel and for JavaScript.
    #[inline(always)]
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The place in a table with an entry for each tag of a queue.
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The next tag of the queue.
    #[inline(always)]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// All tags of a queue.
    pub fn all(depth: u16) -> impl ExactSizeIterator<Item = Self> {
        (0..depth).map(Self)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
