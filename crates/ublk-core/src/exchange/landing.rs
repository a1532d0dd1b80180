//! Zoned devices: a commit says where the request's append went.

use crate::tag::Tag;
use std::cell::Cell;
use std::rc::Rc;

/// The sector of each tag's append, which the engine has left there.
#[derive(Debug)]
pub(crate) struct Landings(Rc<[Cell<u64>]>);

impl Landings {
    pub(super) fn new(sectors: Rc<[Cell<u64>]>) -> Self {
        Self(sectors)
    }

    /// The request's, once; 0 for anything but an append, which must say nothing.
    pub(super) fn take(&self, tag: Tag) -> u64 {
        self.0[tag.index()].take()
    }
}
