//! Lives of a server, each ended by a power cut, by kill -9, also in the middle of a snapshot, or
//! in good order: after each life, every block of the disk and of every snapshot holds a value that
//! the clients may expect.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::super::{Boot, Errno, Op, SnapshotOptions, Step, StepKind};
use super::super::snapshot::Stage;
use super::super::{Overlay, fork};
use super::disk::{BLOCK, Cache, Folder, bytes_of, of_base, stamp_of};
use super::machine::{Now, Running, run};
use super::snapshots::STAGES;
use crate::error::{Code, Error};

/// Lives; `UBLK_LIVES` asks for another number.
const LIVES: u64 = 3000;
const LIVES_OF_A_DISK: u64 = 30;
const DISK: u64 = 24;
/// Lives of disks with logical blocks of 512 bytes.
const LIVES_IN_SECTORS: u64 = 1500;

/// A small generator with a seed (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// The possible contents of a block.
#[derive(Clone, Debug)]
struct Block {
    /// Stamps in the order of the writes' beginnings, from the last stamp certain to be durable.
    stamps: Vec<u64>,
    /// How many stamps there were before these.
    gone: usize,
    /// The stamp of the last answered write, counted from the first stamp of all; readers see this
    /// stamp or a later stamp.
    now: usize,
    /// A write or discard of the block is under way.
    busy: bool,
}

impl Block {
    fn new(stamp: u64) -> Self {
        Self { stamps: vec![stamp], gone: 0, now: 0, busy: false }
    }

    fn visible_from(&self, now: usize) -> &[u64] {
        &self.stamps[now.saturating_sub(self.gone)..]
    }

    fn flushed(&mut self, now: usize) {
        let durable = now.saturating_sub(self.gone);
        self.stamps.drain(..durable);
        self.gone += durable;
    }
}

/// A snapshot, and the possible stamps of each block.
struct Kept {
    file: PathBuf,
    stamps: Vec<Vec<u64>>,
}

/// A request under way, and the data needed at the request's end.
struct Flight {
    running: Running,
    range: (u64, u64),
    /// For each block of a read or a flush: the last answered write at the beginning of the
    /// request, and the possible stamps then.
    began: Vec<(usize, Vec<u64>)>,
}

struct Life<'a> {
    random: &'a mut Random,
    /// The logical block, in bytes: the unit of all that follows.
    unit: u64,
    overlay: Overlay,
    cache: &'a mut Cache,
    blocks: &'a mut Vec<Block>,
    flights: Vec<Flight>,
    stamp: &'a mut u64,
    failures: bool,
    boot: &'a Boot,
    kept: &'a mut Vec<Kept>,
}

fn range(blocks: (u64, u64)) -> std::ops::Range<usize> {
    let from = usize::try_from(blocks.0).unwrap();
    from..from + usize::try_from(blocks.1).unwrap()
}

impl Life<'_> {
    fn begin(&mut self) {
        let disk = self.blocks.len() as u64;
        let from = self.random.below(disk);
        let count = 1 + self.random.below(disk - from);
        let (op, blocks) = match self.random.below(10) {
            0..5 => (Op::Write, (from, count.min(1 + self.random.below(12)))),
            5..7 => (Op::Read, (from, count)),
            7 => (Op::Discard, (from, count)),
            8 => (Op::WriteZeroes, (from, count)),
            _ => (Op::Flush, (0, 0)),
        };
        // Parts of blocks stay.
        let whole = || {
            let to = (blocks.0 + blocks.1) * self.unit / BLOCK as u64;
            let from = (blocks.0 * self.unit).div_ceil(BLOCK as u64);
            let units = BLOCK as u64 / self.unit;
            (from * units, to.saturating_sub(from) * units)
        };
        let (changed, blocks) = match op {
            Op::Discard => (whole(), blocks),
            _ => (blocks, blocks),
        };
        let changes = matches!(op, Op::Write | Op::Discard | Op::WriteZeroes);
        if changes && self.blocks[range(changed)].iter().any(|block| block.busy) {
            return;
        }
        *self.stamp += 1;
        let stamp = if op == Op::Write { *self.stamp } else { 0 };
        let concerned = if op == Op::Flush { 0..self.blocks.len() } else { range(changed) };
        let began = self.blocks[concerned].iter();
        let began =
            began.map(|block| (block.now, block.visible_from(block.now).to_vec())).collect();
        if changes {
            for block in &mut self.blocks[range(changed)] {
                block.stamps.push(stamp);
                block.busy = true;
            }
            self.show(changed, stamp);
        }
        let (offset, length) = (blocks.0 * self.unit, blocks.1 * self.unit);
        let bytes = bytes_of(stamp, usize::try_from(length).unwrap());
        let running = Running::begin_bytes(&self.overlay, op, (offset, length), bytes).unwrap();
        self.flights.push(Flight { running, range: changed, began });
    }

    /// Reads under way may find this write, whatever is written later.
    fn show(&mut self, blocks: (u64, u64), stamp: u64) {
        for flight in &mut self.flights {
            for (block, (_, stamps)) in range(flight.range).zip(&mut flight.began) {
                if range(blocks).contains(&block) {
                    stamps.push(stamp);
                }
            }
        }
    }

    fn advance(&mut self) {
        if self.flights.is_empty() {
            return;
        }
        let which = usize::try_from(self.random.below(self.flights.len() as u64)).unwrap();
        let (random, failures) = (&mut *self.random, self.failures);
        let choice = random.next();
        let draw = random.below(20);
        let fails = |step: &Step| match step.kind {
            StepKind::Allocate if failures && draw < 4 => Some(Errno(libc::ENOSPC)),
            StepKind::Write { .. } | StepKind::Read | StepKind::PunchHole
                if failures && draw == 5 =>
            {
                Some(Errno(libc::EIO))
            }
            _ => None,
        };
        let choose = |of: usize| usize::try_from(choice % of as u64).unwrap();
        let flight = &mut self.flights[which];
        if let Now::Ended(result) = flight.running.advance(&self.overlay, self.cache, choose, fails)
        {
            let flight = self.flights.swap_remove(which);
            self.end(&flight, result);
        }
    }

    /// Takes a snapshot once only reads are under way. Answers whether the server is still there.
    fn snapshot(&mut self) -> bool {
        let writes = |flight: &Flight| flight.running.request.op != Op::Read;
        // A request may wait for another request.
        while self.flights.iter().any(writes) {
            self.advance();
        }
        let killed_at = STAGES.get(usize::try_from(self.random.below(15)).unwrap());
        let options = SnapshotOptions { file: None, children: Vec::new(), limit: Duration::ZERO };
        let mut last = None;
        let taken = self.overlay.take_observed_snapshot(&options, &*self.cache, &mut |stage| {
            last = Some(stage);
            if Some(&stage) == killed_at {
                self.boot.end();
                return Err(Error::new(Code::Closed, "killed"));
            }
            Ok(())
        });
        let stamps = self.blocks.iter().map(|block| block.visible_from(block.now).to_vec());
        let kept = Kept {
            file: taken.as_ref().map_or_else(|_| PathBuf::new(), |one| one.file.clone()),
            stamps: stamps.collect(),
        };
        if matches!(last, Some(Stage::Durable | Stage::Exchanged | Stage::Frozen)) {
            self.cache.sync();
            self.blocks.iter_mut().for_each(|block| block.flushed(block.now));
        }
        match taken {
            Ok(_) => {
                self.cache.go_on();
                self.kept.push(kept);
            }
            Err(error) if error.message == "killed" => {
                if matches!(last, Some(Stage::Exchanged | Stage::Frozen)) {
                    self.cache.go_on();
                }
                return false;
            }
            Err(error) => assert_eq!(error.code, Code::Closed, "{error}"),
        }
        true
    }

    fn end(&mut self, flight: &Flight, result: Result<(), Errno>) {
        let op = flight.running.request.op;
        match op {
            Op::Flush if result.is_ok() => {
                for (block, (now, _)) in self.blocks.iter_mut().zip(&flight.began) {
                    block.flushed(*now);
                }
            }
            Op::Read if result.is_ok() => self.check_read(flight),
            Op::Write | Op::Discard | Op::WriteZeroes => {
                for block in &mut self.blocks[range(flight.range)] {
                    block.busy = false;
                    if result.is_ok() {
                        block.now = block.gone + block.stamps.len() - 1;
                    }
                }
            }
            _ => {}
        }
        if result.is_err() {
            assert!(self.failures, "{op:?} fails with {result:?}");
        }
    }

    fn check_read(&self, flight: &Flight) {
        let unit = usize::try_from(self.unit).unwrap();
        let blocks = flight.running.bytes.chunks(unit).zip(&self.blocks[range(flight.range)]);
        for ((found, block), (now, then)) in blocks.zip(&flight.began) {
            let stamp = stamp_of(found);
            assert!(
                then.contains(&stamp) || block.visible_from(*now).contains(&stamp),
                "a read found {stamp}, not one of {then:?} or {block:?}"
            );
        }
    }
}

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    PowerCut,
    Kill,
    /// A kill, and the history was lost.
    Lost,
    Close,
}

fn lives(seed: u64, unit: u32, count: u64) {
    let mut random = Random(seed);
    let folder = Folder::of(DISK, unit);
    folder.make(3);
    let unit = usize::try_from(unit).unwrap();
    let mut cache = Cache::of(&folder.layer(), unit);
    let units = (BLOCK / unit) as u64;
    let mut blocks: Vec<_> =
        (0..DISK * units).map(|number| Block::new(of_base(number / units))).collect();
    let (mut boot_id, mut stamp, mut last) = (1, 0, End::Close);
    let mut history = folder.path.join("history");
    let mut kept = Vec::new();
    for life in 0..count {
        let boot = Boot::simulated(boot_id);
        if random.below(3) == 0 {
            let other = folder.empty_history(&format!("history-{life}"));
            if last == End::Kill {
                let refused = folder.open_with(&boot, &other, false).unwrap_err();
                assert_eq!(refused.code, Code::BadBackend, "seed {seed}, life {life}: {refused}");
            }
            if last != End::Kill || random.below(3) == 0 {
                history = other;
                last = if last == End::Kill { End::Lost } else { last };
            }
        }
        let overlay = folder.open_with(&boot, &history, last == End::Lost);
        let overlay = overlay.unwrap_or_else(|error| panic!("seed {seed}, life {life}: {error}"));
        // Opening itself writes a superblock and syncs the file, past this cache.
        cache.sync();
        cache.opened();
        check_all(&overlay, &mut cache, &mut blocks, last, (seed, life));
        let failures = random.below(3) == 0;
        let steps = random.below(600);
        let mut server = Life {
            random: &mut random,
            unit: unit as u64,
            overlay,
            cache: &mut cache,
            blocks: &mut blocks,
            flights: Vec::new(),
            stamp: &mut stamp,
            failures,
            boot: &boot,
            kept: &mut kept,
        };
        let mut killed = false;
        for _ in 0..steps {
            if server.random.below(150) == 0 {
                killed = !server.snapshot();
                if killed {
                    break;
                }
            } else if server.flights.len() < 6 && server.random.below(4) == 0 {
                server.begin();
            } else {
                server.advance();
            }
        }
        let end = [End::PowerCut, End::Kill, End::Close]
            [usize::try_from(server.random.below(if killed { 2 } else { 3 })).unwrap()];
        if end == End::Close {
            while !server.flights.is_empty() {
                server.advance();
            }
        } else {
            boot.end();
        }
        drop(server);
        last = end;
        if end == End::PowerCut {
            cache.cut_power(|below| random.below(below));
            boot_id += 1;
        }
    }
    for Kept { file, stamps } in kept {
        check_snapshot(&folder, &file, &stamps, seed);
    }
}

/// A disk on a snapshot holds a possible state of the snapshot.
fn check_snapshot(folder: &Folder, file: &Path, stamps: &[Vec<u64>], seed: u64) {
    let child = folder.path.join("child");
    fork(file, std::slice::from_ref(&child), None).unwrap();
    let options = folder.options(&Boot::simulated(0));
    let overlay = Overlay::open(folder.base(), &child, &options).unwrap();
    let bytes = run(&overlay, &mut Cache::new(&child), Op::Read, (0, DISK), Vec::new()).unwrap();
    let unit = bytes.len() / stamps.len();
    for (number, (found, allowed)) in bytes.chunks(unit).zip(stamps).enumerate() {
        let stamp = stamp_of(found);
        let name = file.display();
        assert!(
            allowed.contains(&stamp),
            "seed {seed}, {name}: block {number} holds {stamp}, not one of {allowed:?}"
        );
    }
    drop(overlay);
    fs::remove_file(child).unwrap();
}

/// Each block holds a possible stamp, and from now on only this stamp.
fn check_all(
    overlay: &Overlay,
    cache: &mut Cache,
    blocks: &mut [Block],
    last: End,
    (seed, life): (u64, u64),
) {
    let bytes = run(overlay, cache, Op::Read, (0, DISK), Vec::new()).unwrap();
    let unit = bytes.len() / blocks.len();
    for (number, (found, block)) in bytes.chunks(unit).zip(blocks).enumerate() {
        let stamp = stamp_of(found);
        let allowed = match last {
            End::PowerCut | End::Lost => &block.stamps[..],
            End::Kill | End::Close => block.visible_from(block.now),
        };
        assert!(
            allowed.contains(&stamp),
            "seed {seed}, life {life}: block {number} holds {stamp}, not one of {block:?}"
        );
        if last == End::Kill {
            // A power cut may still take the stamp.
            block.stamps.push(stamp);
            (block.now, block.busy) = (block.gone + block.stamps.len() - 1, false);
        } else {
            *block = Block::new(stamp);
        }
    }
}

fn all_lives(unit: u32, most: u64) {
    let number = |name: &str| std::env::var(name).ok()?.parse().ok();
    if let Some(seed) = number("UBLK_SEED") {
        return lives(seed, unit, LIVES_OF_A_DISK);
    }
    for seed in 0..number("UBLK_LIVES").unwrap_or(most) / LIVES_OF_A_DISK {
        lives(seed, unit, LIVES_OF_A_DISK);
    }
}

#[test]
fn what_was_answered_survives_a_kill_and_what_was_flushed_a_power_cut() {
    all_lives(4096, LIVES);
}

#[test]
fn each_sector_of_512_bytes_survives_a_kill_or_a_power_cut_as_a_block_does() {
    all_lives(512, LIVES_IN_SECTORS);
}
