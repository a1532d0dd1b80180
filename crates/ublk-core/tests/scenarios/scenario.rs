//! The parts of a scenario; `drawing` draws the parts from a seed.

use ublk_core::driver::sim::{Faults, Sim, SimDisk, Trouble};
use ublk_core::reactor::{ExchangeMode, Transfer};

use crate::mode::Mode;
use crate::replacing::Replacement;

pub(crate) const SECTOR: usize = 512;
/// The size of a zone, in bytes.
pub(crate) const ZONE: u64 = 64 << 10;
pub(crate) const ZONE_SECTORS: usize = 128;

/// The backing store of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Null,
    File,
    /// Stripes of `chunk` bytes over `stripes` disks, each with a mirror or not: plans of many
    /// steps, of two stages, with second attempts.
    Layered {
        stripes: u16,
        chunk: u32,
        mirrored: bool,
    },
    /// The striped target over `disks` disks; with `late`, some disks answer late.
    Striped {
        disks: u16,
        chunk: u32,
        late: bool,
    },
    /// A file with `metadata` bytes of metadata for each sector.
    Guarded {
        metadata: u8,
    },
    /// Zones of 64 KiB with `capacity` writable bytes each. At most `max_open` zones are open and at most
    /// `max_active` zones are open or closed at a time; 0 means no limit.
    Zones {
        count: u32,
        capacity: u64,
        max_open: u32,
        max_active: u32,
    },
}

impl Backend {
    /// No read and no write crosses a multiple of this number of sectors.
    pub(crate) fn stripe(self) -> Option<usize> {
        match self {
            Self::Striped { disks, chunk, .. } => {
                Some(usize::from(disks) * chunk as usize / SECTOR)
            }
            _ => None,
        }
    }
}

/// The incident of a scenario, which happens once.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Incident {
    Nothing,
    Stop,
    /// Another program deletes the device, and a third adds a device meanwhile: both commands time out.
    Delete,
    Kill,
    /// Another server replaces the server.
    Replace(Replacement),
    /// The backing file is cut to this number of bytes.
    Truncate(usize),
    /// The backing files or disks grow by this number of bytes, which do not belong to the device.
    Grow(usize),
    /// A disk begins to misbehave.
    Trouble(Trouble),
}

#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) mode: Mode,
    pub(crate) exchange: ExchangeMode,
    pub(crate) transfer: Transfer,
    pub(crate) backend: Backend,
    /// The disks are block devices instead of files.
    pub(crate) block: bool,
    pub(crate) queues: u16,
    /// One reactor serves all queues.
    pub(crate) shared: bool,
    /// Number of reactors that share the tags of all queues.
    pub(crate) threads: Option<u16>,
    /// Each reactor has a second reactor, which does the I/O.
    pub(crate) apart: bool,
    pub(crate) depth: u16,
    pub(crate) sectors: usize,
    pub(crate) max_io_bytes: u32,
    pub(crate) cache: bool,
    pub(crate) fua: bool,
    pub(crate) faults: Faults,
    pub(crate) requests: usize,
    /// Most requests that the client has in flight at a time.
    pub(crate) eagerness: usize,
    pub(crate) incident: (usize, Incident),
}

impl Scenario {
    pub(crate) fn recovery_flags(&self) -> u64 {
        match self.incident.1 {
            Incident::Replace(how) => how.flags(),
            _ => 0,
        }
    }

    /// A disk below the target.
    pub(crate) fn disk(&self, sim: &Sim, size: usize) -> SimDisk {
        if self.block { sim.block_device(size) } else { sim.file(size) }
    }

    /// Number of rounds in which the model may stand still. In one round a new server has come, or a reactor
    /// begins requests that a fetch at the end of the last pass has brought; in one more round a reactor
    /// counts commits that bypassed the reactor. With rings apart, a request passes from reactor to reactor
    /// and back while the model stands still.
    pub(crate) fn patience(&self) -> u32 {
        match self.mode {
            _ if self.apart => 6,
            Mode::Asked => 2,
            _ => 1,
        }
    }
}
