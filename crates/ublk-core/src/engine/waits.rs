//! Steps that only let time pass.

use io_uring::opcode;
use io_uring::squeue::Entry;
use io_uring::types::Timespec;

/// How long each step waits, where the kernel finds it: one place for each step of each tag.
#[derive(Debug)]
pub(super) struct Waits(Box<[Timespec]>);

impl Waits {
    pub(super) fn new(steps: usize) -> Self {
        Self(vec![Timespec::new(); steps].into())
    }

    /// The entry that lets `microseconds` pass. Its place is read when the entry is submitted, and
    /// not written before it has completed.
    #[cold]
    pub(super) fn entry(&mut self, index: usize, microseconds: u32) -> Entry {
        let nanoseconds = microseconds % 1_000_000 * 1000;
        self.0[index] = Timespec::new().sec((microseconds / 1_000_000).into()).nsec(nanoseconds);
        opcode::Timeout::new(&raw const self.0[index]).build()
    }
}
