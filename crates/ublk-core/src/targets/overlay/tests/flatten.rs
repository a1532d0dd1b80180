//! Merges of the frozen layers of a running disk.

#![expect(clippy::cast_possible_truncation, reason = "small numbers")]

use std::cell::Cell;
use std::fs;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::super::super::{
    Boot, FlattenOptions, Frozen, Merged, Op, Progress, Queues, SnapshotOptions, Target,
};
use super::super::offline::kill;
use super::super::{Overlay, fork, info};
use super::disk::{Cache, Folder, block_of, of_base, stamp_of};
use super::machine::{Now, Running, run};
use crate::error::{Code, Result};

const DISK: u64 = 64;

/// A disk that is served, and what it should hold.
struct Served {
    folder: Folder,
    overlay: Option<Overlay>,
    cache: Cache,
    model: Vec<u64>,
    state: u64,
    stamp: u64,
}

impl Served {
    fn new(seed: u64) -> Self {
        let folder = Folder::new(DISK);
        folder.make(3);
        let overlay = Some(folder.open(&Boot::simulated(1)).unwrap());
        let cache = Cache::new(&folder.layer());
        let model = (0..DISK).map(of_base).collect();
        Self { folder, overlay, cache, model, state: seed, stamp: 0 }
    }

    fn overlay(&self) -> &Overlay {
        self.overlay.as_ref().unwrap()
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.state >> 33) % below
    }

    /// Some writes and discards of up to four blocks.
    fn change(&mut self, times: u64) {
        for _ in 0..times {
            let (block, count) = (self.draw(DISK - 4), 1 + self.draw(4));
            let (op, stamp) = match self.draw(5) {
                0 => (Op::Discard, 0),
                _ => (Op::Write, self.stamp + 1),
            };
            self.stamp += 1;
            let length = if op == Op::Write { count } else { 0 };
            let bytes = (0..length).flat_map(|_| block_of(stamp)).collect();
            let overlay = self.overlay.as_ref().unwrap();
            run(overlay, &mut self.cache, op, (block, count), bytes).unwrap();
            (block..block + count).for_each(|block| self.model[block as usize] = stamp);
        }
    }

    fn snapshot(&mut self) -> PathBuf {
        let options = SnapshotOptions { file: None, children: Vec::new(), limit: Duration::ZERO };
        let taken = self.overlay().take_snapshot(&options, &self.cache).unwrap();
        self.cache.go_on();
        taken.file
    }

    fn flatten(&self, prunes: bool) -> Result<Merged> {
        self.overlay().flatten_below(&how(prunes), &self.cache, &Progress::default())
    }

    fn check(&mut self, when: &str) {
        let overlay = self.overlay.as_ref().unwrap();
        let all = run(overlay, &mut self.cache, Op::Read, (0, DISK), Vec::new()).unwrap();
        let found: Vec<_> = all.chunks(4096).map(stamp_of).collect();
        assert_eq!(found, self.model, "{when}");
    }

    /// Another server opens the disk, after a close or a kill.
    fn serve_again(&mut self) {
        drop(self.overlay.take());
        self.overlay = Some(self.folder.open(&Boot::simulated(1)).unwrap());
        self.cache = Cache::new(&self.folder.layer());
    }

    fn depth(&mut self) -> usize {
        drop(self.overlay.take());
        let depth = info(&self.folder.layer()).unwrap().len();
        self.serve_again();
        depth
    }
}

fn how(prunes: bool) -> FlattenOptions {
    FlattenOptions { prunes, limit: Duration::ZERO }
}

/// The stamps that a disk of its own on a frozen layer holds.
fn on(folder: &Folder, frozen: &Path) -> Vec<u64> {
    let child = frozen.with_extension("child");
    fork(frozen, std::slice::from_ref(&child), None).unwrap();
    let overlay =
        Overlay::open(folder.base(), &child, &folder.options(&Boot::simulated(9))).unwrap();
    let all = run(&overlay, &mut Cache::new(&child), Op::Read, (0, DISK), Vec::new()).unwrap();
    drop(overlay);
    fs::remove_file(child).unwrap();
    all.chunks(4096).map(stamp_of).collect()
}

/// The files of the folder that this process has open and that have no name any more.
fn open_without_name(folder: &Folder) -> Vec<String> {
    let open = fs::read_dir("/proc/self/fd").unwrap();
    let open = open.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    let folder = folder.path.display().to_string();
    open.map(|path| path.display().to_string())
        .filter(|path| path.starts_with(&folder) && path.ends_with(" (deleted)"))
        .collect()
}

#[test]
fn the_frozen_layers_become_one_and_the_disk_goes_on() {
    for seed in 0..8 {
        let mut disk = Served::new(seed);
        for round in 0..3 {
            let mut below = Vec::new();
            for _ in 0..3 {
                disk.change(12);
                below.push(disk.snapshot());
            }
            let frozen = disk.model.clone();
            disk.change(12);
            let merged = disk.flatten(true).unwrap();
            let highest = below.pop().unwrap();
            assert!(below.iter().all(|path| merged.removed.contains(path)), "{merged:?}");
            assert_eq!(merged.kept, [] as [PathBuf; 0]);
            assert_eq!(open_without_name(&disk.folder), [""; 0], "the old files are closed");
            let closed = disk.overlay().files.iter().filter(|fd| {
                let shown = fs::read_link(format!("/proc/self/fd/{fd}"));
                shown.is_ok_and(|path| path == Path::new("/dev/null"))
            });
            assert_ne!(closed.count(), 0, "the numbers must not come to mean other files");
            disk.check("merged");
            assert_eq!(on(&disk.folder, &highest), frozen, "the highest layer holds the same");
            disk.change(12);
            disk.check("written to after a merge");
            if round == 1 {
                disk.serve_again();
                disk.check("another server");
            }
        }
        assert_eq!(disk.depth(), 2);
        disk.check("seed {seed}");
    }
}

#[test]
fn clients_go_on_while_layers_are_merged() {
    for seed in 0..4 {
        let mut disk = Served::new(seed);
        for _ in 0..4 {
            disk.change(20);
            disk.snapshot();
        }
        let overlay = Arc::new(disk.overlay.take().unwrap());
        let (added, server) = (Arc::clone(&disk.cache.added), Arc::clone(&overlay));
        let progress = Arc::new(Progress::default());
        progress.set_pace(2 << 20);
        let merging = thread::spawn(move || {
            let options = FlattenOptions { prunes: false, limit: Duration::from_secs(60) };
            server.flatten_below(&options, &*added, &progress).unwrap()
        });
        loop {
            let ended = merging.is_finished();
            let block = disk.draw(DISK);
            let bytes = run(&overlay, &mut disk.cache, Op::Read, (block, 1), Vec::new()).unwrap();
            assert_eq!(stamp_of(&bytes), disk.model[block as usize]);
            let (block, stamp) = (disk.draw(DISK), disk.stamp + 1);
            disk.stamp = stamp;
            run(&overlay, &mut disk.cache, Op::Write, (block, 1), block_of(stamp)).unwrap();
            disk.model[block as usize] = stamp;
            if ended {
                break;
            }
        }
        assert_eq!(merging.join().unwrap().kept.len(), 3);
        disk.overlay = Some(Arc::into_inner(overlay).unwrap());
        disk.check("merged under load");
        assert_eq!(disk.depth(), 2);
    }
}

#[test]
fn a_merge_that_ends_at_any_point_leaves_the_disk_as_it_is_and_as_the_next_server_finds_it() {
    for killed in [false, true] {
        for points in 0.. {
            let mut disk = Served::new(7);
            for _ in 0..3 {
                disk.change(20);
                disk.snapshot();
            }
            disk.change(5);
            let (result, ended) = kill::after(points, || disk.flatten(true));
            assert_eq!(result.is_ok(), ended);
            disk.check("the same server");
            if killed {
                disk.serve_again();
                disk.check("the next server");
            } else {
                disk.change(20);
                disk.flatten(true).unwrap();
                disk.check("merged by a second try");
            }
            if ended {
                assert!(points > 2);
                break;
            }
        }
    }
    let disk = {
        let mut disk = Served::new(8);
        (0..2).for_each(|_| {
            disk.change(9);
            disk.snapshot();
        });
        disk
    };
    let progress = Progress::default();
    progress.cancel();
    let before = fs::read_dir(&disk.folder.path).unwrap().count();
    let error = disk.overlay().flatten_below(&how(true), &disk.cache, &progress).unwrap_err();
    assert_eq!(error.errno, Some(libc::ECANCELED));
    assert_eq!(fs::read_dir(&disk.folder.path).unwrap().count(), before);
}

#[test]
fn a_read_that_knows_the_old_files_keeps_these_open() {
    let mut disk = Served::new(5);
    for _ in 0..3 {
        disk.change(30);
        disk.snapshot();
    }
    let mut reading = Running::begin(disk.overlay(), Op::Read, (0, DISK), Vec::new()).unwrap();
    let model = disk.model.clone();
    let merged = disk.flatten(true).unwrap();
    assert_eq!((merged.kept.len(), merged.removed.len()), (2, 0), "still in use");
    while reading.advance(disk.overlay.as_ref().unwrap(), &mut disk.cache, |_| 0, |_| None)
        != Now::Ended(Ok(()))
    {}
    assert_eq!(reading.bytes.chunks(4096).map(stamp_of).collect::<Vec<_>>(), model);
    disk.flatten(false).unwrap();
    assert_eq!(open_without_name(&disk.folder), [""; 0], "closed by the next merge");
    disk.check("merged twice");
}

#[test]
fn a_merge_makes_room_for_more_snapshots_of_one_server() {
    let mut disk = Served::new(3);
    for _ in 0..4 {
        for _ in 0..40 {
            disk.change(1);
            disk.snapshot();
        }
        disk.flatten(true).unwrap();
        disk.check("after forty snapshots");
    }
    assert_eq!(fs::read_dir(&disk.folder.path).unwrap().count(), 4, "base, history, two layers");
}

#[test]
fn what_others_stand_on_is_not_copied_and_these_go_on() {
    let mut disk = Served::new(4);
    disk.change(20);
    let low = disk.snapshot();
    let (child, of_child) = (disk.folder.path.join("child"), disk.model.clone());
    fork(&low, std::slice::from_ref(&child), None).unwrap();
    let options = disk.folder.options(&Boot::simulated(9));
    let sibling = Overlay::open(disk.folder.base(), &child, &options).unwrap();
    let mut above = Vec::new();
    for _ in 0..3 {
        disk.change(20);
        above.push(disk.snapshot());
    }
    let merged = disk.flatten(true).unwrap();
    assert_eq!(merged.kept, [] as [PathBuf; 0]);
    assert_eq!(merged.removed, [above[1].as_path(), above[0].as_path()]);
    assert_eq!(disk.flatten(true).unwrap(), Merged::default(), "nothing is left to merge");
    let all = run(&sibling, &mut Cache::new(&child), Op::Read, (0, DISK), Vec::new()).unwrap();
    assert_eq!(all.chunks(4096).map(stamp_of).collect::<Vec<_>>(), of_child);
    disk.check("beside a sibling");
    assert_eq!(disk.depth(), 3);
    disk.check("beside a sibling, another server");
}

#[test]
fn a_disk_tells_what_its_frozen_layers_take_and_would_take_as_one() {
    let mut disk = Served::new(6);
    let look = |disk: &Served| disk.overlay().frozen().unwrap().unwrap();
    assert_eq!(look(&disk), Frozen { layers: 0, allocated: 0, stored: 0 });
    for block in [1, 2, 2, 3] {
        run(disk.overlay.as_ref().unwrap(), &mut disk.cache, Op::Write, (block, 1), block_of(7))
            .unwrap();
        disk.snapshot();
    }
    let before = look(&disk);
    assert_eq!((before.layers, before.stored), (4, 3 * 4096));
    disk.flatten(false).unwrap();
    let after = look(&disk);
    assert_eq!((after.layers, after.stored), (1, 3 * 4096));
    assert!(after.allocated < before.allocated, "{after:?} {before:?}");
    disk.serve_again();
    assert_eq!(look(&disk).stored, after.stored);
}

/// Merges once more when the merge gives the queues its file.
struct Twice<'a> {
    disk: &'a Served,
    refused: Cell<Option<Code>>,
}

impl Queues for Twice<'_> {
    fn add_file(&self, place: u16, file: BorrowedFd<'_>) -> Result<()> {
        self.refused.set(self.disk.flatten(false).err().map(|error| error.code));
        self.disk.cache.add_file(place, file)
    }

    fn write_back(&self) -> Result<()> {
        Ok(())
    }
}

#[test]
fn what_cannot_be_merged_stays() {
    let mut disk = Served::new(2);
    disk.change(20);
    assert_eq!(disk.flatten(true).unwrap(), Merged::default(), "no frozen layer");
    disk.snapshot();
    assert_eq!(disk.flatten(true).unwrap(), Merged::default(), "one frozen layer");
    disk.change(20);
    let highest = disk.snapshot();
    let twice = Twice { disk: &disk, refused: Cell::new(None) };
    disk.overlay().flatten_below(&how(false), &twice, &Progress::default()).unwrap();
    assert_eq!(twice.refused.get(), Some(Code::Busy));
    disk.change(20);
    disk.snapshot();
    fs::rename(&highest, disk.folder.path.join("moved")).unwrap();
    let error = disk.flatten(false).unwrap_err();
    assert!(error.hint.is_some(), "{error}");
    disk.check("a layer is away");
    fs::rename(disk.folder.path.join("moved"), &highest).unwrap();
    disk.flatten(false).unwrap();
    disk.check("the layer is back");
}
