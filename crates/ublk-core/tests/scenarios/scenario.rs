//! What a scenario is made of, drawn from its seed.

use ublk_core::device::Recovery;
use ublk_core::driver::sim::{Faults, Rng, Sim, SimDisk, Trouble};
use ublk_core::reactor::{ExchangeMode, Transfer};

use crate::replacing::Replacement;

pub(crate) const SECTOR: usize = 512;
/// The size of a zone, in bytes.
pub(crate) const ZONE: u64 = 64 << 10;
pub(crate) const ZONE_SECTORS: usize = 128;

/// What the dead server had fails.
const EXCUSED: [Recovery; 2] = [Recovery::Queue, Recovery::Fail];

/// How requests' data reaches the server, and how well that works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Auto,
    AutoOftenFails,
    AutoAlwaysFails,
    Register,
    RegisterSplit,
    Copy,
    UserCopy,
    GetData,
    /// The client's memory is shared, over any of the others.
    Shared,
    /// The target looks at what is written, over any of the others.
    Rounds,
    /// Slots rotate.
    Rotating,
    /// The device keeps metadata beside its data, over any of the others that can.
    Integrity,
    /// The device has zones, over any of the others that can.
    Zoned,
    /// Somebody beyond a bridge says where bytes are, over any of the others.
    Asked,
}

const MODES: [Mode; COUNT] = [
    Mode::Auto,
    Mode::AutoOftenFails,
    Mode::AutoAlwaysFails,
    Mode::Register,
    Mode::RegisterSplit,
    Mode::Copy,
    Mode::UserCopy,
    Mode::GetData,
    Mode::Shared,
    Mode::Rounds,
    Mode::Rotating,
    Mode::Integrity,
    Mode::Zoned,
    Mode::Asked,
];
const COUNT: usize = 14;

impl Mode {
    pub(crate) fn of(seed: u64) -> Self {
        MODES[usize::try_from(seed).unwrap() % COUNT]
    }

    /// The seed of scenario number `round` of this mode and exchange.
    pub(crate) fn seed(self, exchange: ExchangeMode, round: u64) -> u64 {
        let mode = MODES.iter().position(|&mode| mode == self).unwrap();
        let exchange = if exchange == ExchangeMode::Batch { COUNT } else { 0 };
        round * 2 * COUNT as u64 + (exchange + mode) as u64
    }

    fn transfer(self, exchange: ExchangeMode, rng: &mut Rng) -> Transfer {
        const ALL: [Transfer; 6] = [
            Transfer::Auto,
            Transfer::Register { split: false },
            Transfer::Register { split: true },
            Transfer::Copy,
            Transfer::UserCopy,
            // Not in batches.
            Transfer::GetData,
        ];
        const SPECIAL: [Transfer; 4] = [
            Transfer::Auto,
            Transfer::Register { split: false },
            Transfer::Register { split: true },
            Transfer::UserCopy,
        ];
        let count = if exchange == ExchangeMode::Batch { 5 } else { 6 };
        match self {
            Self::Auto | Self::AutoOftenFails | Self::AutoAlwaysFails => Transfer::Auto,
            Self::Register => Transfer::Register { split: false },
            Self::RegisterSplit => Transfer::Register { split: true },
            Self::Copy => Transfer::Copy,
            Self::UserCopy => Transfer::UserCopy,
            Self::GetData => Transfer::GetData,
            Self::Shared | Self::Rounds | Self::Asked => ALL[rng.index(count)],
            Self::Rotating => ALL[rng.index(3)],
            Self::Integrity => SPECIAL[rng.index(4)],
            // Linux 7.3 forgets where automatically registered appends of a batch went.
            Self::Zoned if exchange == ExchangeMode::Batch => SPECIAL[1 + rng.index(3)],
            Self::Zoned => SPECIAL[rng.index(4)],
        }
    }
}

/// Which exchange a scenario is about.
pub(crate) fn exchange_of(seed: u64) -> ExchangeMode {
    let count = COUNT as u64;
    if seed % (2 * count) < count { ExchangeMode::PerIo } else { ExchangeMode::Batch }
}

/// What answers requests.
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
    /// The striped target, over as many disks, of which some may answer late.
    Striped {
        disks: u16,
        chunk: u32,
        late: bool,
    },
    /// A file with so many bytes of metadata for each sector.
    Guarded {
        metadata: u8,
    },
    /// Zones of 64 KiB, of which so many bytes can be written; so many of them may be open, and open
    /// or closed, at once, 0 for all.
    Zones {
        count: u32,
        capacity: u64,
        max_open: u32,
        max_active: u32,
    },
}

impl Backend {
    /// What no read and no write may cross a multiple of, in sectors.
    pub(crate) fn stripe(self) -> Option<usize> {
        match self {
            Self::Striped { disks, chunk, .. } => {
                Some(usize::from(disks) * chunk as usize / SECTOR)
            }
            _ => None,
        }
    }
}

/// What happens once, after so many requests.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Incident {
    Nothing,
    Stop,
    /// Another program deletes the device, and a third adds a device meanwhile: both commands time out.
    Delete,
    Kill,
    /// The server goes, and another one comes.
    Replace(Replacement),
    /// The backing file is cut to so many bytes.
    Truncate(usize),
    /// The backing files, or disks, grow by so many bytes: which are not the device's.
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
    /// The disks are block devices, and no files.
    pub(crate) block: bool,
    pub(crate) queues: u16,
    /// One reactor serves all queues.
    pub(crate) shared: bool,
    /// So many reactors share the tags of all queues, if any.
    pub(crate) threads: Option<u16>,
    /// A second reactor does the I/O of each.
    pub(crate) apart: bool,
    pub(crate) depth: u16,
    pub(crate) sectors: usize,
    pub(crate) max_io_bytes: u32,
    pub(crate) cache: bool,
    pub(crate) fua: bool,
    pub(crate) faults: Faults,
    pub(crate) requests: usize,
    /// Requests that the client has in flight at once.
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

    /// In how many rounds the model may stand still: in one, a new server has come, or a reactor
    /// begins what a fetch at the end of its last pass has brought; in one more, a reactor counts
    /// what was committed past it; where rings are apart, a request passes from reactor to
    /// reactor and back without it.
    pub(crate) fn patience(&self) -> u32 {
        match self.mode {
            _ if self.apart => 6,
            Mode::Asked => 2,
            _ => 1,
        }
    }

    pub(crate) fn draw(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x5ca1_ab1e);
        let (mode, exchange) = (Mode::of(seed), exchange_of(seed));
        let transfer = mode.transfer(exchange, &mut rng);
        let max_io_bytes = 4096 << rng.below(5);
        let backend = match mode {
            Mode::Integrity => Backend::Guarded { metadata: [8, 16, 64][rng.index(3)] },
            Mode::Zoned => draw_zones(&mut rng),
            Mode::Asked => Backend::File,
            _ => draw_backend(&mut rng),
        };
        let sectors = match backend {
            Backend::Zones { count, .. } => count as usize * ZONE_SECTORS,
            _ => 64 << rng.below(4),
        };
        let requests = 10 + rng.index(50);
        let cache = rng.chance(800);
        let block = rng.chance(400);
        let incident = match backend {
            Backend::Null => Incident::Nothing,
            Backend::Zones { .. } => match rng.below(9) {
                8 => Incident::Delete,
                0 => Incident::Stop,
                1 => Incident::Kill,
                // Nobody can tell whether an append that is issued again was done before.
                2 | 3 => Incident::Replace(Replacement::draw(&EXCUSED, &mut rng)),
                _ => Incident::Nothing,
            },
            _ => match draw_incident(&mut rng, backend, block, sectors * SECTOR) {
                // Another server has a bridge of its own.
                Incident::Replace(_) if mode == Mode::Asked => Incident::Nothing,
                incident => incident,
            },
        };
        Self {
            seed,
            mode,
            exchange,
            transfer,
            backend,
            block,
            queues: 1 + u16::try_from(rng.below(2)).unwrap(),
            // The kernel has no batches of a queue of one.
            depth: (1 << rng.below(4)).max(u16::from(exchange == ExchangeMode::Batch) + 1),
            sectors,
            max_io_bytes,
            cache,
            fua: cache && rng.chance(600),
            faults: draw_faults(&mut rng, mode),
            requests,
            eagerness: if rng.chance(300) { 1 } else { 1 + rng.index(20) },
            incident: (rng.index(requests), incident),
            shared: rng.chance(400),
            // A handler has whole queues.
            threads: (exchange == ExchangeMode::PerIo && rng.chance(400) && mode != Mode::Asked)
                .then(|| 2 + u16::try_from(rng.below(3)).unwrap()),
            apart: mode != Mode::Asked
                && matches!(transfer, Transfer::Register { .. })
                && !matches!(backend, Backend::Zones { .. })
                && rng.chance(500),
        }
    }
}

fn draw_zones(rng: &mut Rng) -> Backend {
    let count = 2 + u32::try_from(rng.below(5)).unwrap();
    let mut most = |limit: u32| match rng.chance(500) {
        true => 1 + u32::try_from(rng.below(limit.into())).unwrap(),
        false => 0,
    };
    let max_active = most(count);
    let max_open = most(if max_active == 0 { count } else { max_active });
    let capacity = [ZONE, ZONE * 3 / 4][rng.index(2)];
    Backend::Zones { count, capacity, max_open, max_active }
}

fn draw_backend(rng: &mut Rng) -> Backend {
    match rng.below(10) {
        0 => Backend::Null,
        1..=4 => Backend::File,
        5 | 6 => Backend::Striped {
            disks: 1 + u16::try_from(rng.below(4)).unwrap(),
            chunk: 4096 << rng.below(2),
            late: rng.chance(300),
        },
        _ => Backend::Layered {
            stripes: 1 + u16::try_from(rng.below(3)).unwrap(),
            chunk: 2048 << rng.below(3),
            mirrored: rng.chance(500),
        },
    }
}

fn draw_faults(rng: &mut Rng, mode: Mode) -> Faults {
    let mut rate = |chance: u16, limit: u64| {
        if rng.chance(chance) { u16::try_from(rng.below(limit)).unwrap() } else { 0 }
    };
    let faults = Faults {
        delay: rate(800, 1001),
        short: rate(400, 500),
        interrupted: rate(300, 300),
        error: rate(250, 100),
        copied: rate(250, 300),
        register: rate(300, 300),
        unregister: rate(300, 300),
        command: rate(250, 300),
        partial: rate(250, 300),
        no_buffers: rate(250, 300),
        submit: rate(250, 500),
        full: rate(250, 500),
        ..Faults::default()
    };
    match mode {
        Mode::AutoOftenFails => Faults { auto_register: 300, ..faults },
        Mode::AutoAlwaysFails => Faults { auto_register: 1000, ..faults },
        Mode::Shared
        | Mode::Rounds
        | Mode::Rotating
        | Mode::Integrity
        | Mode::Zoned
        | Mode::Asked => Faults { auto_register: rate(300, 1001), ..faults },
        _ => faults,
    }
}

fn draw_incident(rng: &mut Rng, backend: Backend, block: bool, size: usize) -> Incident {
    let none = Trouble::default();
    match rng.below(16) {
        0 => Incident::Stop,
        15 => Incident::Delete,
        1 => Incident::Kill,
        2 if block => {
            let capacity = if rng.chance(500) { 0 } else { rng.index(size) / SECTOR * SECTOR };
            Incident::Trouble(Trouble { capacity: Some(capacity as u64), ..none })
        }
        2 if backend == Backend::File => {
            let bytes = rng.index(size);
            Incident::Truncate(if rng.chance(500) { bytes / SECTOR * SECTOR } else { bytes })
        }
        3 => Incident::Trouble(match rng.below(6) {
            0 => Trouble { reads: Some(libc::EIO), ..none },
            1 => Trouble { writes: Some(libc::EROFS), ..none },
            2 => Trouble { syncs: Some(libc::EIO), ..none },
            3 => Trouble { full_from: Some((rng.index(size) / SECTOR * SECTOR) as u64), ..none },
            4 => Trouble { no_zero_range: true, ..none },
            _ => Trouble { no_punch: true, ..none },
        }),
        4..=6 => {
            let kinds = [Recovery::Reissue, EXCUSED[0], EXCUSED[1]];
            Incident::Replace(Replacement::draw(&kinds, rng))
        }
        7 => Incident::Grow((1 + rng.index(64)) * SECTOR),
        _ => Incident::Nothing,
    }
}
