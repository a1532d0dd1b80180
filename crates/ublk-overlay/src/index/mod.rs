//! Where each block of a disk is: a B+ tree of extents whose nodes are shared between the indexes
//! of forks. To fork is to clone the root; a node is copied when one of its owners changes it.

use std::sync::Arc;

use crate::extent::{Extent, MAX_COUNT, Place};

mod node;

use node::Node;

/// The extents of all layers of a disk, each block in the highest layer that has it. Blocks in no
/// extent are the base's.
#[derive(Clone, Debug, Default)]
pub struct Index {
    root: Arc<Node>,
    extents: usize,
}

/// A part of a range, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The first block.
    pub block: u64,
    /// The number of blocks.
    pub count: u64,
    /// Where they are; none: in the base.
    pub place: Option<Place>,
}

impl Index {
    /// An index without extents: everything is the base's.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of extents.
    pub fn len(&self) -> usize {
        self.extents
    }

    /// Whether all blocks are the base's.
    pub fn is_empty(&self) -> bool {
        self.extents == 0
    }

    /// The extent that has `block`, or else the next one behind it.
    #[inline]
    pub fn at_or_after(&self, block: u64) -> Option<Extent> {
        self.root.at_or_after(block)
    }

    /// The extent that has `block`.
    #[inline]
    pub fn with(&self, block: u64) -> Option<Extent> {
        self.root.with(block)
    }

    /// The pieces of the range `from..to`, in order, without gaps.
    pub fn pieces(&self, from: u64, to: u64) -> impl Iterator<Item = Piece> + '_ {
        let mut at = from;
        std::iter::from_fn(move || {
            if at >= to {
                return None;
            }
            let found = self.at_or_after(at).filter(|extent| extent.block() < to);
            let piece = match found {
                Some(extent) if extent.block() <= at => {
                    let part = extent.part(at, extent.end().min(to));
                    Piece { block: at, count: part.count().into(), place: Some(part.place()) }
                }
                Some(extent) => Piece { block: at, count: extent.block() - at, place: None },
                None => Piece { block: at, count: to - at, place: None },
            };
            at += piece.count;
            Some(piece)
        })
    }

    /// All extents, in the order of their blocks.
    pub fn iter(&self) -> impl Iterator<Item = Extent> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            let extent = self.at_or_after(at)?;
            at = extent.end();
            Some(extent)
        })
    }

    /// Puts `extent` in the place of all that its blocks had; `replaced` hears of the parts that
    /// are no longer in the index.
    pub fn set(&mut self, extent: Extent, mut replaced: impl FnMut(Extent)) {
        let (from, to) = (extent.block(), extent.end());
        while let Some(old) = self.at_or_after(from).filter(|old| old.block() < to) {
            self.remove(old);
            replaced(old.part(old.block().max(from), old.end().min(to)));
            if old.block() < from {
                self.insert(old.part(old.block(), from));
            }
            if old.end() > to {
                self.insert(old.part(to, old.end()));
            }
        }
        let joined = self.join_neighbours(extent);
        self.insert(joined);
    }

    /// Removes the extents before and behind that continue `extent`; answers all as one.
    fn join_neighbours(&mut self, extent: Extent) -> Extent {
        let mut joined = extent;
        let before = extent.block().checked_sub(1).and_then(|block| self.at_or_after(block));
        if let Some((old, whole)) = before.and_then(|old| Some((old, old.joined(joined)?))) {
            self.remove(old);
            joined = whole;
        }
        let behind = self.at_or_after(extent.end());
        if let Some((old, whole)) = behind.and_then(|old| Some((old, joined.joined(old)?))) {
            self.remove(old);
            joined = whole;
        }
        joined
    }

    fn insert(&mut self, extent: Extent) {
        self.extents += 1;
        if let Some(sibling) = Node::insert(Arc::make_mut(&mut self.root), extent) {
            let first = std::mem::take(&mut self.root);
            self.root = Arc::new(Node::above(first, sibling));
        }
    }

    fn remove(&mut self, extent: Extent) {
        self.extents -= 1;
        Node::remove(Arc::make_mut(&mut self.root), extent.block());
        while let Some(only) = self.root.only_child() {
            self.root = only;
        }
    }
}

/// Runs of at most [`MAX_COUNT`] blocks that make up `from..to`.
pub(crate) fn runs(from: u64, to: u64) -> impl Iterator<Item = (u64, u32)> {
    let mut at = from;
    std::iter::from_fn(move || {
        let count = u32::try_from(to - at).unwrap_or(MAX_COUNT).min(MAX_COUNT);
        let run = (count > 0).then_some((at, count));
        at += u64::from(count);
        run
    })
}

#[cfg(test)]
mod tests;
