//! What the disks of a scenario must hold at the end, before and after a power cut.

use ublk_core::driver::sim::SimDisk;

use super::World;
use crate::pairs::Pairs;
use crate::scenario::{Incident, SECTOR};
use crate::server::Outcome;

impl World {
    /// The server must write nothing beyond the end of the device.
    fn check_growth(&self) -> Outcome {
        let Incident::Grow(bytes) = self.scenario.incident.1 else { return Ok(()) };
        if !self.has_grown {
            return Ok(());
        }
        for disk in &self.disks {
            let contents = disk.contents();
            let grown = contents.len().saturating_sub(bytes);
            if contents[grown..].iter().any(|&byte| byte != 0) {
                return Err("something is written beyond the device's end".into());
            }
        }
        Ok(())
    }

    pub(super) fn check_disks(&mut self) -> Outcome {
        self.check_growth()?;
        // A next server would complete and sync unfinished writes.
        let power_goes_first = self.scenario.cache && self.rng.chance(500);
        if !power_goes_first {
            self.restore()?;
            let Some((image, metadata)) = self.contents() else { return Ok(()) };
            self.shadow.check_now(&image, &metadata)?;
        }
        if !self.scenario.cache {
            // Clients send no flush to a device without a volatile cache.
            return Ok(());
        }
        self.disks.iter().for_each(SimDisk::cut_power);
        self.restore()?;
        let Some((image, metadata)) = self.contents() else { return Ok(()) };
        self.shadow.check_durable(&image, &metadata)
    }

    /// Opens the pairs of data and metadata as a server does. The server must find no half-done write
    /// unless a request failed or a server was killed: a write fails half done when its buffer cannot be
    /// registered any more, for example.
    fn restore(&self) -> Outcome {
        let Some(pairs) = Pairs::of(&self.scenario) else { return Ok(()) };
        let restored = pairs.restore(&self.disks);
        let killed = match self.scenario.incident.1 {
            Incident::Kill => true,
            Incident::Replace(how) => !how.gently,
            _ => false,
        };
        if restored > 0 && !self.has_failed && !killed {
            return Err(format!("{restored} writes were left half done"));
        }
        Ok(())
    }

    /// Contents of the device and metadata of the sectors.
    fn contents(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let size = self.scenario.sectors * SECTOR;
        let image = self.subject.image(&self.disks, size)?;
        let pairs = Pairs::of(&self.scenario);
        let metadata = pairs.map(|pairs| pairs.metadata(&self.disks)).unwrap_or_default();
        Some((image, metadata))
    }
}
