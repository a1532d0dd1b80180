//! The file of metadata: its header says what the metadata is of, and in which version of the layout the
//! rest lies. See [`Area`] for the places; version 1 had no journal.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::super::state::{Format, Header, MAGIC, Unfit};
use super::area::Area;
use super::format::{Checksum, IntegrityFormat};

/// The metadata of so many bytes of data.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) format: IntegrityFormat,
    pub(super) size: u64,
}

const NAME: &[u8; MAGIC] = b"ublk metadata \n\0";
const VERSION: u8 = 2;
/// Had no journal.
const OLDER: u8 = 1;
/// Where the size of the data is in the header; before it are the version and the format.
const SIZE: usize = 32;

impl Kept {
    /// Where things lie in the file.
    pub(super) fn area(&self) -> Area {
        Area::new(self.format, self.size)
    }

    /// Whether a whole file has a journal.
    pub(super) fn has_journal(file: &File) -> io::Result<bool> {
        let mut version = [0];
        file.read_exact_at(&mut version, MAGIC as u64)?;
        Ok(version[0] != OLDER)
    }

    /// Adds a journal to a whole file that has none. A file that is half done is one that has none.
    pub(super) fn add_journal(&self, file: &File) -> io::Result<()> {
        static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
        let area = self.area();
        let (mut at, end) = (area.journal(), area.length());
        file.set_len(end)?;
        while at < end {
            let left = usize::try_from(end - at).unwrap_or(usize::MAX);
            let piece = &ZEROS[..left.min(ZEROS.len())];
            // No hole: a write must not fail half done because the disk is full.
            file.write_all_at(piece, at)?;
            at += piece.len() as u64;
        }
        file.sync_all()?;
        file.write_all_at(&[VERSION], MAGIC as u64)?;
        file.sync_all()
    }

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
        self.area().length()
    }

    /// An application tag and a reference tag of all ones say that a block was never written: the
    /// kernel then checks nothing. The journal is zeros.
    fn fresh(&self, offset: u64, bytes: &mut [u8]) {
        let ones = usize::try_from(self.area().journal().saturating_sub(offset));
        let ones = ones.unwrap_or(usize::MAX).min(bytes.len());
        bytes[..ones].fill(0xff);
        bytes[ones..].fill(0);
    }

    fn check(&self, header: &Header, length: u64) -> Result<(), Unfit> {
        let mut number = [0; 8];
        number.copy_from_slice(&header[SIZE..SIZE + 8]);
        let size = u64::from_le_bytes(number);
        if ![OLDER, VERSION].contains(&header[MAGIC]) {
            let wrong = format!("holds metadata in version {} of its layout", header[MAGIC]);
            return Err((wrong, "a later release of this package has made it: use that one"));
        }
        if header[MAGIC + 1..SIZE] != self.description()[1..] {
            let hint = "give integrity as it was when the file was made, or name another file";
            return Err(("holds metadata of another format".into(), hint));
        }
        if size != self.size {
            let wrong = format!("holds the metadata of {size} bytes of data, not {}", self.size);
            return Err((wrong, "was it made for a smaller device, or for another one?"));
        }
        let expected = self.length();
        // A journal that is being added may be there already.
        let older = header[MAGIC] == OLDER && length == self.area().older_length();
        if length != expected && !older {
            let wrong = format!("has {length} bytes, not {expected}");
            return Err((wrong, "the file was cut or extended: take it from a backup"));
        }
        Ok(())
    }
}
