//! What a killed server had published and not flushed.

use crate::extent::{Extent, MAX_COUNT, Place};
use crate::index::Index;
use crate::space::Run;

/// What the index has and the log does not have.
#[derive(Debug, Default)]
pub(crate) struct Unflushed {
    /// The extents, each block once.
    pub(crate) pending: Vec<Extent>,
    /// Where the log has the same blocks: unused once `pending` is durable, and not before.
    pub(crate) unused: Vec<Run>,
}

impl Unflushed {
    /// Puts `history`, the end of the layer's history, into the index that the log has made.
    ///
    /// The history may begin with extents that the log has, and even with such whose places were
    /// reused since. So only its outcome counts, compared with the log's: whatever part of the next
    /// flush a power cut leaves, each block is where the log has it or where the history ends.
    pub(crate) fn of(index: &mut Index, layer: u32, history: &[Extent]) -> Self {
        let logged = index.clone();
        let mut touched = Index::new();
        for extent in history {
            index.set(extent.in_layer(layer), drop);
            touched.set(Extent::new(extent.block(), extent.count(), Place::Zero), drop);
        }
        let mut this = Self::default();
        for range in touched.iter() {
            this.compare(&logged, index, layer, (range.block(), range.end()));
        }
        this
    }

    fn compare(&mut self, logged: &Index, index: &Index, layer: u32, (from, to): (u64, u64)) {
        let mut at = from;
        while at < to {
            let pieces = (index.pieces(at, to).next(), logged.pieces(at, to).next());
            let (Some(now), Some(then)) = pieces else { return };
            let count =
                u32::try_from(now.count.min(then.count)).unwrap_or(MAX_COUNT).min(MAX_COUNT);
            if let Some(place) = now.place.filter(|_| now.place != then.place) {
                self.pending.push(Extent::new(at, count, place));
                if let Some(Place::At { layer: of, block }) = then.place
                    && of == layer
                {
                    self.unused.push(Run { block, count });
                }
            }
            at += u64::from(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(block: u64, count: u32, place: u64) -> Extent {
        Extent::new(block, count, Place::At { layer: 3, block: place })
    }

    #[test]
    fn only_what_the_log_does_not_have_is_missing_and_the_logs_places_wait() {
        let mut index = Index::new();
        // The log has moved block 5 from place 100 to 200, and has reused place 100 for block 9.
        index.set(at(5, 1, 200), drop);
        index.set(at(9, 1, 100), drop);
        index.set(at(20, 4, 300), drop);
        let history = [at(5, 1, 100), at(5, 1, 200), at(9, 1, 100), at(21, 2, 400), at(22, 1, 500)];
        let missing = Unflushed::of(&mut index, 3, &history);
        assert_eq!(missing.pending, [at(21, 1, 400), at(22, 1, 500)]);
        assert_eq!(missing.unused, [Run { block: 301, count: 1 }, Run { block: 302, count: 1 }]);
        assert_eq!(index.at_or_after(5), Some(at(5, 1, 200)));
        assert_eq!(index.at_or_after(9), Some(at(9, 1, 100)));
    }
}
