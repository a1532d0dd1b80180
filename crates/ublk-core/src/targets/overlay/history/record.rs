//! The format of a history.

use ublk_overlay::extent::Extent;
use uuid::Uuid;

use super::Owner;

/// Bytes of the header.
pub(super) const HEADER: usize = 4096;
/// Bytes of a record, which never crosses a page.
pub(super) const RECORD: usize = 32;

/// The beginning of a history.
pub(super) const MAGIC: [u8; 16] = *b"ublk overlay his";

/// The owner, and the numbers of the history: a history belongs to the superblock of the same number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) boot: [u8; 16],
    pub(super) layer: Uuid,
    /// The number in the superblock, and the number in a superblock being written.
    pub(super) numbers: [u64; 2],
}

impl Header {
    const BYTES: usize = 68;

    pub(super) fn new(owner: &Owner, number: u64) -> Self {
        Self { boot: owner.boot, layer: owner.layer, numbers: [number; 2] }
    }

    /// Whether this is the history of the owner and the number of `wanted`.
    pub(super) fn continues(&self, wanted: &Self) -> bool {
        (self.boot, self.layer) == (wanted.boot, wanted.layer)
            && self.numbers.contains(&wanted.numbers[0])
    }

    pub(super) fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..16].copy_from_slice(&MAGIC);
        bytes[16..32].copy_from_slice(&self.boot);
        bytes[32..48].copy_from_slice(self.layer.as_bytes());
        bytes[48..56].copy_from_slice(&self.numbers[0].to_le_bytes());
        bytes[56..64].copy_from_slice(&self.numbers[1].to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..64]);
        bytes[64..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let this = Self {
            boot: part(bytes, 16)?,
            layer: Uuid::from_bytes(part(bytes, 32)?),
            numbers: [u64::from_le_bytes(part(bytes, 48)?), u64::from_le_bytes(part(bytes, 56)?)],
        };
        bytes.starts_with(&this.to_bytes()).then_some(this)
    }

    /// What the checksums of records begin with: records of another layer or boot do not match.
    fn seed(&self) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.boot), self.layer.as_bytes())
    }
}

/// An extent of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Counts the records.
    pub(super) number: u64,
    pub(super) extent: Extent,
}

impl Record {
    pub(super) fn to_bytes(self, header: &Header) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        bytes[..16].copy_from_slice(&self.extent.to_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        let crc = crc32c::crc32c_append(header.seed(), &bytes[..24]);
        bytes[24..28].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn parse(bytes: &[u8], header: &Header) -> Option<Self> {
        let extent = Extent::parse(&part(bytes, 0)?)?;
        let this = Self { number: u64::from_le_bytes(part(bytes, 16)?), extent };
        (this.number > 0 && bytes == this.to_bytes(header)).then_some(this)
    }
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}
