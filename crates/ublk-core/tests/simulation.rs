//! Targets on the simulated driver, with real files and real threads.

use std::fs::{self, File};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ublk_core::device::{BufferMode, DeviceOptions};
use ublk_core::driver::sim::{ClientOp, Faults, Outcome, SimConfig};
use ublk_core::simulation::Simulation;
use ublk_core::targets::file::{File as FileTarget, FileOptions};

const SIZE: u64 = 1 << 20;

type Results = Vec<Outcome>;

/// A file of zeros in memory, and a path by which it can be opened as often as wanted.
fn image() -> (File, PathBuf) {
    // SAFETY: a literal with its NUL.
    let fd = unsafe { libc::memfd_create(c"image".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0);
    // SAFETY: fresh from the kernel, and owned by nobody else.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    file.set_len(SIZE).unwrap();
    (file, format!("/proc/self/fd/{fd}").into())
}

fn simulation(seed: u64, faults: Faults) -> Simulation {
    let config = SimConfig { faults, ..SimConfig::blocking(seed) };
    let options = DeviceOptions { max_io_bytes: 64 << 10, ..DeviceOptions::default() };
    Simulation::new(config, &options)
}

fn open(path: &Path) -> impl FnOnce() -> ublk_core::error::Result<FileTarget> {
    || FileTarget::open(path, &FileOptions::default())
}

fn run(simulation: &Simulation, ops: &[ClientOp]) -> Results {
    let mut results = vec![Err(0); ops.len()];
    simulation.begin(ops, false).finish(|ended| {
        ended.into_iter().for_each(|(at, result)| results[at] = result);
    });
    results
}

fn write(offset: u64, byte: u8, length: usize) -> ClientOp {
    ClientOp::Write { offset, data: vec![byte; length], fua: false }
}

fn read(offset: u64, length: u32) -> ClientOp {
    ClientOp::Read { offset, length }
}

fn contents(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(SIZE).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn transfers_longer_than_a_request_are_cut_and_put_together() {
    let (file, path) = image();
    let simulation = simulation(1, Faults::none());
    let device = simulation.serve(open(&path)).unwrap();
    assert_eq!(device.buffers().mode, BufferMode::Auto);
    let mut data: Vec<u8> = (0..=250).cycle().take(200 << 10).collect();
    let ops = [ClientOp::Write { offset: 4096, data: data.clone(), fua: false }];
    assert_eq!(run(&simulation, &ops), [Ok(vec![])]);
    assert_eq!(run(&simulation, &[read(4096, 200 << 10)]), [Ok(data.clone())]);
    assert_eq!(device.stats()[0].writes, 4);
    assert!(contents(&file).iter().all(|&byte| byte == 0), "nothing was synced");
    let zeros = ClientOp::WriteZeroes { offset: 8192, length: 4096, no_unmap: false };
    let discard = ClientOp::Discard { offset: 16384, length: 4096 };
    assert_eq!(run(&simulation, &[zeros, discard]), [Ok(vec![]), Ok(vec![])]);
    data[4096..8192].fill(0);
    data[12288..16384].fill(0);
    simulation.close().unwrap();
    assert_eq!(contents(&file)[4096..][..200 << 10], data);
}

#[test]
fn a_power_cut_spares_what_was_flushed_and_tears_the_rest() {
    let (file, path) = image();
    let simulation = simulation(3, Faults::none());
    simulation.serve(open(&path)).unwrap();
    run(&simulation, &[write(0, 1, 64 << 10)]);
    run(&simulation, &[ClientOp::Flush]);
    run(&simulation, &[write(32 << 10, 2, 64 << 10)]);
    let under_way = simulation.begin(&[write(128 << 10, 3, 64 << 10)], true);
    simulation.power_cycle(open(&path)).unwrap();
    under_way.finish(drop);
    let left = run(&simulation, &[read(0, 192 << 10)]).remove(0).unwrap();
    assert_eq!(left, contents(&file)[..192 << 10], "what is left is on disk");
    assert!(left[..32 << 10].iter().all(|&byte| byte == 1));
    let mut torn: Vec<u8> = left[32 << 10..96 << 10].to_vec();
    torn.sort_unstable();
    torn.dedup();
    assert_eq!(torn, [0, 1, 2]);
    simulation.close().unwrap();
}

#[test]
fn the_same_seed_does_the_same() {
    let faults = Faults { short: 100, error: 50, interrupted: 100, command: 50, ..Faults::none() };
    let history = |seed| {
        let (file, path) = image();
        let simulation = simulation(seed, faults);
        simulation.serve(open(&path)).unwrap();
        let mut results = Vec::new();
        for round in 0..20_u8 {
            let at = u64::from(round) * 16384;
            let ops = [write(at, round, 16384), write(at + 8192, 99, 8192), read(0, 32 << 10)];
            results.push(run(&simulation, &ops));
            if round == 10 {
                run(&simulation, &[ClientOp::Flush]);
            }
        }
        let ops = [write(0, 111, 64 << 10), write(64 << 10, 112, 64 << 10)];
        let under_way = simulation.begin(&ops, true);
        simulation.power_cycle(open(&path)).unwrap();
        under_way.finish(|ended| results.push(ended.into_iter().map(|one| one.1).collect()));
        let injected = simulation.injected();
        assert!(injected.short > 0 && injected.error > 0 && injected.interrupted > 0);
        simulation.close().unwrap();
        (results, injected, contents(&file))
    };
    let first = history(5);
    for _ in 0..5 {
        assert!(history(5) == first, "the seed alone decides");
    }
    assert!(history(6) != first, "and it does");
}

#[test]
fn without_a_device_operations_fail() {
    let (_file, path) = image();
    let simulation = simulation(1, Faults::none());
    assert_eq!(run(&simulation, &[read(0, 512)]), [Err(libc::ENODEV)]);
    simulation.serve(open(&path)).unwrap();
    simulation.close().unwrap();
    assert_eq!(run(&simulation, &[read(0, 512)]), [Err(libc::ENODEV)]);
    simulation.close().unwrap();
    assert!(fs::metadata(&path).is_ok());
}
