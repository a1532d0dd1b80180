//! The metadata contexts that a client may choose for `BLOCK_STATUS`.

use crate::wire::{allocation, bitmap};

/// The number of the context `base:allocation` in replies.
pub const ALLOCATION: u32 = 1;
/// The number of the context `qemu:dirty-bitmap:diff` in replies.
pub const DIFF: u32 = 2;

/// A choice of metadata contexts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contexts {
    /// `base:allocation`
    pub allocation: bool,
    /// `qemu:dirty-bitmap:diff`
    pub diff: bool,
}

impl Contexts {
    /// Whether no context is chosen.
    pub fn are_none(self) -> bool {
        self == Self::default()
    }

    /// The numbers and names of the chosen contexts.
    pub(super) fn named(self) -> impl Iterator<Item = (u32, &'static str)> {
        let all =
            [(self.allocation, ALLOCATION, allocation::CONTEXT), (self.diff, DIFF, bitmap::DIFF)];
        all.into_iter().filter(|(chosen, ..)| *chosen).map(|(_, id, name)| (id, name))
    }
}
