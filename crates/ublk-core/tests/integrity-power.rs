//! Protection information beside data, on a machine that loses its power: every sector is what was
//! written last, or what was written before, and its metadata says so.

use std::fs;
use std::path::PathBuf;

use ublk_core::device::{BufferMode, DeviceOptions};
use ublk_core::driver::sim::{ClientOp, Faults, Outcome, SimConfig};
use ublk_core::error::Result;
use ublk_core::simulation::Simulation;
use ublk_core::targets::file::{Direct, FileOptions};
use ublk_core::targets::integrity::{Checksum, Integrity, IntegrityFormat, IntegrityOptions};

const SIZE: u64 = 1 << 20;
const SECTOR: u64 = 512;
/// The sectors that are written, over and over.
const SECTORS: u64 = 48;

/// A folder with a file of data, gone with this.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ublk-pairs-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("disk"), vec![0; usize::try_from(SIZE).unwrap()]).unwrap();
        Self(path)
    }

    fn open(&self, checksum: Checksum) -> Result<Integrity> {
        let format = IntegrityFormat {
            metadata_size: checksum.tuple_size(),
            checksum,
            reference_tags: true,
            ..Default::default()
        };
        let options = IntegrityOptions { format, ..Default::default() };
        let how = FileOptions { direct: Direct::No, ..FileOptions::default() };
        Integrity::open(&self.0.join("disk"), &how, &options)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn simulation(seed: u64) -> Simulation {
    let faults = Faults { delay: 500, short: 100, interrupted: 50, ..Faults::none() };
    let config = SimConfig { faults, ..SimConfig::blocking(seed) };
    let buffers = [BufferMode::Auto, BufferMode::Register, BufferMode::UserCopy];
    let options = DeviceOptions {
        queues: 1 + u16::try_from(seed % 2).unwrap(),
        max_io_bytes: 64 << 10,
        buffers: vec![buffers[usize::try_from(seed % 3).unwrap()]],
        ..DeviceOptions::default()
    };
    Simulation::new(config, &options)
}

fn run_all(simulation: &Simulation, ops: &[ClientOp]) -> Vec<Outcome> {
    let mut results = vec![Err(0); ops.len()];
    simulation.begin(ops, false).finish(|ended| {
        ended.into_iter().for_each(|(at, result)| results[at] = result);
    });
    results
}

/// A write of `count` sectors from `first` on, all of them full of `birth`.
fn write(birth: u8, first: u64, count: u64) -> ClientOp {
    let data = vec![birth; usize::try_from(count * SECTOR).unwrap()];
    ClientOp::Write { offset: first * SECTOR, data, fua: birth.is_multiple_of(4) }
}

fn read(first: u64, count: u64) -> ClientOp {
    let length = u32::try_from(count * SECTOR).unwrap();
    ClientOp::Read { offset: first * SECTOR, length }
}

/// Which write each sector is of; `EILSEQ` where its metadata is of another one.
fn births(simulation: &Simulation) -> std::result::Result<Vec<u8>, i32> {
    let ops: Vec<_> = (0..SECTORS).map(|sector| read(sector, 1)).collect();
    let sectors: std::result::Result<Vec<_>, _> = run_all(simulation, &ops).into_iter().collect();
    let birth = |sector: Vec<u8>| {
        assert!(sector.iter().all(|&byte| byte == sector[0]), "a torn sector");
        sector[0]
    };
    Ok(sectors?.into_iter().map(birth).collect())
}

#[test]
fn after_a_power_cut_each_sector_is_of_one_write() {
    let kinds = [Checksum::Ip, Checksum::Crc16, Checksum::Crc64];
    for seed in 0..60 {
        let folder = Folder::new("cut");
        let checksum = kinds[usize::try_from(seed % 3).unwrap()];
        let simulation = simulation(seed);
        simulation.serve(|| folder.open(checksum)).unwrap();
        for cut in 0..3_u8 {
            let birth = 1 + cut * 4;
            run_all(&simulation, &[write(birth, 0, SECTORS)]).remove(0).unwrap();
            run_all(&simulation, &[ClientOp::Flush]).remove(0).unwrap();
            // Some end before the power goes; some are under way, and meet others.
            let ops: Vec<_> = (0..6).map(|at| write(birth + 1, at * 8, 8)).collect();
            run_all(&simulation, &ops[..3]).into_iter().for_each(|one| drop(one.unwrap()));
            let more = [write(birth + 2, 12, 24), write(birth + 3, 30, 10), ClientOp::Flush];
            let under_way = simulation.begin(&[&ops[3..], &more].concat(), true);
            simulation.power_cycle(|| folder.open(checksum)).unwrap();
            under_way.finish(drop);
            let found = births(&simulation);
            let found = found.unwrap_or_else(|errno| panic!("seed {seed}: a read fails: {errno}"));
            assert!(found.iter().all(|one| (birth..birth + 4).contains(one)), "{seed}: {found:?}");
        }
        simulation.close().unwrap();
    }
}

#[test]
fn a_sector_that_is_read_while_it_is_written_is_of_one_write() {
    for seed in 0..60 {
        let folder = Folder::new("beside");
        let simulation = simulation(seed);
        simulation.serve(|| folder.open(Checksum::Crc16)).unwrap();
        run_all(&simulation, &[write(1, 0, SECTORS)]).remove(0).unwrap();
        let ops = [
            write(2, 0, 16),
            read(0, 32),
            write(3, 8, 16),
            read(4, 24),
            write(4, 0, SECTORS),
            read(0, SECTORS),
        ];
        for (at, result) in run_all(&simulation, &ops).into_iter().enumerate() {
            result.unwrap_or_else(|errno| panic!("seed {seed}: operation {at} fails: {errno}"));
        }
        births(&simulation).unwrap();
        simulation.close().unwrap();
    }
}
