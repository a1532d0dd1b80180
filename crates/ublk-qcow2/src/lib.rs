//! QEMU's qcow2 images, to be read: the facts of the header, and the place of each sector in the file.
//!
//! An image is a file of clusters. The [header] names a table (L1) of tables (L2) of clusters; a cluster lies
//! in the file, reads as zeros, or is the backing file's. All tables together make [runs](runs).
//!
//! The crate does no I/O: callers read bytes for these functions, all inside of the file. The file may hold
//! any bytes: impossible numbers are refused, with the place of each.

use std::io;

pub mod header;
pub mod runs;

/// Bytes of a sector, the unit of a disk.
pub const SECTOR: u64 = 512;
/// The largest disk and the largest file, in bytes: 512 TiB.
pub const LARGEST: u64 = 1 << 49;

/// The reason why an image cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file does not begin like a qcow2 image.
    #[error("it is not a qcow2 image")]
    Foreign,
    /// The image has a feature unknown to this reader.
    #[error("it has {0}, which ublk does not read")]
    Unsupported(String),
    /// The last program that wrote to the image has not closed it.
    #[error("it is marked as dirty: the last program that wrote to it did not close it")]
    Dirty,
    /// A program has found damage.
    #[error("it is marked as corrupt")]
    Corrupt,
    /// Impossible bytes.
    #[error("it is damaged at byte {at}: {what}")]
    Damaged {
        /// The place in the file.
        at: u64,
        /// The damage.
        what: String,
    },
}

impl Unfit {
    fn damaged(at: u64, what: impl Into<String>) -> Self {
        Self::Damaged { at, what: what.into() }
    }

    fn unsupported(what: impl Into<String>) -> Self {
        Self::Unsupported(what.into())
    }
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(std::array::from_fn(|index| bytes[at + index]))
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(std::array::from_fn(|index| bytes[at + index]))
}
