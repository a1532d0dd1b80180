//! The nodes of an index.

use std::sync::Arc;

use crate::extent::Extent;

/// Extents of a leaf, and children of an inner node. A leaf is 2 KiB.
const MOST: usize = 128;
/// Room grows by this many entries, so that little of a node is unused.
const GROWTH: usize = 16;

/// A node: ordered by block, none but the root empty.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Leaf(Vec<Extent>),
    Inner(Vec<Child>),
}

/// A child, and a block no later than its first extent and no earlier than the end of its left
/// neighbour's last one.
#[derive(Clone, Debug)]
pub(super) struct Child {
    first: u64,
    node: Arc<Node>,
}

impl Default for Node {
    fn default() -> Self {
        Self::Leaf(Vec::new())
    }
}

impl Node {
    /// The root above two nodes.
    pub(super) fn above(first: Arc<Self>, sibling: Child) -> Self {
        Self::Inner(vec![Child { first: 0, node: first }, sibling])
    }

    /// The extent that has `block`.
    pub(super) fn with(&self, block: u64) -> Option<Extent> {
        let mut node = self;
        loop {
            match node {
                Self::Inner(children) => node = &children[child_of(children, block)].node,
                Self::Leaf(extents) => {
                    let at = extents.partition_point(|extent| extent.block() <= block);
                    let extent = *extents.get(at.wrapping_sub(1))?;
                    return (extent.end() > block).then_some(extent);
                }
            }
        }
    }

    pub(super) fn at_or_after(&self, block: u64) -> Option<Extent> {
        match self {
            Self::Leaf(extents) => {
                let at = extents.partition_point(|extent| extent.end() <= block);
                extents.get(at).copied()
            }
            Self::Inner(children) => {
                let at = child_of(children, block);
                let within = children[at].node.at_or_after(block);
                // A node is never empty, so the next one answers for sure.
                within.or_else(|| children.get(at + 1)?.node.at_or_after(block))
            }
        }
    }

    /// Adds an extent that overlaps none. Answers the new right sibling of a node that was split.
    pub(super) fn insert(node: &mut Self, extent: Extent) -> Option<Child> {
        match node {
            Self::Leaf(extents) => {
                let at = extents.partition_point(|other| other.block() < extent.block());
                let right = insert_at(extents, at, extent)?;
                Some(Child { first: right[0].block(), node: Arc::new(Self::Leaf(right)) })
            }
            Self::Inner(children) => {
                let at = child_of(children, extent.block());
                if let Some(next) = children.get_mut(at + 1) {
                    next.first = next.first.max(extent.end());
                }
                let sibling = Self::insert(Arc::make_mut(&mut children[at].node), extent)?;
                let right = insert_at(children, at + 1, sibling)?;
                Some(Child { first: right[0].first, node: Arc::new(Self::Inner(right)) })
            }
        }
    }

    /// Removes the extent that begins at `block`. Answers whether the node is empty now.
    pub(super) fn remove(node: &mut Self, block: u64) -> bool {
        match node {
            Self::Leaf(extents) => {
                let at = extents.partition_point(|extent| extent.block() < block);
                debug_assert_eq!(extents[at].block(), block);
                extents.remove(at);
                extents.is_empty()
            }
            Self::Inner(children) => {
                let at = child_of(children, block);
                if Self::remove(Arc::make_mut(&mut children[at].node), block) {
                    children.remove(at);
                }
                children.is_empty()
            }
        }
    }

    /// The child of an inner node that has no other, or an empty leaf for one that has none.
    pub(super) fn only_child(&self) -> Option<Arc<Self>> {
        match self {
            Self::Leaf(_) => None,
            Self::Inner(children) if children.is_empty() => Some(Arc::default()),
            Self::Inner(children) if children.len() == 1 => Some(children[0].node.clone()),
            Self::Inner(_) => None,
        }
    }
}

/// The child whose extents `block` lies among, or before the first.
fn child_of(children: &[Child], block: u64) -> usize {
    children.partition_point(|child| child.first <= block).saturating_sub(1)
}

/// Inserts an entry; of a full node the right part goes, which is answered. What is appended to a
/// full node begins a new one, so that sequential writes leave full nodes behind.
fn insert_at<T>(entries: &mut Vec<T>, at: usize, entry: T) -> Option<Vec<T>> {
    if entries.len() < MOST {
        if entries.len() == entries.capacity() {
            entries.reserve_exact(GROWTH);
        }
        entries.insert(at, entry);
        return None;
    }
    if at == MOST {
        return Some(vec![entry]);
    }
    let mut right = entries.split_off(MOST / 2);
    entries.shrink_to(MOST / 2 + GROWTH);
    match at.checked_sub(MOST / 2) {
        Some(at) => right.insert(at, entry),
        None => entries.insert(at, entry),
    }
    Some(right)
}
