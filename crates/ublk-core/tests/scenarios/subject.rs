//! The targets of the scenarios as one type, with the disks below the targets.

use std::os::fd::RawFd;
use std::sync::Arc;

use ublk_core::driver::sim::{Sim, SimDisk};
use ublk_core::targets::Region;
use ublk_core::targets::delay::{Delay, Delays};
use ublk_core::targets::file::File;
use ublk_core::targets::handler::{Handler, HandlerOptions};
use ublk_core::targets::integrity::Integrity;
use ublk_core::targets::native::Native;
use ublk_core::targets::null::Null;
use ublk_core::targets::striped::Striped;
use ublk_core::targets::zoned::Zoned;
use ublk_core::targets::{
    DiscardLimits, Durability, Elsewhere, Ended, Errno, Geometry, Next, Op, Plan, Request, Target,
};

use crate::answering;
use crate::layered::Layered;
use crate::mode::Mode;
use crate::pairs::Pairs;
use crate::rounds::Rounds;
use crate::scenario::{Backend, SECTOR, Scenario};

/// The target of a scenario, whose requests may take several rounds.
#[derive(Debug)]
pub(crate) struct Subject {
    kind: Kind,
    rounds: Option<Rounds>,
}

#[derive(Debug)]
enum Kind {
    Null(Null),
    File(File),
    Layered(Layered),
    Striped(Box<Native>, Layered),
    Guarded(Box<Integrity>),
    Zoned(Box<Zoned>),
    Handler(Box<Handler>),
}

impl Subject {
    /// A target for the scenario, and the disks of the target.
    pub(crate) fn new(scenario: &Scenario, sim: &Sim) -> (Self, Vec<SimDisk>) {
        let (kind, disks) = Kind::new(scenario, sim, geometry(scenario));
        let rounds = (scenario.mode == Mode::Rounds).then(Rounds::default);
        (Self { kind, rounds }, disks)
    }

    /// The target of the next server on the same disks, where the next server needs a new target.
    pub(crate) fn of_next_server(scenario: &Scenario, disks: &[SimDisk]) -> Option<Self> {
        let pairs = Pairs::of(scenario)?;
        pairs.restore(disks);
        let kind = Kind::guarded(scenario, disks, geometry(scenario));
        Some(Self { kind, rounds: None })
    }

    pub(crate) fn zoned(target: Zoned) -> Self {
        Self { kind: Kind::Zoned(Box::new(target)), rounds: None }
    }

    /// Fails if the target did not hear of the end of a request, or heard twice.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.rounds.as_ref().map_or(Ok(()), Rounds::check)
    }

    /// Bytes of metadata for each sector.
    pub(crate) fn metadata_size(&self) -> usize {
        self.geometry().integrity.map_or(0, |format| format.metadata_size.into())
    }

    /// Contents of the device, put together from the disks.
    pub(crate) fn image(&self, disks: &[SimDisk], size: usize) -> Option<Vec<u8>> {
        self.kind.image(disks, size)
    }
}

fn geometry(scenario: &Scenario) -> Geometry {
    Geometry {
        volatile_cache: scenario.cache,
        fua: scenario.fua,
        discard: Some(DiscardLimits {
            granularity: 512,
            max_discard: scenario.max_io_bytes,
            max_write_zeroes: scenario.max_io_bytes,
        }),
        ..Geometry::new((scenario.sectors * SECTOR) as u64)
    }
}

impl Kind {
    /// A target on a disk for the data and a disk for the metadata.
    fn guarded(scenario: &Scenario, disks: &[SimDisk], geometry: Geometry) -> Self {
        let format = Pairs::of(scenario).map(|pairs| pairs.format).unwrap_or_default();
        let file = File::borrowed(disks[0].fd(), geometry);
        Self::Guarded(Box::new(Integrity::borrowed(file, disks[1].fd(), format).unwrap()))
    }

    fn new(scenario: &Scenario, sim: &Sim, geometry: Geometry) -> (Self, Vec<SimDisk>) {
        let size = scenario.sectors * SECTOR;
        match scenario.backend {
            Backend::Null => (Self::Null(Null::new(size as u64)), Vec::new()),
            Backend::File if scenario.mode == Mode::Asked => {
                let disk = scenario.disk(sim, size);
                let file = Native::File(File::borrowed(disk.fd(), geometry));
                let handler = Handler::new(HandlerOptions {
                    size: size as u64,
                    logical_block: None,
                    ops: vec![Op::Read, Op::Write, Op::Discard, Op::WriteZeroes],
                    fua: None,
                    read_only: false,
                    zones: None,
                    backends: vec![file],
                    bridge: Arc::new(answering::bridge(scenario)),
                });
                (Self::Handler(Box::new(handler.unwrap())), vec![disk])
            }
            Backend::File => {
                let disk = scenario.disk(sim, size);
                (Self::File(File::borrowed(disk.fd(), geometry)), vec![disk])
            }
            Backend::Layered { stripes, chunk, mirrored } => {
                let copies = if mirrored { 2 } else { 1 };
                let count = usize::from(stripes) * copies;
                let disks: Vec<_> = (0..count).map(|_| scenario.disk(sim, size)).collect();
                let files = disks.iter().map(SimDisk::fd).collect();
                let pieces = (scenario.max_io_bytes / chunk) as usize + 2;
                let max_steps = (pieces * copies).max(count);
                let durability = Durability::of(count);
                let layered =
                    Layered { geometry, files, durability, stripes, chunk, mirrored, max_steps };
                (Self::Layered(layered), disks)
            }
            Backend::Striped { disks: count, chunk, late } => {
                let disks: Vec<_> = (0..count).map(|_| scenario.disk(sim, size)).collect();
                let children = disks.iter().enumerate().map(|(number, disk)| {
                    let file = Native::File(File::borrowed(disk.fd(), geometry));
                    let delays = Delays { read: 100, write: 100, flush: 100 };
                    match late && number % 2 == 0 {
                        true => Native::Delay(Delay::new(file, delays)),
                        false => file,
                    }
                });
                let striped = Striped::new(children.collect(), chunk).unwrap();
                let layout = layout(&disks, chunk);
                (Self::Striped(Box::new(Native::Striped(striped)), layout), disks)
            }
            Backend::Guarded { .. } => {
                let disks = Pairs::of(scenario).map(|pairs| pairs.lengths()).unwrap_or_default();
                let disks = disks.map(|size| scenario.disk(sim, size));
                (Self::guarded(scenario, &disks, geometry), disks.into())
            }
            Backend::Zones { .. } => panic!("zones lie on ground of their own"),
        }
    }

    fn target(&self) -> &dyn Target {
        match self {
            Self::Null(target) => target,
            Self::File(target) => target,
            Self::Layered(target) => target,
            Self::Striped(target, _) => &**target,
            Self::Guarded(target) => &**target,
            Self::Zoned(target) => &**target,
            Self::Handler(target) => &**target,
        }
    }

    fn image(&self, disks: &[SimDisk], size: usize) -> Option<Vec<u8>> {
        match self {
            Self::Null(_) | Self::Zoned(_) => None,
            Self::File(_) | Self::Guarded(_) | Self::Handler(_) => {
                let mut image = disks[0].contents();
                image.resize(size, 0);
                Some(image)
            }
            Self::Layered(layout) | Self::Striped(_, layout) => {
                let contents: Vec<_> = disks.iter().map(SimDisk::contents).collect();
                let mut image = Vec::with_capacity(size);
                while image.len() < size {
                    let (stripe, place, _) = layout.place(image.len() as u64);
                    let place = usize::try_from(place).unwrap();
                    let disk = &contents[usize::from(stripe)];
                    image.extend_from_slice(&disk[place..place + SECTOR]);
                }
                Some(image)
            }
        }
    }
}

/// The disk, and the offset on the disk, at which the striped target must put a sector.
fn layout(disks: &[SimDisk], chunk: u32) -> Layered {
    let stripes = u16::try_from(disks.len()).unwrap();
    let geometry = Geometry::new(0);
    let (files, durability) = (Vec::new(), Durability::default());
    Layered { geometry, files, durability, stripes, chunk, mirrored: false, max_steps: 0 }
}

impl Target for Subject {
    fn geometry(&self) -> &Geometry {
        self.kind.target().geometry()
    }

    fn files(&self) -> &[RawFd] {
        self.kind.target().files()
    }

    fn durability(&self) -> &Durability {
        self.kind.target().durability()
    }

    fn max_steps(&self) -> usize {
        self.kind.target().max_steps().max(1)
    }

    fn elsewhere(&self) -> Option<&dyn Elsewhere> {
        self.kind.target().elsewhere()
    }

    fn plan(&self, request: &Request, plan: &mut Plan<'_>) -> Result<(), Errno> {
        if let Some(rounds) = &self.rounds {
            return rounds.plan(self.kind.target(), request, plan);
        }
        self.kind.target().plan(request, plan)
    }

    fn memory(&self) -> Option<&Arc<Region>> {
        self.kind.target().memory()
    }

    fn takes_rounds(&self) -> bool {
        self.rounds.is_some() || self.kind.target().takes_rounds()
    }

    fn next(&self, request: &Request, ended: Ended, plan: &mut Plan<'_>) -> Next {
        let target = self.kind.target();
        match &self.rounds {
            Some(rounds) => rounds.next(target, request, ended, plan),
            None => target.next(request, ended, plan),
        }
    }

    fn failed(&self, request: &Request, ticket: u64) {
        match &self.rounds {
            Some(rounds) => rounds.ended(),
            None => self.kind.target().failed(request, ticket),
        }
    }

    fn deserted(&self) {
        self.rounds.iter().for_each(Rounds::desert);
        self.kind.target().deserted();
    }
}
