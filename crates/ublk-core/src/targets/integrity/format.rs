//! What a piece of metadata holds.

use thiserror::Error;

/// The checksum in protection information.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// No protection information: metadata means something to the device's user alone.
    #[default]
    None,
    /// The IP checksum, in a tuple of 8 bytes as T10 has it.
    Ip,
    /// CRC-16 as T10 DIF has it, in a tuple of 8 bytes.
    Crc16,
    /// CRC-64 as NVMe has it, in a tuple of 16 bytes.
    Crc64,
}

/// Metadata beside data (`UBLK_F_INTEGRITY`, Linux 7.0). The kernel makes and checks it, or whoever
/// uses the device; a target keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IntegrityFormat {
    /// Bytes of data to each piece of metadata: a power of two, from 512 to the logical block.
    pub interval: u32,
    /// Bytes of each piece.
    pub metadata_size: u8,
    /// What protects the data.
    pub checksum: Checksum,
    /// Where the protection information begins in a piece, in bytes.
    pub pi_offset: u8,
    /// Bytes of the application tag, which is the user's.
    pub tag_size: u8,
    /// The reference tag counts blocks: T10's type 1.
    pub reference_tags: bool,
    /// The device claims to check what it is given. The targets here do not.
    pub capable: bool,
}

/// Why a format cannot be.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FormatError {
    /// Nothing to keep.
    #[error("metadataSize is 0; it must be from 1 to 255 bytes")]
    Empty,
    /// The tuple does not fit.
    #[error(
        "the protection information takes {tuple} bytes from piOffset {offset} on, but \
         metadataSize is {size}"
    )]
    TooShort {
        /// Bytes of the tuple.
        tuple: u8,
        /// Where it begins.
        offset: u8,
        /// Bytes of metadata.
        size: u8,
    },
    /// Reference tags are part of a tuple.
    #[error("referenceTags need a checksum")]
    NoTuple,
    /// The kernel takes powers of two that a block is made of.
    #[error(
        "interval is {interval}; it must be a power of two from 512 to the block size, {block}"
    )]
    Interval {
        /// Data per piece of metadata.
        interval: u32,
        /// The logical block size.
        block: u32,
    },
}

impl Checksum {
    /// Bytes of the tuple that it is part of.
    pub fn tuple_size(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Ip | Self::Crc16 => 8,
            Self::Crc64 => 16,
        }
    }
}

impl IntegrityFormat {
    /// Bytes of metadata to `length` bytes of data, a multiple of the interval.
    #[inline]
    pub fn metadata_of(&self, length: u64) -> u64 {
        length / u64::from(self.interval) * u64::from(self.metadata_size)
    }

    /// Checks it before the kernel sees it; `block` is the logical block size.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self, block: u32) -> Result<(), FormatError> {
        let Self { interval, metadata_size, checksum, pi_offset, .. } = *self;
        let tuple = checksum.tuple_size();
        if metadata_size == 0 {
            return Err(FormatError::Empty);
        }
        if u16::from(pi_offset) + u16::from(tuple) > metadata_size.into() {
            return Err(FormatError::TooShort { tuple, offset: pi_offset, size: metadata_size });
        }
        if self.reference_tags && checksum == Checksum::None {
            return Err(FormatError::NoTuple);
        }
        if !interval.is_power_of_two() || !(512..=block).contains(&interval) {
            return Err(FormatError::Interval { interval, block });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_would_refuse_is_refused_before() {
        let crc16 = IntegrityFormat {
            interval: 512,
            metadata_size: 8,
            checksum: Checksum::Crc16,
            reference_tags: true,
            ..IntegrityFormat::default()
        };
        assert_eq!(crc16.validate(512), Ok(()));
        assert_eq!(crc16.metadata_of(4096), 64);
        let plain = IntegrityFormat { checksum: Checksum::None, reference_tags: false, ..crc16 };
        assert_eq!(IntegrityFormat { metadata_size: 1, ..plain }.validate(4096), Ok(()));
        let block = 4096;
        for (wrong, error) in [
            (IntegrityFormat { metadata_size: 0, ..crc16 }, FormatError::Empty),
            (
                IntegrityFormat { checksum: Checksum::Crc64, ..crc16 },
                FormatError::TooShort { tuple: 16, offset: 0, size: 8 },
            ),
            (
                IntegrityFormat { pi_offset: 255, metadata_size: 255, ..crc16 },
                FormatError::TooShort { tuple: 8, offset: 255, size: 255 },
            ),
            (IntegrityFormat { checksum: Checksum::None, ..crc16 }, FormatError::NoTuple),
            (
                IntegrityFormat { interval: 8192, ..crc16 },
                FormatError::Interval { interval: 8192, block },
            ),
            (
                IntegrityFormat { interval: 1536, ..crc16 },
                FormatError::Interval { interval: 1536, block },
            ),
        ] {
            assert_eq!(wrong.validate(block), Err(error));
        }
    }
}
