//! Disks that are cut into pieces: how long requests may be, so that no plan has too many steps.

use ublk_overlay::index::{Index, Piece};

/// The largest request of any device, in bytes.
const LARGEST_REQUEST: u64 = 32 << 20;
/// The shortest part of a request that the kernel cuts, in bytes: a page.
const SHORTEST_CHUNK: u64 = 4096;

/// The most steps of a plan, if the disk is cut into so many pieces.
pub(super) const MOST_STEPS: usize = 64;

/// How requests are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// No request crosses a multiple of this many bytes; 0: no such rule.
    pub(super) chunk: u64,
    /// The most steps of a request.
    pub(super) most: usize,
}

/// The disk, in the blocks of an index.
#[derive(Clone, Copy, Debug)]
pub(super) struct Disk<'a> {
    pub(super) index: &'a Index,
    pub(super) blocks: u64,
    /// Bytes of a block, a power of two up to a page.
    pub(super) block: u64,
    /// The steps of a piece in no extent, and the chunk of the target below, in bytes; 0: no such rule.
    pub(super) below: (usize, u64),
}

impl Disk<'_> {
    /// The longest parts of requests that need at most `most` steps, or the shortest parts that there are.
    pub(super) fn cut(self, most: usize) -> Cut {
        let whole = self.densest(LARGEST_REQUEST / self.block);
        if self.below.1 == 0 && whole.of_two <= most {
            return Cut { chunk: 0, most: whole.of_two };
        }
        let mut chunk = if self.below.1 == 0 { LARGEST_REQUEST } else { self.below.1 };
        loop {
            let found = self.densest(chunk / self.block);
            // A request crosses no multiple of the chunk below, if the halves are whole pages.
            if found.of_one <= most || !chunk.is_multiple_of(2 * SHORTEST_CHUNK) {
                return Cut { chunk, most: found.of_one };
            }
            chunk /= 2;
        }
    }

    fn densest(&self, window: u64) -> Densest {
        let steps = |piece: &Piece| if piece.place.is_some() { 1 } else { self.below.0 };
        let mut densest = Densest { of_one: 1, of_two: 1 };
        // The window of the last piece's end, the steps of its pieces so far, and those of the window before.
        let (mut at, mut count, mut before) = (0, 0, 0);
        for piece in self.index.pieces(0, self.blocks) {
            let first = piece.block / window;
            let last = (piece.block + piece.count - 1) / window;
            if first != at {
                (at, before, count) = (first, count, 0);
            }
            count += steps(&piece);
            densest.note(count, before);
            if last != first {
                // Windows between have this piece alone.
                before = if last == first + 1 { count } else { steps(&piece) };
                (at, count) = (last, steps(&piece));
                densest.note(count, before);
                densest.note(steps(&piece), steps(&piece));
            }
        }
        densest
    }
}

/// The most steps in one window, and in two windows beside each other.
struct Densest {
    of_one: usize,
    of_two: usize,
}

impl Densest {
    fn note(&mut self, count: usize, before: usize) {
        self.of_one = self.of_one.max(count);
        self.of_two = self.of_two.max(count + before);
    }
}

#[cfg(test)]
mod tests {
    use ublk_overlay::extent::{Extent, Place};

    use super::*;

    const END: u64 = LARGEST_REQUEST / 512;

    /// Four extents around the end of the first window.
    fn index() -> Index {
        let mut index = Index::new();
        for at in [END - 4, END - 2, END, END + 2] {
            index.set(Extent::new(at, 1, Place::At { layer: 0, block: at * 3 }), drop);
        }
        index
    }

    #[test]
    fn the_pieces_of_two_windows_beside_each_other_are_counted_together() {
        let index = index();
        let disk = Disk { index: &index, blocks: END * 3, block: 512, below: (1, 0) };
        // Four extents, three gaps between, what is before, and what is behind.
        assert_eq!(disk.cut(64), Cut { chunk: 0, most: 9 });
        assert_eq!(disk.cut(5), Cut { chunk: LARGEST_REQUEST, most: 5 });
        assert_eq!(disk.cut(2), Cut { chunk: SHORTEST_CHUNK, most: 5 });
    }

    #[test]
    fn what_is_below_counts_with_its_own_steps_and_its_own_chunk() {
        let index = index();
        let disk = Disk { index: &index, blocks: END * 3, block: 512, below: (7, 0) };
        assert_eq!(disk.cut(64), Cut { chunk: 0, most: 4 + 5 * 7 });
        let disk = Disk { below: (7, 192 << 10), ..disk };
        // All of it is in one window.
        assert_eq!(disk.cut(64), Cut { chunk: 192 << 10, most: 4 + 5 * 7 });
        assert_eq!(disk.cut(1).chunk, 12 << 10, "an odd number of pages is not halved");
    }
}
