//! The file of metadata.
//!
//! A header that says what the metadata is of, then one piece of metadata after another.

use super::super::state::{Format, HEADER, Header, MAGIC, Unfit};
use super::format::{Checksum, IntegrityFormat};

/// The metadata of so many bytes of data.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) format: IntegrityFormat,
    pub(super) size: u64,
}

const NAME: &[u8; MAGIC] = b"ublk metadata \n\0";
const VERSION: u8 = 1;
/// Where the size of the data is in the header; before it are the version and the format.
const SIZE: usize = 32;

impl Kept {
    /// The version and the format.
    fn description(&self) -> [u8; SIZE - MAGIC] {
        let IntegrityFormat {
            interval,
            metadata_size,
            checksum,
            pi_offset,
            tag_size,
            reference_tags,
            // What the device says of itself changes nothing in the file.
            capable: _,
        } = self.format;
        let checksum = match checksum {
            Checksum::None => 0,
            Checksum::Ip => 1,
            Checksum::Crc16 => 2,
            Checksum::Crc64 => 3,
        };
        let mut bytes = [0; SIZE - MAGIC];
        bytes[0] = VERSION;
        bytes[1..6].copy_from_slice(&[
            metadata_size,
            checksum,
            pi_offset,
            tag_size,
            reference_tags.into(),
        ]);
        bytes[8..12].copy_from_slice(&interval.to_le_bytes());
        bytes
    }
}

impl Format for Kept {
    fn what(&self) -> &'static str {
        "metadata"
    }

    fn option(&self) -> &'static str {
        "integrity.path"
    }

    fn header(&self) -> Vec<u8> {
        [&NAME[..], &self.description(), &self.size.to_le_bytes()].concat()
    }

    fn length(&self) -> u64 {
        HEADER + self.format.metadata_of(self.size)
    }

    /// An application tag and a reference tag of all ones say that a block was never written: the
    /// kernel then checks nothing.
    fn fresh(&self, _offset: u64, bytes: &mut [u8]) {
        bytes.fill(0xff);
    }

    fn check(&self, header: &Header, length: u64) -> Result<(), Unfit> {
        let mut number = [0; 8];
        number.copy_from_slice(&header[SIZE..SIZE + 8]);
        let size = u64::from_le_bytes(number);
        if header[MAGIC] != VERSION {
            let wrong = format!("holds metadata in version {} of its layout", header[MAGIC]);
            return Err((wrong, "another release of this package has made it: use that one"));
        }
        if header[MAGIC..SIZE] != self.description() {
            let hint = "give integrity as it was when the file was made, or name another file";
            return Err(("holds metadata of another format".into(), hint));
        }
        if size != self.size {
            let wrong = format!("holds the metadata of {size} bytes of data, not {}", self.size);
            return Err((wrong, "was it made for a smaller device, or for another one?"));
        }
        if length != self.length() {
            let wrong = format!("has {length} bytes, not {}", self.length());
            return Err((wrong, "the file was cut or extended: take it from a backup"));
        }
        Ok(())
    }
}
