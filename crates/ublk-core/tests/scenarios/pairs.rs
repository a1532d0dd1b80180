//! The disks of a device with integrity, as the next server finds them.

use std::io;

use ublk_core::driver::sim::SimDisk;
use ublk_core::targets::integrity::{IntegrityFormat, Medium, length_of_metadata, restore};

use crate::scenario::{Backend, SECTOR, Scenario};

/// Where the metadata begins in its file.
const HEADER: usize = 4096;

/// What lies on a disk for the data, and on one for the metadata.
pub(crate) struct Pairs {
    pub(crate) format: IntegrityFormat,
    size: usize,
}

impl Pairs {
    /// Absent where a scenario has no integrity.
    pub(crate) fn of(scenario: &Scenario) -> Option<Self> {
        let Backend::Guarded { metadata: metadata_size } = scenario.backend else { return None };
        let format = IntegrityFormat { interval: 512, metadata_size, ..Default::default() };
        Some(Self { format, size: scenario.sectors * SECTOR })
    }

    /// How long the disks are, in bytes.
    pub(crate) fn lengths(&self) -> [usize; 2] {
        let metadata = length_of_metadata(self.format, self.size as u64);
        [self.size, usize::try_from(metadata).unwrap()]
    }

    /// The metadata of all sectors.
    pub(crate) fn metadata(&self, disks: &[SimDisk]) -> Vec<u8> {
        let length = self.size / SECTOR * usize::from(self.format.metadata_size);
        disks[1].contents()[HEADER..HEADER + length].to_vec()
    }

    /// What a server does before it serves. Answers how many writes it had to bring to an end.
    pub(crate) fn restore(&self, disks: &[SimDisk]) -> usize {
        let [data, metadata] = disks else { panic!("two disks") };
        restore(self.format, self.size as u64, &Open(data), &Open(metadata)).unwrap()
    }
}

/// A disk as a server opens it.
struct Open<'a>(&'a SimDisk);

impl Medium for Open<'_> {
    fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).unwrap();
        bytes.copy_from_slice(&self.0.contents()[from..from + bytes.len()]);
        Ok(())
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.store(offset, bytes);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
