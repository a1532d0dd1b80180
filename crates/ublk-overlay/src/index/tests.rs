use super::*;

/// A small generator with a seed (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

const DISK: u64 = 20_000;

/// Each block for itself.
type Blocks = Vec<Option<Place>>;

fn apply(blocks: &mut Blocks, extent: Extent) {
    for block in extent.block()..extent.end() {
        blocks[usize::try_from(block).unwrap()] = Some(extent.part(block, block + 1).place());
    }
}

fn all(index: &Index) -> Blocks {
    let mut blocks = vec![None; usize::try_from(DISK).unwrap()];
    index.iter().for_each(|extent| apply(&mut blocks, extent));
    blocks
}

/// What the index says of each block, asked for one by one.
fn each(index: &Index) -> Blocks {
    let place = |block| index.with(block).map(|extent| extent.part(block, block + 1).place());
    (0..DISK).map(place).collect()
}

fn draw(random: &mut Random, layer: u32) -> Extent {
    let block = random.below(DISK);
    let count = u32::try_from((1 + random.below(20)).min(DISK - block)).unwrap();
    let place = match random.below(5) {
        0 => Place::Zero,
        _ => Place::At { layer, block: random.below(1 << 30) },
    };
    Extent::new(block, count, place)
}

#[test]
fn an_index_has_what_was_set_last_and_hears_of_all_that_went() {
    for seed in 0..40 {
        let mut random = Random(seed);
        let (mut index, mut blocks) = (Index::new(), all(&Index::new()));
        for _ in 0..2000 {
            let extent = draw(&mut random, 0);
            let before: Vec<_> = index.pieces(extent.block(), extent.end()).collect();
            let mut gone = Vec::new();
            index.set(extent, |old| gone.push(old));
            gone.sort_unstable_by_key(|old| old.block());
            let had: Vec<_> = before
                .iter()
                .filter_map(|piece| {
                    let count = u32::try_from(piece.count).unwrap();
                    Some(Extent::new(piece.block, count, piece.place?))
                })
                .collect();
            assert_eq!(gone, had, "seed {seed}");
            apply(&mut blocks, extent);
        }
        assert_eq!(all(&index), blocks, "seed {seed}");
        assert_eq!(each(&index), blocks, "seed {seed}");
        assert_eq!(index.len(), index.iter().count());
    }
}

#[test]
fn pieces_have_no_gaps_and_say_what_is_the_bases() {
    let mut random = Random(7);
    let mut index = Index::new();
    (0..500).for_each(|_| index.set(draw(&mut random, 0), drop));
    let blocks = all(&index);
    for _ in 0..500 {
        let from = random.below(DISK);
        let to = from + 1 + random.below(DISK - from);
        let mut next = from;
        for piece in index.pieces(from, to) {
            assert_eq!(piece.block, next);
            next += piece.count;
            for block in piece.block..next {
                let alone = piece.place.map(|place| {
                    Extent::new(piece.block, u32::try_from(piece.count).unwrap(), place)
                        .part(block, block + 1)
                        .place()
                });
                assert_eq!(alone, blocks[usize::try_from(block).unwrap()]);
            }
        }
        assert_eq!(next, to);
    }
}

#[test]
fn forks_share_what_neither_changes_and_never_see_each_other() {
    let mut random = Random(3);
    let mut index = Index::new();
    (0..5000).for_each(|_| index.set(draw(&mut random, 0), drop));
    let frozen = all(&index);
    let mut fork = index.clone();
    (0..1000).for_each(|_| fork.set(draw(&mut random, 1), drop));
    assert_eq!(all(&index), frozen);
    let of_the_fork = all(&fork);
    (0..1000).for_each(|_| index.set(draw(&mut random, 2), drop));
    assert_eq!(all(&fork), of_the_fork);
    assert_ne!(all(&index), of_the_fork);
}

#[test]
fn sequential_writes_become_one_extent() {
    let mut index = Index::new();
    for block in 0..1000 {
        index.set(Extent::new(block, 1, Place::At { layer: 0, block: 50 + block }), drop);
    }
    assert_eq!(index.len(), 1);
    for block in (0..1000).rev() {
        index.set(Extent::new(5000 + block, 1, Place::Zero), drop);
    }
    assert_eq!(index.iter().nth(1), Some(Extent::new(5000, 1000, Place::Zero)));
}

#[test]
fn an_index_that_loses_its_extents_is_as_new() {
    let mut index = Index::new();
    for block in 0..10_000 {
        index.set(Extent::new(2 * block, 1, Place::At { layer: 0, block }), drop);
    }
    assert_eq!(index.len(), 10_000);
    index.set(Extent::new(0, 20_000, Place::Zero), drop);
    assert_eq!(index.len(), 1);
    assert_eq!(index.pieces(0, 20_001).count(), 2);
}

#[test]
fn long_ranges_are_cut_into_runs() {
    let long = u64::from(MAX_COUNT) + 5;
    assert_eq!(runs(3, 3 + long).collect::<Vec<_>>(), [(3, MAX_COUNT), (3 + long - 5, 5)]);
    assert_eq!(runs(3, 3).count(), 0);
}
