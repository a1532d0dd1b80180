//! Zones in a file, on a machine that loses its power: a write pointer is never ahead of its data, and
//! never behind what was flushed.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use ublk_core::device::DeviceOptions;
use ublk_core::driver::sim::{ClientOp, Faults, Outcome, SimConfig, ZoneAction};
use ublk_core::error::Result;
use ublk_core::simulation::Simulation;
use ublk_core::targets::file::{Direct, FileOptions};
use ublk_core::targets::zoned::{Zoned, ZonedOptions};

const ZONE: u64 = 64 << 10;
const ZONES: u64 = 4;
const SECTOR: usize = 512;

/// A folder with a file of zones, gone with this.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ublk-zones-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        // What was there before is no zeros, so that it is known when it shows.
        fs::write(path.join("disk"), vec![0xee; usize::try_from(ZONE * ZONES).unwrap()]).unwrap();
        Self(path)
    }

    fn open(&self, simulation: &Simulation) -> Result<Zoned> {
        let boot = Some(simulation.boot());
        let options = ZonedOptions { zone_size: ZONE, create: true, boot, ..Default::default() };
        let how = FileOptions { direct: Direct::No, ..FileOptions::default() };
        Zoned::open(&self.0.join("disk"), &how, &options)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn simulation(seed: u64) -> Simulation {
    let faults = Faults { delay: 500, short: 100, ..Faults::none() };
    let config = SimConfig { faults, ..SimConfig::blocking(seed) };
    Simulation::new(config, &DeviceOptions { max_io_bytes: 32 << 10, ..DeviceOptions::default() })
}

fn run(simulation: &Simulation, op: ClientOp) -> Outcome {
    let mut result = Err(0);
    simulation.begin(&[op], false).finish(|ended| result = ended.into_iter().next().unwrap().1);
    result
}

/// Sectors that say which write they are of.
fn data(birth: u8, length: u64) -> Vec<u8> {
    vec![birth; usize::try_from(length).unwrap()]
}

fn write(birth: u8, offset: u64, length: u64) -> ClientOp {
    ClientOp::Write { offset, data: data(birth, length), fua: false }
}

/// How much of each zone is written, by a report.
fn pointers(simulation: &Simulation) -> Vec<u64> {
    let count = u32::try_from(ZONES).unwrap();
    let report = run(simulation, ClientOp::ReportZones { first: 0, count }).unwrap();
    let zones = report.chunks(report.len() / usize::try_from(ZONES).unwrap()).enumerate();
    let pointer = |zone: &[u8]| u64::from_ne_bytes(zone[16..24].try_into().unwrap()) << 9;
    zones.map(|(at, zone)| pointer(zone) - at as u64 * ZONE).collect()
}

fn contents(simulation: &Simulation, zone: u64, length: u64) -> Vec<u8> {
    if length == 0 {
        return Vec::new();
    }
    let length = u32::try_from(length).unwrap();
    run(simulation, ClientOp::Read { offset: zone * ZONE, length }).unwrap()
}

#[test]
fn a_write_pointer_is_between_what_was_flushed_and_what_was_written() {
    for seed in 0..40 {
        let folder = Folder::new("cut");
        let simulation = simulation(seed);
        simulation.serve(|| folder.open(&simulation)).unwrap();
        run(&simulation, write(1, 0, 16 << 10)).unwrap();
        run(&simulation, write(1, ZONE, 8 << 10)).unwrap();
        run(&simulation, ClientOp::Flush).unwrap();
        run(&simulation, write(2, 16 << 10, 16 << 10)).unwrap();
        // A flush that may or may not get so far, and a write beside it.
        let ops = [ClientOp::Flush, write(3, 32 << 10, 16 << 10)];
        let under_way = simulation.begin(&ops, true);
        simulation.power_cycle(|| folder.open(&simulation)).unwrap();
        let mut flushed = false;
        under_way.finish(|ended| {
            flushed |= ended.iter().any(|(at, outcome)| *at == 0 && outcome.is_ok());
        });
        let pointers = pointers(&simulation);
        let least = if flushed { 32 << 10 } else { 16 << 10 };
        assert!(pointers[0] >= least, "seed {seed}: {pointers:?}, flushed: {flushed}");
        assert_eq!(pointers[1..], [8 << 10, 0, 0]);
        let expected = [data(1, 16 << 10), data(2, 16 << 10), data(3, 16 << 10)].concat();
        let found = contents(&simulation, 0, pointers[0]);
        assert!(found == expected[..found.len()], "seed {seed}: old bytes below {pointers:?}");
        // What is not durable yet is written once more, and nobody refuses it.
        run(&simulation, write(4, pointers[0], 512)).unwrap();
        simulation.close().unwrap();
    }
}

#[test]
fn a_zone_that_was_emptied_shows_nothing_of_what_it_held() {
    for seed in 0..40 {
        let folder = Folder::new("reset");
        let simulation = simulation(seed);
        simulation.serve(|| folder.open(&simulation)).unwrap();
        run(&simulation, write(1, 0, 32 << 10)).unwrap();
        run(&simulation, write(1, ZONE, 32 << 10)).unwrap();
        run(&simulation, ClientOp::Flush).unwrap();
        run(&simulation, ClientOp::Zone { action: ZoneAction::Reset, zone: 0 }).unwrap();
        run(&simulation, write(2, 0, 16 << 10)).unwrap();
        // Another zone is emptied while the power goes.
        let reset = ClientOp::Zone { action: ZoneAction::Reset, zone: ZONE };
        let under_way = simulation.begin(&[reset, ClientOp::Flush], true);
        simulation.power_cycle(|| folder.open(&simulation)).unwrap();
        under_way.finish(drop);
        let pointers = pointers(&simulation);
        let found = contents(&simulation, 0, pointers[0]);
        assert!(found == data(2, 16 << 10)[..found.len()], "seed {seed}: {pointers:?}");
        let found = contents(&simulation, 1, pointers[1]);
        assert!(found.is_empty() || found == data(1, 32 << 10), "seed {seed}: {pointers:?}");
        simulation.close().unwrap();
    }
}

#[test]
fn a_server_that_closes_in_good_order_leaves_all_to_the_next_boot() {
    let folder = Folder::new("close");
    let first = simulation(1);
    first.serve(|| folder.open(&first)).unwrap();
    run(&first, write(1, 0, 16 << 10)).unwrap();
    first.close().unwrap();
    let second = simulation(2);
    second.serve(|| folder.open(&second)).unwrap();
    assert_eq!(pointers(&second), [16 << 10, 0, 0, 0]);
    assert_eq!(contents(&second, 0, 16 << 10), data(1, 16 << 10));
    second.close().unwrap();
}

#[test]
fn a_state_that_is_cut_under_its_server_kills_nobody() {
    let folder = Folder::new("truncated");
    let simulation = simulation(1);
    simulation.serve(|| folder.open(&simulation)).unwrap();
    run(&simulation, write(1, 0, 4096)).unwrap();
    let state = File::options().write(true).open(folder.0.join("disk.zones")).unwrap();
    state.set_len(0).unwrap();
    run(&simulation, write(1, 4096, 4096)).unwrap();
    assert_eq!(pointers(&simulation)[0], 8192);
    let mut start = [0; SECTOR];
    File::open(folder.0.join("disk")).unwrap().read_exact_at(&mut start, 0).unwrap();
    simulation.close().unwrap();
    let refused = folder.open(&simulation).unwrap_err();
    assert_eq!(refused.code, ublk_core::error::Code::BadBackend);
}
