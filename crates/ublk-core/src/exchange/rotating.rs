//! For finding defects: each tag's requests take turns at two slots, so that whoever still uses
//! the slot of a request that was committed finds it empty.

use crate::tag::Tag;
use std::cell::Cell;
use std::rc::Rc;

/// The slots that tags' requests are registered in by the kernel.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// Of the requests that are there, or are to come.
    slots: Rc<[Cell<u16>]>,
    /// Of those before, and after.
    others: Box<[u16]>,
}

impl Turns {
    pub(super) fn new(slots: Rc<[Cell<u16>]>, others: Box<[u16]>) -> Self {
        Self { slots, others }
    }

    /// The tag's request is about to be committed: the slot of its next.
    pub(super) fn next(&mut self, tag: Tag) -> u16 {
        let tag = tag.index();
        self.others[tag] = self.slots[tag].replace(self.others[tag]);
        self.slots[tag].get()
    }
}
