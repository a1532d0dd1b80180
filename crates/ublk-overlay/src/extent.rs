//! An extent: a run of blocks and the place where a layer keeps them, in 16 bytes.

/// Bytes of a block, the unit of copy-on-write.
pub const BLOCK: u64 = 4096;
/// log2 of [`BLOCK`].
pub const BLOCK_SHIFT: u32 = 12;
/// The largest number of blocks of a device, and of a layer's file: 4 PiB.
pub const MAX_BLOCKS: u64 = 1 << 40;
/// The largest number of blocks of one extent.
pub const MAX_COUNT: u32 = (1 << 24) - 1;
/// The largest number of layers that stand on each other, the live one included.
pub const MAX_LAYERS: u32 = 255;

const BLOCK_MASK: u64 = MAX_BLOCKS - 1;
const ZERO: u64 = 1 << 63;

/// Where the blocks of an extent are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: they read as zeros, whatever a lower layer or the base holds.
    Zero,
    /// In the file of a layer, from this block of the file on.
    At {
        /// The layer, counted from the base: 0 is the lowest.
        layer: u32,
        /// The first block in the layer's file.
        block: u64,
    },
}

/// A run of blocks of the device and its [`Place`].
///
/// Two words: block (40 bits) and count (24); place (40), layer (23) and the zero flag. The format
/// on disk is the same, little endian, with the layer 0.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    key: u64,
    value: u64,
}

impl std::fmt::Debug for Extent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}+{} {:?}", self.block(), self.count(), self.place())
    }
}

impl Extent {
    /// Bytes on disk.
    pub const BYTES: usize = 16;

    /// `count` blocks from `block` on, at `place`.
    ///
    /// # Panics
    /// When a number exceeds its range.
    pub fn new(block: u64, count: u32, place: Place) -> Self {
        assert!(count > 0 && count <= MAX_COUNT, "an extent of {count} blocks");
        assert!(block + u64::from(count) <= MAX_BLOCKS, "an extent at block {block}");
        let value = match place {
            Place::Zero => ZERO,
            Place::At { layer, block } => {
                assert!(block <= BLOCK_MASK && layer < MAX_LAYERS, "{place:?}");
                block | u64::from(layer) << 40
            }
        };
        Self { key: block | u64::from(count) << 40, value }
    }

    /// The first block.
    #[inline]
    pub fn block(self) -> u64 {
        self.key & BLOCK_MASK
    }

    /// The number of blocks, at least 1.
    #[inline]
    pub fn count(self) -> u32 {
        (self.key >> 40) as u32
    }

    /// The block behind the last one.
    #[inline]
    pub fn end(self) -> u64 {
        self.block() + u64::from(self.count())
    }

    /// Where the blocks are.
    #[inline]
    pub fn place(self) -> Place {
        if self.value & ZERO != 0 {
            return Place::Zero;
        }
        Place::At { layer: (self.value >> 40) as u32, block: self.value & BLOCK_MASK }
    }

    /// The layer that holds the blocks; none for zeros.
    pub fn layer(self) -> Option<u32> {
        match self.place() {
            Place::Zero => None,
            Place::At { layer, .. } => Some(layer),
        }
    }

    /// The part from block `from` up to block `to`, both inside of the extent.
    pub fn part(self, from: u64, to: u64) -> Self {
        debug_assert!(self.block() <= from && from < to && to <= self.end());
        let skipped = from - self.block();
        let place = match self.place() {
            Place::Zero => Place::Zero,
            Place::At { layer, block } => Place::At { layer, block: block + skipped },
        };
        Self::new(from, u32::try_from(to - from).unwrap_or(MAX_COUNT), place)
    }

    /// This extent and `next` as one, if `next` continues it on the device and in its place.
    pub fn joined(self, next: Self) -> Option<Self> {
        let count = self.count().checked_add(next.count()).filter(|&count| count <= MAX_COUNT)?;
        let continues = match (self.place(), next.place()) {
            (Place::Zero, Place::Zero) => true,
            (Place::At { layer: a, block: from }, Place::At { layer: b, block: to }) => {
                a == b && from + u64::from(self.count()) == to
            }
            _ => false,
        };
        (continues && self.end() == next.block())
            .then(|| Self::new(self.block(), count, self.place()))
    }

    /// The same run in another layer's file; zeros stay zeros.
    #[must_use]
    pub fn in_layer(self, layer: u32) -> Self {
        match self.place() {
            Place::Zero => self,
            Place::At { block, .. } => {
                Self::new(self.block(), self.count(), Place::At { layer, block })
            }
        }
    }

    /// The extent as a layer's file has it.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let Self { key, value } = self.in_layer(0);
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&key.to_le_bytes());
        bytes[8..].copy_from_slice(&value.to_le_bytes());
        bytes
    }

    /// What a layer's file has; none if no extent can look so.
    pub fn parse(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|index| bytes[at + index]));
        let extent = Self { key: word(0), value: word(8) };
        let placed = if extent.value & ZERO == 0 {
            (extent.value & BLOCK_MASK) + u64::from(extent.count()) <= MAX_BLOCKS
                && extent.value <= BLOCK_MASK
        } else {
            extent.value == ZERO
        };
        (placed && extent.count() > 0 && extent.end() <= MAX_BLOCKS).then_some(extent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(block: u64, count: u32, layer: u32, place: u64) -> Extent {
        Extent::new(block, count, Place::At { layer, block: place })
    }

    #[test]
    fn an_extent_keeps_its_numbers_up_to_their_limits() {
        let extent = at(MAX_BLOCKS - 7, 7, MAX_LAYERS - 1, MAX_BLOCKS - 1);
        assert_eq!((extent.block(), extent.count(), extent.end()), (MAX_BLOCKS - 7, 7, MAX_BLOCKS));
        assert_eq!(extent.place(), Place::At { layer: MAX_LAYERS - 1, block: MAX_BLOCKS - 1 });
        assert_eq!(at(0, MAX_COUNT, 0, 0).count(), MAX_COUNT);
    }

    #[test]
    fn a_part_lies_where_its_blocks_do() {
        assert_eq!(at(10, 5, 2, 100).part(12, 14), at(12, 2, 2, 102));
        assert_eq!(Extent::new(10, 5, Place::Zero).part(11, 15), Extent::new(11, 4, Place::Zero));
    }

    #[test]
    fn only_what_continues_on_both_sides_is_joined() {
        assert_eq!(at(10, 5, 2, 100).joined(at(15, 1, 2, 105)), Some(at(10, 6, 2, 100)));
        assert_eq!(at(10, 5, 2, 100).joined(at(15, 1, 2, 106)), None);
        assert_eq!(at(10, 5, 2, 100).joined(at(15, 1, 1, 105)), None);
        assert_eq!(at(10, 5, 2, 100).joined(at(16, 1, 2, 105)), None);
        assert_eq!(at(10, 5, 2, 100).joined(Extent::new(15, 1, Place::Zero)), None);
        assert_eq!(
            at(0, MAX_COUNT, 2, 0).joined(at(MAX_COUNT.into(), 1, 2, MAX_COUNT.into())),
            None
        );
    }

    #[test]
    fn bytes_that_no_extent_has_are_refused() {
        let extent = at(10, 5, 0, 100);
        assert_eq!(Extent::parse(&extent.to_bytes()), Some(extent));
        assert_eq!(at(10, 5, 7, 100).to_bytes(), extent.to_bytes());
        let zero = Extent::new(10, 5, Place::Zero);
        assert_eq!(Extent::parse(&zero.to_bytes()), Some(zero));
        assert_eq!(Extent::parse(&[0; 16]), None);
        assert_eq!(Extent::parse(&[0xff; 16]), None);
        let mut in_a_layer = extent.to_bytes();
        in_a_layer[13] = 1;
        assert_eq!(Extent::parse(&in_a_layer), None);
    }
}
