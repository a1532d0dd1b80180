//! Disks that are cut into pieces: how long requests may be, so that no plan has too many steps.

use ublk_overlay::extent::Place;
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
        let (below, chunk) = self.below;
        let longest = if chunk == 0 { LARGEST_REQUEST } else { chunk };
        let chunks: Vec<_> = chunks(longest).collect();
        let mut windows: Vec<_> =
            chunks.iter().map(|chunk| Window::new(chunk / self.block)).collect();
        for piece in self.index.pieces(0, self.blocks) {
            let steps = if piece.place.is_some() { 1 } else { below };
            windows.iter_mut().for_each(|window| window.add(&piece, steps));
        }
        let whole = windows[0].most_of_two;
        if chunk == 0 && whole <= most {
            return Cut { chunk: 0, most: whole };
        }
        let fits = windows.iter().position(|window| window.most <= most);
        let at = fits.unwrap_or(windows.len() - 1);
        Cut { chunk: chunks[at], most: windows[at].most }
    }
}

/// Shorter and shorter chunks down to a page, each a divisor of the one before: no request crosses a multiple of the
/// longest one.
fn chunks(longest: u64) -> impl Iterator<Item = u64> {
    std::iter::successors(Some(longest), |chunk| {
        let pages = chunk / SHORTEST_CHUNK;
        let divisor = (2..=pages).find(|&divisor| pages.is_multiple_of(divisor))?;
        Some(chunk / divisor)
    })
}

/// Steps in windows of so many blocks beside each other.
struct Window {
    blocks: u64,
    /// The window of the last piece's end, the steps of its pieces so far, and those of the window before.
    at: u64,
    count: usize,
    before: usize,
    /// The most steps in one window, and in two windows beside each other.
    most: usize,
    most_of_two: usize,
}

impl Window {
    fn new(blocks: u64) -> Self {
        Self { blocks, at: 0, count: 0, before: 0, most: 1, most_of_two: 1 }
    }

    /// The next piece of the disk, of so many steps.
    fn add(&mut self, piece: &Piece, steps: usize) {
        let first = piece.block / self.blocks;
        let last = (piece.block + piece.count - 1) / self.blocks;
        if first != self.at {
            (self.at, self.before, self.count) = (first, self.count, 0);
        }
        self.count += steps;
        self.note(self.count, self.before);
        if last != first {
            // Windows between have this piece alone.
            self.before = if last == first + 1 { self.count } else { steps };
            (self.at, self.count) = (last, steps);
            self.note(self.count, self.before);
            self.note(steps, steps);
        }
    }

    fn note(&mut self, count: usize, before: usize) {
        self.most = self.most.max(count);
        self.most_of_two = self.most_of_two.max(count + before);
    }
}

/// The range from byte `offset` on, at most `length` bytes, that is in one piece of an index with blocks of `block` bytes:
/// the length, at least 1, and the place of the piece.
pub(super) fn first(index: &Index, block: u64, offset: u64, length: u64) -> (u64, Option<Place>) {
    let (from, to) = (offset / block, (offset + length).div_ceil(block));
    let Some(piece) = index.pieces(from, to).next() else { return (length, None) };
    let end = (piece.block + piece.count) * block;
    (length.min(end.saturating_sub(offset).max(1)), piece.place)
}

#[cfg(test)]
mod tests {
    use ublk_overlay::extent::Extent;

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
        assert_eq!(disk.cut(1).chunk, SHORTEST_CHUNK, "as short as requests can be");
        // 63 stripes, which cannot be halved, and every second page a piece.
        let mut index = Index::new();
        for at in 0..63 {
            index.set(Extent::new(at * 2, 1, Place::At { layer: 0, block: at * 3 }), drop);
        }
        let disk = Disk { index: &index, blocks: 126, block: 4096, below: (63, 63 << 12) };
        assert_eq!(disk.cut(64), Cut { chunk: SHORTEST_CHUNK, most: 63 });
        assert_eq!(
            Disk { below: (3, 63 << 12), ..disk }.cut(64),
            Cut { chunk: 21 << 12, most: 43 }
        );
    }
}
