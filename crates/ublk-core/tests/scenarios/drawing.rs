//! How a scenario is drawn from its seed.

use ublk_core::device::Recovery;
use ublk_core::driver::sim::{Faults, Rng, Trouble};
use ublk_core::reactor::{ExchangeMode, Transfer};

use crate::mode::{Mode, exchange_of};
use crate::replacing::Replacement;
use crate::scenario::{Backend, Incident, SECTOR, Scenario, ZONE, ZONE_SECTORS};

/// Kinds of recovery in which the requests of a dead server fail.
const EXCUSED: [Recovery; 2] = [Recovery::Queue, Recovery::Fail];

impl Scenario {
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
                // No server can see whether an append that the kernel reissues was executed before.
                2 | 3 => Incident::Replace(Replacement::draw(&EXCUSED, &mut rng)),
                _ => Incident::Nothing,
            },
            _ => match draw_incident(&mut rng, backend, block, sectors * SECTOR) {
                // The next server would need a new bridge and a new peer.
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
            // A peer beyond a bridge answers whole queues.
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
        3 => Incident::Trouble(match rng.below(7) {
            0 => Trouble { reads: Some(libc::EIO), ..none },
            1 => Trouble { writes: Some(libc::EROFS), ..none },
            2 => Trouble { syncs: Some(libc::EIO), ..none },
            3 => Trouble { full_from: Some((rng.index(size) / SECTOR * SECTOR) as u64), ..none },
            4 => Trouble { no_zero_range: true, ..none },
            5 => Trouble { alignment: 1024 << rng.below(3), ..none },
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
