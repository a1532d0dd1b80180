//! The first two blocks of a layer's file: the kind of the layer and the beginning of the log.
//!
//! The newer valid superblock counts. A new superblock replaces the older, so a write torn by a
//! power cut leaves the other.

use uuid::Uuid;

use crate::extent::{BLOCK, MAX_BLOCKS};

/// The number of superblocks, and the number of blocks of a file without data.
pub const SUPERBLOCKS: u64 = 2;
/// Bytes of a block, as an array length.
pub const PAGE: usize = 4096;
/// A block of a layer's file.
pub type Page = [u8; PAGE];

const MAGIC: [u8; 16] = *b"ublk overlay\r\n\x1a\0";
const VERSION: u32 = 1;
const FROZEN: u32 = 1;
const HAS_PARENT: u32 = 2;
const IN_USE: u32 = 4;
const COMMITTING: u32 = 8;
/// The place of the block's CRC32C; computed with zeros there.
const CRC: std::ops::Range<usize> = 20..24;
/// Where the size of a logical block lies.
const LOGICAL_BLOCK: std::ops::Range<usize> = 100..104;
/// Where the name of the parent's file lies, after the length of the name.
const NAME: usize = 128;
/// Where the boot and the history of [`InUse`] lie, behind the name.
const BOOT: usize = 384;
const HISTORY: usize = 400;
/// Where the identity of the disk lies, behind the history.
const DISK: usize = 408;

/// The parent of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// The parent layer.
    pub layer: Uuid,
    /// The parent's generation at the freeze.
    pub generation: u64,
    /// The name of the parent's file, in the folder of the layer's file.
    pub file: FileName,
}

/// The name of a file, without the folder: from 1 to 255 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FileName {
    length: u8,
    bytes: [u8; 255],
}

impl FileName {
    /// A name of `bytes`; none if no file can have the name.
    pub fn new(name: &[u8]) -> Option<Self> {
        let length = u8::try_from(name.len()).ok().filter(|&length| length > 0)?;
        let folder = name == b"." || name == b"..";
        if folder || name.iter().any(|&byte| byte == b'/' || byte == 0) {
            return None;
        }
        let mut bytes = [0; 255];
        bytes[..name.len()].copy_from_slice(name);
        Some(Self { length, bytes })
    }

    /// The bytes of the name.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl std::fmt::Debug for FileName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        String::from_utf8_lossy(self.bytes()).fmt(f)
    }
}

/// A server has opened the layer and has not closed the layer. The file may lack answered writes: the
/// server's history has the places of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InUse {
    /// The boot of the server's machine.
    pub boot: [u8; 16],
    /// The number of the server's history: random.
    pub history: u64,
}

/// The description of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Counts the superblocks written; the larger of two counts.
    pub generation: u64,
    /// The layer's identity.
    pub layer: Uuid,
    /// The disk's identity: the same for all live layers of a disk since the disk was made or
    /// forked.
    pub disk: Uuid,
    /// The layer below; none: the base.
    pub parent: Option<Parent>,
    /// The size of the disk, in blocks.
    pub blocks: u64,
    /// The logical block of the disk, in bytes: 512, 1024, 2048 or 4096. The unit of requests, whatever the
    /// layers keep.
    pub logical_block: u32,
    /// Nothing is written to the layer any more.
    pub frozen: bool,
    /// log2 of the blocks of a segment.
    pub segment_shift: u32,
    /// The first segment of the log.
    pub log: u32,
    /// The predecessor named in the first block of the log: a random number.
    pub salt: u64,
    /// When the files of the base were last modified, in nanoseconds since 1970; 0 for a base without
    /// such a time.
    pub base_modified: i64,
    /// The server that has not closed the layer; none: the log names every published block.
    pub in_use: Option<InUse>,
    /// The layer's blocks are on their way into the base, so the base has another time of modification
    /// than `base_modified`. The layer still has all of these blocks.
    pub committing: bool,
}

/// Why a block is no superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Something else lies there.
    #[error("no superblock of an overlay")]
    Foreign,
    /// A newer version of this software has written it.
    #[error("version {0} of the overlay format; this software knows version {VERSION}")]
    Newer(u32),
    /// The checksum does not fit the contents, or a number is impossible.
    #[error("a damaged superblock")]
    Damaged,
}

impl Superblock {
    /// The block of the file where this superblock belongs.
    pub fn place(&self) -> u64 {
        self.generation % SUPERBLOCKS
    }

    /// The blocks of a segment.
    pub fn segment_blocks(&self) -> u64 {
        1 << self.segment_shift
    }

    /// The block in the format of the file.
    pub fn to_page(&self) -> Page {
        let mut page = [0; PAGE];
        let flags = if self.frozen { FROZEN } else { 0 }
            | self.parent.map_or(0, |_| HAS_PARENT)
            | self.in_use.map_or(0, |_| IN_USE)
            | if self.committing { COMMITTING } else { 0 };
        page[..16].copy_from_slice(&MAGIC);
        page[16..20].copy_from_slice(&VERSION.to_le_bytes());
        page[24..28].copy_from_slice(&flags.to_le_bytes());
        page[28..32].copy_from_slice(&self.segment_shift.to_le_bytes());
        page[32..40].copy_from_slice(&self.generation.to_le_bytes());
        page[40..56].copy_from_slice(self.layer.as_bytes());
        if let Some(Parent { layer, generation, file }) = self.parent {
            page[56..72].copy_from_slice(layer.as_bytes());
            page[72..80].copy_from_slice(&generation.to_le_bytes());
            page[NAME] = file.length;
            page[NAME + 1..=NAME + file.bytes.len()].copy_from_slice(&file.bytes);
        }
        if let Some(InUse { boot, history }) = self.in_use {
            page[BOOT..HISTORY].copy_from_slice(&boot);
            page[HISTORY..DISK].copy_from_slice(&history.to_le_bytes());
        }
        page[DISK..DISK + 16].copy_from_slice(self.disk.as_bytes());
        page[80..88].copy_from_slice(&self.blocks.to_le_bytes());
        page[88..96].copy_from_slice(&self.salt.to_le_bytes());
        page[96..100].copy_from_slice(&self.log.to_le_bytes());
        page[LOGICAL_BLOCK].copy_from_slice(&self.logical_block.to_le_bytes());
        page[104..112].copy_from_slice(&self.base_modified.to_le_bytes());
        let crc = crc32c::crc32c(&page);
        page[CRC].copy_from_slice(&crc.to_le_bytes());
        page
    }

    /// Reads a block of the file.
    ///
    /// # Errors
    /// The reason why the block is no superblock.
    pub fn parse(page: &Page) -> Result<Self, Unfit> {
        if page[..16] != MAGIC {
            return Err(Unfit::Foreign);
        }
        let u32_at = |at| u32::from_le_bytes(bytes(page, at));
        let u64_at = |at| u64::from_le_bytes(bytes(page, at));
        let mut without_crc = *page;
        without_crc[CRC].fill(0);
        if crc32c::crc32c(&without_crc) != u32_at(CRC.start) {
            return Err(Unfit::Damaged);
        }
        if u32_at(16) != VERSION {
            return Err(Unfit::Newer(u32_at(16)));
        }
        let flags = u32_at(24);
        let parent = match flags & HAS_PARENT {
            0 => None,
            _ => {
                let name = &page[NAME + 1..=NAME + usize::from(page[NAME])];
                let file = FileName::new(name).ok_or(Unfit::Damaged)?;
                let layer = Uuid::from_bytes(bytes(page, 56));
                Some(Parent { layer, generation: u64_at(72), file })
            }
        };
        let (layer, disk) =
            (Uuid::from_bytes(bytes(page, 40)), Uuid::from_bytes(bytes(page, DISK)));
        let superblock = Self {
            generation: u64_at(32),
            layer,
            // A layer written by a version without this field was the disk's first layer.
            disk: if disk.is_nil() { layer } else { disk },
            parent,
            blocks: u64_at(80),
            logical_block: logical_block(u32_at(LOGICAL_BLOCK.start)).ok_or(Unfit::Damaged)?,
            frozen: flags & FROZEN != 0,
            segment_shift: u32_at(28),
            log: u32_at(96),
            salt: u64_at(88),
            base_modified: i64::from_le_bytes(bytes(page, 104)),
            in_use: (flags & IN_USE != 0)
                .then(|| InUse { boot: bytes(page, BOOT), history: u64_at(HISTORY) }),
            committing: flags & COMMITTING != 0,
        };
        let sane = superblock.blocks > 0
            && superblock.blocks <= MAX_BLOCKS
            && (2..=20).contains(&superblock.segment_shift)
            && flags & !(FROZEN | HAS_PARENT | IN_USE | COMMITTING) == 0;
        if sane { Ok(superblock) } else { Err(Unfit::Damaged) }
    }

    /// The valid superblock of a file with these first two blocks.
    ///
    /// # Errors
    /// Why neither says anything.
    pub fn newest(pages: &[Page; 2]) -> Result<Self, Unfit> {
        match (Self::parse(&pages[0]), Self::parse(&pages[1])) {
            (Ok(a), Ok(b)) => Ok(if a.generation > b.generation { a } else { b }),
            // A superblock of a newer software version is not passed over in favour of the
            // superblock before.
            (_, Err(Unfit::Newer(version))) | (Err(Unfit::Newer(version)), _) => {
                Err(Unfit::Newer(version))
            }
            (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(one),
            (Err(Unfit::Foreign), Err(other)) | (Err(other), Err(_)) => Err(other),
        }
    }
}

/// The size of a logical block in the format of the file, where 0 is a block; none for an impossible size.
pub fn logical_block(bytes: u32) -> Option<u32> {
    match bytes {
        0 => Some(4096),
        512 | 1024 | 2048 | 4096 => Some(bytes),
        _ => None,
    }
}

/// The size of a disk in blocks; none for an impossible size.
pub fn blocks_of(bytes: u64) -> Option<u64> {
    let blocks = bytes / BLOCK;
    (bytes.is_multiple_of(BLOCK) && blocks > 0 && blocks <= MAX_BLOCKS).then_some(blocks)
}

fn bytes<const N: usize>(page: &Page, at: usize) -> [u8; N] {
    std::array::from_fn(|index| page[at + index])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superblock(generation: u64) -> Superblock {
        Superblock {
            generation,
            layer: Uuid::from_u128(7),
            disk: Uuid::from_u128(5),
            parent: Some(Parent {
                layer: Uuid::from_u128(6),
                generation: 3,
                file: FileName::new(b"below.layer").unwrap(),
            }),
            blocks: 1000,
            logical_block: 512,
            frozen: true,
            segment_shift: 8,
            log: 5,
            salt: 99,
            base_modified: 1_790_000_000_123_456_789,
            in_use: Some(InUse { boot: [8; 16], history: u64::MAX - 9 }),
            committing: true,
        }
    }

    #[test]
    fn a_superblock_says_what_was_written() {
        let root = Superblock {
            parent: None,
            frozen: false,
            in_use: None,
            committing: false,
            logical_block: 4096,
            ..superblock(1)
        };
        for written in [superblock(4), root] {
            assert_eq!(Superblock::parse(&written.to_page()), Ok(written));
        }
    }

    #[test]
    fn a_layer_that_names_no_disk_is_of_its_own() {
        let mut page = Superblock { disk: Uuid::nil(), ..superblock(4) }.to_page();
        let read = Superblock::parse(&page).unwrap();
        assert_eq!(read.disk, read.layer);
        page[DISK] ^= 1;
        assert_eq!(Superblock::parse(&page), Err(Unfit::Damaged));
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let page = superblock(4).to_page();
        for bit in 0..8 * (DISK + 16) {
            let mut flipped = page;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Superblock::parse(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn the_newer_valid_one_counts() {
        let (old, new) = (superblock(4).to_page(), superblock(5).to_page());
        assert_eq!(Superblock::newest(&[old, new]).unwrap().generation, 5);
        assert_eq!(Superblock::newest(&[new, old]).unwrap().generation, 5);
        let mut torn = new;
        torn[40] ^= 1;
        assert_eq!(Superblock::newest(&[old, torn]).unwrap().generation, 4);
        assert_eq!(Superblock::newest(&[[0; PAGE], torn]), Err(Unfit::Damaged));
        assert_eq!(Superblock::newest(&[[0; PAGE]; 2]), Err(Unfit::Foreign));
    }

    #[test]
    fn a_newer_format_is_named_and_not_read_as_an_older_one() {
        let mut newer = superblock(5).to_page();
        newer[16] = 2;
        newer[CRC].fill(0);
        let crc = crc32c::crc32c(&newer);
        newer[CRC].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Superblock::newest(&[superblock(4).to_page(), newer]), Err(Unfit::Newer(2)));
    }

    #[test]
    fn a_parent_lies_in_the_same_folder() {
        for name in [&b""[..], b".", b"..", b"a/b", b"a\0b", &[b'a'; 256]] {
            assert_eq!(FileName::new(name), None, "{name:?}");
        }
        assert_eq!(FileName::new(&[b'a'; 255]).unwrap().bytes(), [b'a'; 255]);
    }

    #[test]
    fn sizes_are_whole_blocks() {
        assert_eq!(blocks_of(8192), Some(2));
        assert_eq!((blocks_of(0), blocks_of(4097)), (None, None));
        assert_eq!((logical_block(0), logical_block(512)), (Some(4096), Some(512)));
        assert_eq!((logical_block(256), logical_block(8192)), (None, None));
    }
}
