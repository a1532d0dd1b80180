//! Whether ranges of a target take space.

use std::io;

/// A range with one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// In bytes.
    pub length: u64,
    /// The range takes no space.
    pub hole: bool,
    /// The range reads as zeros.
    pub zero: bool,
    /// Of a disk with a base: the disk stores the range itself.
    pub changed: bool,
}

impl Allocation {
    /// A range that takes space.
    pub fn data(length: u64) -> Self {
        Self { length, hole: false, zero: false, changed: false }
    }

    /// A range that takes no space and reads as zeros.
    pub fn hole(length: u64) -> Self {
        Self { length, hole: true, zero: true, changed: false }
    }
}

/// Finds the state of the bytes from an offset on, of at most as many bytes as asked for and of at least
/// one. On any thread; may block.
pub type FindAllocation = dyn Fn(u64, u64) -> io::Result<Allocation> + Send + Sync;
