//! A difference as a stream: what a disk has and a layer below, or the base, has not.
//!
//! A block of 4 KiB says of which layer the stream is, and since which. Records follow, each of 28 bytes:
//! an extent as in a layer's log, the number of the record, and the CRC32C of both and of the stream's
//! number; then the blocks and their CRC32C, unless the extent is zeros. A record without an extent ends the stream.

use std::io::{self, Read, Write};

use ublk_overlay::extent::{BLOCK, Extent, MAX_BLOCKS, Place};
use ublk_overlay::superblock::logical_block;
use uuid::Uuid;

const MAGIC: [u8; 16] = *b"ublk changes\r\n\x1a\0";
const VERSION: u32 = 1;
const FROZEN: u32 = 1;
const ON_LAYER: u32 = 2;
const PAGE: usize = 4096;
const CRC: std::ops::Range<usize> = 20..24;
const RECORD: usize = 32;
/// The most blocks of a record.
pub(super) const MOST_BLOCKS: u32 = 256;

/// What a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// A random number.
    pub(super) stream: u64,
    /// The size of the disk, in blocks.
    pub(super) blocks: u64,
    /// The logical block of the disk, in bytes.
    pub(super) logical_block: u32,
    /// The layer whose disk it is.
    pub(super) layer: Uuid,
    pub(super) generation: u64,
    pub(super) frozen: bool,
    /// The layer since which the changes are, and the generation; none: the base.
    pub(super) from: Option<(Uuid, u64)>,
    /// When the base was last modified: see `Superblock::base_modified`.
    pub(super) base_modified: i64,
    /// Bytes of blocks in the stream.
    pub(super) stored: u64,
}

impl Header {
    fn to_page(self) -> [u8; PAGE] {
        let mut page = [0; PAGE];
        let flags =
            if self.frozen { FROZEN } else { 0 } | if self.from.is_some() { ON_LAYER } else { 0 };
        let (from, from_generation) = self.from.unwrap_or_default();
        page[..16].copy_from_slice(&MAGIC);
        page[16..20].copy_from_slice(&VERSION.to_le_bytes());
        page[24..28].copy_from_slice(&flags.to_le_bytes());
        let numbers = [self.stream, self.blocks, self.generation, from_generation, self.stored];
        for (place, number) in page[32..].chunks_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        page[72..80].copy_from_slice(&self.base_modified.to_le_bytes());
        page[80..96].copy_from_slice(self.layer.as_bytes());
        page[96..112].copy_from_slice(from.as_bytes());
        page[112..116].copy_from_slice(&self.logical_block.to_le_bytes());
        let crc = crc32c::crc32c(&page);
        page[CRC].copy_from_slice(&crc.to_le_bytes());
        page
    }

    fn parse(page: &[u8; PAGE]) -> io::Result<Self> {
        if page[..16] != MAGIC {
            return Err(damaged("not a stream of changes"));
        }
        let mut without_crc = *page;
        without_crc[CRC].fill(0);
        if crc32c::crc32c(&without_crc) != u32_at(page, CRC.start) {
            return Err(damaged("its header is damaged"));
        }
        if u32_at(page, 16) != VERSION {
            return Err(damaged("a later release of this package has made it"));
        }
        let flags = u32_at(page, 24);
        let uuid = |at: usize| Uuid::from_bytes(std::array::from_fn(|index| page[at + index]));
        let this = Self {
            stream: u64_at(page, 32),
            blocks: u64_at(page, 40),
            logical_block: logical_block(u32_at(page, 112))
                .ok_or_else(|| damaged("its header is damaged"))?,
            layer: uuid(80),
            generation: u64_at(page, 48),
            frozen: flags & FROZEN != 0,
            from: (flags & ON_LAYER != 0).then(|| (uuid(96), u64_at(page, 56))),
            base_modified: i64::from_le_bytes(std::array::from_fn(|index| page[72 + index])),
            stored: u64_at(page, 64),
        };
        let sane = this.blocks > 0 && this.blocks <= MAX_BLOCKS && this.generation > 0;
        if sane { Ok(this) } else { Err(damaged("its header is damaged")) }
    }
}

/// Writes a stream.
pub(super) struct Writer<W> {
    out: W,
    stream: u64,
    records: u64,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(mut out: W, header: Header) -> io::Result<Self> {
        out.write_all(&header.to_page())?;
        Ok(Self { out, stream: header.stream, records: 0 })
    }

    /// Adds an extent of at most [`MOST_BLOCKS`] blocks, `bytes`; without bytes, of any number of zeros.
    pub(super) fn put(&mut self, extent: Extent, bytes: &[u8]) -> io::Result<()> {
        let mut record = self.record(extent.to_bytes());
        record.extend_from_slice(&crc32c::crc32c(bytes).to_le_bytes());
        self.out.write_all(&record)?;
        self.out.write_all(bytes)
    }

    /// Ends the stream.
    pub(super) fn end(mut self) -> io::Result<()> {
        let record = self.record([0; Extent::BYTES]);
        self.out.write_all(&record)?;
        self.out.flush()
    }

    fn record(&mut self, extent: [u8; Extent::BYTES]) -> Vec<u8> {
        let mut record = Vec::with_capacity(RECORD);
        record.extend_from_slice(&extent);
        record.extend_from_slice(&self.records.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&self.stream.to_le_bytes()), &record);
        record.extend_from_slice(&crc.to_le_bytes());
        self.records += 1;
        record
    }
}

/// Reads a stream.
pub(super) struct Reader<R> {
    from: R,
    pub(super) header: Header,
    records: u64,
}

impl<R: Read> Reader<R> {
    /// # Errors
    /// `InvalidData` for something else than a stream, `UnexpectedEof` for one that is cut.
    pub(super) fn new(mut from: R) -> io::Result<Self> {
        let mut page = [0; PAGE];
        from.read_exact(&mut page)?;
        Ok(Self { header: Header::parse(&page)?, from, records: 0 })
    }

    /// The next extent, whose blocks are in `bytes`, unless the extent is zeros. None at the end.
    ///
    /// # Errors
    /// `InvalidData` for a damaged stream, `UnexpectedEof` for one that is cut.
    pub(super) fn next(&mut self, bytes: &mut Vec<u8>) -> io::Result<Option<Extent>> {
        let mut record = [0; 28];
        self.from.read_exact(&mut record)?;
        let stream = crc32c::crc32c(&self.header.stream.to_le_bytes());
        let is_next = u64_at(&record, 16) == self.records;
        if crc32c::crc32c_append(stream, &record[..24]) != u32_at(&record, 24) || !is_next {
            return Err(damaged("a record is damaged"));
        }
        self.records += 1;
        let extent: [u8; Extent::BYTES] = std::array::from_fn(|index| record[index]);
        if extent == [0; Extent::BYTES] {
            return match self.from.read(&mut record)? {
                0 => Ok(None),
                _ => Err(damaged("something follows the end")),
            };
        }
        let extent = Extent::parse(&extent).filter(|extent| extent.end() <= self.header.blocks);
        let extent = extent.ok_or_else(|| damaged("a record names what cannot be"))?;
        self.read_blocks(extent, bytes)?;
        Ok(Some(extent))
    }

    fn read_blocks(&mut self, extent: Extent, bytes: &mut Vec<u8>) -> io::Result<()> {
        let mut crc = [0; 4];
        self.from.read_exact(&mut crc)?;
        let count = if extent.place() == Place::Zero { 0 } else { extent.count() };
        if count > MOST_BLOCKS {
            return Err(damaged("a record is too long"));
        }
        bytes.resize(count as usize * usize::try_from(BLOCK).map_err(io::Error::other)?, 0);
        self.from.read_exact(bytes)?;
        match crc32c::crc32c(bytes) == u32::from_le_bytes(crc) {
            true => Ok(()),
            false => Err(damaged("blocks are damaged")),
        }
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|index| bytes[at + index]))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|index| bytes[at + index]))
}
