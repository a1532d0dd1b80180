//! Snapshots of overlays that are being written to.

#![expect(clippy::cast_possible_truncation, reason = "blocks of a small disk")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ublk_core::driver::sim::Client;
use ublk_core::targets::delay::{Delay, Delays};
use ublk_core::targets::file::{Direct, FileOptions};
use ublk_core::targets::native::Native;
use ublk_core::targets::overlay::{self, Overlay, OverlayOptions};
use ublk_core::targets::{self, Boot};

use super::*;

const BLOCK: usize = 4096;
const BLOCKS: u64 = 64;
const SNAPSHOTS: usize = 12;

/// A base of zeros and a layer, in a folder that goes with this.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let parent = std::env::var("UBLK_FOLDER").unwrap_or("/dev/shm".into());
        let path = format!("{parent}/ublk-device-{}-{number}", std::process::id());
        let path = PathBuf::from(path);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("base"), vec![0; BLOCK * BLOCKS as usize]).unwrap();
        Self(path)
    }

    fn open(&self, layer: &Path) -> Native {
        let how = FileOptions { direct: Direct::No, read_only: true, ..FileOptions::default() };
        let base = targets::file::File::open(&self.0.join("base"), &how).unwrap();
        let options = OverlayOptions {
            create: true,
            history: Some(PathBuf::from("/dev/shm")),
            direct: Direct::No,
            boot: Some(Boot::simulated(1)),
            ..OverlayOptions::default()
        };
        let overlay = Overlay::open(Native::File(base), layer, &options).unwrap();
        Native::Overlay(Box::new(overlay))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// The last number that was written to each block: begun, and answered.
#[derive(Default)]
struct Written {
    begun: Vec<AtomicU64>,
    answered: Vec<AtomicU64>,
}

fn numbers(of: &[AtomicU64]) -> Vec<u64> {
    of.iter().map(|number| number.load(Ordering::SeqCst)).collect()
}

/// Writes to every second block in turn, from `first` on, and checks what it wrote before, until `ends`.
fn write(client: &Client, first: u64, written: &Written, ends: &AtomicBool) {
    let mut number = 0;
    while !ends.load(Ordering::Relaxed) {
        for block in (first..BLOCKS).step_by(2) {
            number += 1;
            let offset = block * BLOCK as u64;
            let at = block as usize;
            let before = written.answered[at].load(Ordering::SeqCst);
            assert_eq!(read(client, block), before, "block {block}");
            written.begun[at].store(number, Ordering::SeqCst);
            let data = number.to_le_bytes().repeat(BLOCK / 8);
            let done = client.run(&ClientOp::Write { offset, data, fua: false });
            assert_eq!(done.result, Ok(()));
            written.answered[at].store(number, Ordering::SeqCst);
            if number % 50 == 0 {
                assert_eq!(client.run(&ClientOp::Flush).result, Ok(()));
            }
        }
    }
}

fn read(client: &Client, block: u64) -> u64 {
    let done = client.run(&ClientOp::Read { offset: block * BLOCK as u64, length: BLOCK as u32 });
    assert_eq!(done.result, Ok(()));
    let number: [u8; 8] = done.data[..8].try_into().unwrap();
    assert_eq!(done.data, number.repeat(BLOCK / 8), "a block of two writes");
    u64::from_le_bytes(number)
}

/// Each block of a snapshot holds a number that was begun before its end, and none older than what was
/// answered before its beginning.
fn check(sim: &Sim, folder: &Folder, snapshot: &Path, oldest: &[u64], newest: &[u64]) {
    let child = PathBuf::from(format!("{}.child", snapshot.display()));
    overlay::fork(snapshot, std::slice::from_ref(&child), None).unwrap();
    let device = Device::create(sim, folder.open(&child), options()).unwrap();
    let client = sim.client(device.info().id).unwrap();
    for block in 0..BLOCKS {
        let (found, at) = (read(&client, block), block as usize);
        let allowed = oldest[at]..=newest[at];
        assert!(allowed.contains(&found), "block {block} holds {found}, not one of {allowed:?}");
    }
    drop(client);
    device.close().unwrap();
}

fn snapshots(options: DeviceOptions, pooled: bool, wrap: impl Fn(Native) -> Native) {
    let (sim, folder) = (Sim::new(SimConfig::blocking(4)), Folder::new());
    let pool = pooled.then(|| Pool::new(&sim, PoolOptions::of(2)).unwrap());
    let target = wrap(folder.open(&folder.0.join("layer")));
    let device = match &pool {
        Some(pool) => Device::create_in(pool, &sim, target, options),
        None => Device::create(&sim, target, options),
    };
    let device = device.unwrap();
    let numbers_of = || (0..BLOCKS).map(|_| AtomicU64::new(0)).collect();
    let written = Written { begun: numbers_of(), answered: numbers_of() };
    let ends = AtomicBool::new(false);
    let mut taken = Vec::new();
    thread::scope(|scope| {
        let clients = [0, 1].map(|first| (first, Arc::new(sim.client(device.info().id).unwrap())));
        let (written, ends) = (&written, &ends);
        for (first, client) in clients {
            scope.spawn(move || write(&client, first, written, ends));
        }
        for number in 0..SNAPSHOTS {
            let until_later = numbers(&written.begun).iter().sum::<u64>() + 100;
            until("writes", || numbers(&written.begun).iter().sum::<u64>() > until_later);
            let oldest = numbers(&written.answered);
            let name = (number % 2 == 0).then(|| folder.0.join(format!("snapshot-{number}")));
            let snapshot = device.snapshot(name, Vec::new()).unwrap();
            taken.push((snapshot, oldest, numbers(&written.begun)));
        }
        ends.store(true, Ordering::Relaxed);
    });
    for (snapshot, oldest, newest) in &taken {
        check(&sim, &folder, &snapshot.file, oldest, newest);
    }
    let id = device.info().id;
    device.close().unwrap();
    drop(pool);
    assert_nothing_left(&sim, id);
    assert!(taken.is_sorted_by_key(|(snapshot, ..)| snapshot.generation));
}

#[test]
fn a_disk_that_is_written_to_is_snapshot_and_nothing_fails() {
    let _alone = alone();
    for exchange in [ExchangeMode::PerIo, ExchangeMode::Batch] {
        snapshots(DeviceOptions { exchange: Some(exchange), ..options() }, false, |one| one);
    }
    snapshots(DeviceOptions { rings_apart: true, ..options() }, false, |one| one);
    snapshots(options(), true, |one| one);
    let later = Delays { read: 200, write: 300, flush: 100 };
    snapshots(options(), false, |one| Native::Delay(Delay::new(one, later)));
    settle();
}

/// Prints how long forks of a disk take that is being written to, with few and with 200,000 extents:
/// `cargo test --release -p ublk-core --test device forks_take -- --ignored --nocapture`. `UBLK_FOLDER` names a
/// folder on the file system to be measured.
#[test]
#[ignore = "measures, and asserts nothing"]
#[expect(clippy::print_stdout, reason = "that is what it is for")]
fn forks_take() {
    let _alone = alone();
    for extents in [0, 200_000] {
        let (sim, folder) = (Sim::new(SimConfig::blocking(6)), Folder::new());
        let size = 1 << 31;
        fs::File::create(folder.0.join("base")).unwrap().set_len(size).unwrap();
        let device = Device::create(&sim, folder.open(&folder.0.join("layer")), options()).unwrap();
        let client = sim.client(device.info().id).unwrap();
        for block in 0..extents {
            // Every second block, so that no two make one extent.
            let (offset, data) = (block * 2 * BLOCK as u64, vec![1; BLOCK]);
            assert_eq!(client.run(&ClientOp::Write { offset, data, fua: false }).result, Ok(()));
        }
        client.run(&ClientOp::Flush);
        let ends = AtomicBool::new(false);
        let mut took: Vec<_> = thread::scope(|scope| {
            scope.spawn(|| {
                for block in (0..100_000).cycle() {
                    let (offset, data) = (block * BLOCK as u64, vec![2; BLOCK]);
                    client.run(&ClientOp::Write { offset, data, fua: false });
                    if ends.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
            let took = (0..64).map(|number| {
                thread::sleep(Duration::from_millis(20));
                let begun = Instant::now();
                device.snapshot(None, vec![folder.0.join(format!("child-{number}"))]).unwrap();
                begun.elapsed()
            });
            let took = took.collect();
            ends.store(true, Ordering::Relaxed);
            took
        });
        took.sort();
        println!("{extents} extents: p50 {:?}, p99 {:?}, most {:?}", took[32], took[62], took[63]);
        drop(client);
        device.close().unwrap();
    }
}

#[test]
fn a_snapshot_of_what_has_none_or_has_ended_is_refused() {
    let _alone = alone();
    let sim = Sim::new(SimConfig::blocking(5));
    let disk = sim.file(SIZE);
    let device = create(&sim, &disk, options());
    assert_eq!(device.snapshot(None, Vec::new()).unwrap_err().code, Code::Unsupported);
    device.close().unwrap();
    let folder = Folder::new();
    let device = Device::create(&sim, folder.open(&folder.0.join("layer")), options()).unwrap();
    device.close().unwrap();
    assert_eq!(device.snapshot(None, Vec::new()).unwrap_err().code, Code::Closed);
}
