//! Snapshots of a running disk: what is in them, what waits for them, and what a kill leaves.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::super::{Boot, Op, Snapshot, SnapshotOptions, Target};
use super::super::snapshot::Stage;
use super::super::{Overlay, fork, info};
use super::disk::{Cache, Folder, block_of, of_base, stamp_of};
use super::machine::{Now, Running, run};
use crate::error::{Code, Error, Result};

const DISK: u64 = 64;
pub(super) const STAGES: [Stage; 5] =
    [Stage::Made, Stage::Drained, Stage::Durable, Stage::Exchanged, Stage::Frozen];

fn disk() -> (Folder, Cache, Overlay, Boot) {
    let folder = Folder::new(DISK);
    folder.make(3);
    let boot = Boot::simulated(1);
    let overlay = folder.open(&boot).unwrap();
    let cache = Cache::new(&folder.layer());
    (folder, cache, overlay, boot)
}

fn named(file: Option<PathBuf>) -> SnapshotOptions {
    SnapshotOptions { file, children: Vec::new(), limit: Duration::ZERO }
}

fn snapshot(overlay: &Overlay, cache: &mut Cache, name: Option<PathBuf>) -> Result<Snapshot> {
    let taken = overlay.take_snapshot(&named(name), cache)?;
    cache.go_on();
    Ok(taken)
}

fn write(overlay: &Overlay, cache: &mut Cache, block: u64, stamp: u64) {
    run(overlay, cache, Op::Write, (block, 1), block_of(stamp)).unwrap();
}

fn read(overlay: &Overlay, cache: &mut Cache, block: u64) -> u64 {
    stamp_of(&run(overlay, cache, Op::Read, (block, 1), Vec::new()).unwrap())
}

/// What a disk that stands on a snapshot holds.
fn on(folder: &Folder, snapshot: &Path, blocks: &[u64]) -> Vec<u64> {
    let child = snapshot.with_extension("child");
    fork(snapshot, std::slice::from_ref(&child), None).unwrap();
    let options = folder.options(&Boot::simulated(9));
    let overlay = Overlay::open(folder.base(), &child, &options).unwrap();
    let mut cache = Cache::new(&child);
    let found = blocks.iter().map(|&block| read(&overlay, &mut cache, block)).collect();
    drop(overlay);
    fs::remove_file(child).unwrap();
    found
}

#[test]
fn a_snapshot_keeps_what_the_disk_held_and_the_disk_goes_on() {
    let (folder, mut cache, overlay, boot) = disk();
    let layout = overlay.layout();
    write(&overlay, &mut cache, 1, 11);
    write(&overlay, &mut cache, 2, 12);
    let first = snapshot(&overlay, &mut cache, None).unwrap();
    write(&overlay, &mut cache, 2, 22);
    run(&overlay, &mut cache, Op::Discard, (1, 1), Vec::new()).unwrap();
    let name = folder.path.join("second");
    let second = snapshot(&overlay, &mut cache, Some(name.clone())).unwrap();
    assert_eq!(second.file, name);
    assert!(second.generation > first.generation, "{first:?} {second:?}");
    write(&overlay, &mut cache, 3, 33);
    write(&overlay, &mut cache, 2, 32);
    let now =
        |overlay: &Overlay, cache: &mut Cache| [1, 2, 3, 4].map(|at| read(overlay, cache, at));
    assert_eq!(now(&overlay, &mut cache), [0, 32, 33, of_base(4)]);
    // Both while the disk is served.
    assert_eq!(on(&folder, &first.file, &[1, 2, 3]), [11, 12, of_base(3)]);
    assert_eq!(on(&folder, &second.file, &[1, 2, 3]), [0, 22, of_base(3)]);
    assert_eq!(overlay.layout(), layout, "recovery finds the same disk");
    boot.end();
    drop(overlay);
    let again = folder.open(&Boot::simulated(1)).unwrap();
    cache.opened();
    assert_eq!(now(&again, &mut cache), [0, 32, 33, of_base(4)], "after a kill");
    assert_eq!(again.layout(), layout);
    drop(again);
    let layers = info(&folder.layer()).unwrap();
    assert_eq!(layers.len(), 3);
    assert_eq!(folder.histories(), 0, "none of a frozen layer, none of a closed one");
}

#[test]
fn children_of_a_running_disk_begin_with_what_it_held() {
    let (folder, mut cache, overlay, _) = disk();
    write(&overlay, &mut cache, 1, 11);
    let children = ["a", "b"].map(|name| folder.path.join(name)).to_vec();
    let options = SnapshotOptions { children: children.clone(), ..named(None) };
    overlay.take_snapshot(&options, &cache).unwrap();
    cache.go_on();
    write(&overlay, &mut cache, 1, 21);
    for child in &children {
        let options = folder.options(&Boot::simulated(1));
        let served = Overlay::open(folder.base(), child, &options).unwrap();
        let mut own = Cache::new(child);
        assert_eq!(read(&served, &mut own, 1), 11);
        assert_ne!(served.layout(), overlay.layout(), "another disk");
        write(&served, &mut own, 1, 31);
        assert_eq!(read(&served, &mut own, 1), 31);
    }
    assert_eq!(read(&overlay, &mut cache, 1), 21);
    let before = info_files(&folder);
    for (children, code) in [
        (vec![folder.path.join("c"), folder.path.join("c")], Code::InvalidArgument),
        (vec!["/dev/shm/c".into()], Code::InvalidArgument),
        (vec![folder.path.join("c"), children[0].clone()], Code::BadBackend),
    ] {
        let options = SnapshotOptions { children, ..named(None) };
        let error = overlay.take_snapshot(&options, &cache).unwrap_err();
        assert_eq!(error.code, code, "{error}");
        assert_eq!(info_files(&folder), before, "nothing is left of it");
    }
}

#[test]
fn a_fork_takes_no_space_but_for_its_superblocks_until_it_is_written_to() {
    let (folder, mut cache, overlay, _) = disk();
    write(&overlay, &mut cache, 1, 11);
    let child = folder.path.join("child");
    let options = SnapshotOptions { children: vec![child.clone()], ..named(None) };
    let taken = overlay.take_snapshot(&options, &cache).unwrap();
    cache.go_on();
    let space = |path: &Path| fs::metadata(path).unwrap().blocks() * 512;
    assert_eq!([space(&child), space(&folder.layer())], [8192; 2]);
    // The frozen layer has a block of data, and one of the log.
    assert_eq!(space(&taken.file), 8192 + 2 * 4096);
}

#[test]
fn a_kill_at_any_stage_leaves_the_disk_and_the_next_snapshot_removes_what_is_left() {
    for (stage, named_again) in STAGES.into_iter().flat_map(|stage| [(stage, true), (stage, false)])
    {
        let (folder, mut cache, overlay, boot) = disk();
        write(&overlay, &mut cache, 1, 11);
        let generation = overlay.live().head.superblock().generation + 1;
        let name = match named_again {
            true => folder.path.join("taken"),
            false => folder.path.join(format!("layer.{generation}")),
        };
        let options = named(named_again.then(|| name.clone()));
        let killed = overlay.take_observed_snapshot(&options, &cache, &mut |at| {
            if at != stage {
                return Ok(());
            }
            boot.end();
            Err(Error::new(Code::Closed, "killed"))
        });
        assert_eq!(killed.unwrap_err().message, "killed");
        drop(overlay);
        let went_on = matches!(stage, Stage::Exchanged | Stage::Frozen);
        let again = folder.open(&Boot::simulated(1)).unwrap();
        let mut cache = Cache::new(&folder.layer());
        assert_eq!(read(&again, &mut cache, 1), 11, "{stage:?}");
        write(&again, &mut cache, 1, 21);
        let next =
            snapshot(&again, &mut cache, (!went_on && named_again).then(|| name.clone())).unwrap();
        write(&again, &mut cache, 1, 31);
        assert_eq!(on(&folder, &next.file, &[1, 2]), [21, of_base(2)], "{stage:?}");
        if went_on {
            assert_eq!(on(&folder, &name, &[1, 2]), [11, of_base(2)], "{stage:?}");
        }
        assert_eq!(read(&again, &mut cache, 1), 31);
        drop(again);
        assert_eq!(info(&folder.layer()).unwrap().len(), if went_on { 3 } else { 2 }, "{stage:?}");
        let layers = fs::read_dir(&folder.path).unwrap().count();
        assert_eq!(layers, if went_on { 5 } else { 4 }, "{stage:?}: base, history, layers");
        assert_eq!(folder.histories(), 0, "{stage:?}");
    }
}

#[test]
fn requests_but_reads_wait_for_a_snapshot_and_go_to_the_new_layer() {
    let (folder, mut cache, overlay, _) = disk();
    write(&overlay, &mut cache, 1, 11);
    let name = folder.path.join("taken");
    let mut waiting = Vec::new();
    // A cache of its own for what runs meanwhile: requests that wait have no steps.
    let mut meanwhile = Cache::new(&folder.layer());
    let taken = overlay.take_observed_snapshot(&named(Some(name)), &cache, &mut |at| {
        if matches!(at, Stage::Made) {
            return Ok(());
        }
        assert_eq!(read(&overlay, &mut meanwhile, 1), 11, "reads go on at {at:?}");
        for (op, range) in [(Op::Write, (1, 1)), (Op::Discard, (2, 1)), (Op::Flush, (0, 0))] {
            let mut running = Running::begin(&overlay, op, range, block_of(99)).unwrap();
            assert!(running.steps().is_empty());
            for _ in 0..3 {
                let now = running.advance(&overlay, &mut meanwhile, |_| 0, |_| None);
                assert_eq!(now, Now::Parked, "{op:?} at {at:?}");
            }
            waiting.push(running);
        }
        Ok(())
    });
    cache.go_on();
    for mut running in waiting {
        while running.advance(&overlay, &mut cache, |_| 0, |_| None) != Now::Ended(Ok(())) {}
    }
    assert_eq!(read(&overlay, &mut cache, 1), 99);
    assert_eq!(read(&overlay, &mut cache, 2), 0);
    assert_eq!(on(&folder, &taken.unwrap().file, &[1, 2]), [11, of_base(2)]);
}

#[test]
fn a_read_that_began_in_the_old_layer_ends_there() {
    let (_folder, mut cache, overlay, _) = disk();
    for block in 0..DISK / 2 {
        write(&overlay, &mut cache, 2 * block, 100 + block);
    }
    let mut reading = Running::begin(&overlay, Op::Read, (0, DISK), Vec::new()).unwrap();
    snapshot(&overlay, &mut cache, None).unwrap();
    for block in 0..DISK {
        write(&overlay, &mut cache, block, 1000 + block);
    }
    while reading.advance(&overlay, &mut cache, |_| 0, |_| None) != Now::Ended(Ok(())) {}
    let found = reading.bytes.chunks(4096).map(stamp_of);
    for (block, stamp) in (0..).zip(found) {
        let before = if block % 2 == 0 { 100 + block / 2 } else { of_base(block) };
        assert!(stamp == before || stamp == 1000 + block, "block {block} holds {stamp}");
    }
}

#[test]
fn a_log_that_is_being_made_anew_meanwhile_leaves_the_generation() {
    let generation = |overlay: &Overlay| overlay.live().head.superblock().generation;
    let write_and_flush = |overlay: &Overlay, cache: &mut Cache, number: u64| {
        write(overlay, cache, number % 4, number);
        run(overlay, cache, Op::Flush, (0, 0), Vec::new()).unwrap();
    };
    // Each flush makes the log longer; with one of them a new log takes its place.
    let (_folder, mut cache, overlay, _) = disk();
    let first = generation(&overlay);
    let flushes = (0..500).find(|&number| {
        run(&overlay, &mut cache, Op::Discard, (number % 4, 1), Vec::new()).unwrap();
        write_and_flush(&overlay, &mut cache, number);
        generation(&overlay) > first
    });
    let flushes = flushes.expect("a new log");

    let (folder, mut cache, overlay, _) = disk();
    for number in 0..flushes {
        run(&overlay, &mut cache, Op::Discard, (number % 4, 1), Vec::new()).unwrap();
        write_and_flush(&overlay, &mut cache, number);
    }
    write(&overlay, &mut cache, 5, 55);
    let mut flush = Some(Running::begin(&overlay, Op::Flush, (0, 0), Vec::new()).unwrap());
    let mut meanwhile = Cache::new(&folder.layer());
    let taken = overlay.take_observed_snapshot(&named(None), &cache, &mut |_| {
        if let Some(mut flush) = flush.take() {
            while flush.advance(&overlay, &mut meanwhile, |_| 0, |_| None) != Now::Ended(Ok(())) {}
        }
        Ok(())
    });
    cache.go_on();
    assert_eq!(on(&folder, &taken.unwrap().file, &[5]), [55]);
    drop(overlay);
    let again = folder.open(&Boot::simulated(1)).unwrap();
    cache.opened();
    assert_eq!(read(&again, &mut cache, 5), 55, "the new layer knows the frozen one");
}

#[test]
fn a_snapshot_that_cannot_be_leaves_everything_as_it_was() {
    let (folder, mut cache, overlay, _) = disk();
    write(&overlay, &mut cache, 1, 11);
    let before = info_files(&folder);
    let refused = |cache: &Cache, name: Option<PathBuf>, code: Code| {
        let error = overlay.take_snapshot(&named(name), cache).unwrap_err();
        assert_eq!(error.code, code, "{error}");
        assert_eq!(info_files(&folder), before, "{error}");
    };
    refused(&cache, Some("/dev/shm/elsewhere".into()), Code::InvalidArgument);
    refused(&cache, Some(folder.path.join("base")), Code::BadBackend);
    // A write in place, and a write to a new place.
    for (block, stamp) in [(1, 11), (2, 22)] {
        let busy = Running::begin(&overlay, Op::Write, (block, 1), block_of(stamp)).unwrap();
        refused(&cache, None, Code::Timeout);
        busy.give_up(&overlay, &mut cache);
    }
    let twice = overlay.take_observed_snapshot(&named(None), &cache, &mut |_| {
        let error = overlay.take_snapshot(&named(None), &cache).unwrap_err();
        assert_eq!(error.code, Code::Busy, "{error}");
        Err(error)
    });
    assert_eq!(twice.unwrap_err().code, Code::Busy);
    assert_eq!(info_files(&folder), before);
    fs::rename(folder.layer(), folder.path.join("moved")).unwrap();
    fs::copy(folder.path.join("moved"), folder.layer()).unwrap();
    assert_eq!(overlay.take_snapshot(&named(None), &cache).unwrap_err().code, Code::BadBackend);
    fs::rename(folder.path.join("moved"), folder.layer()).unwrap();
    snapshot(&overlay, &mut cache, None).unwrap();
    assert_eq!(read(&overlay, &mut cache, 1), 11);
}

fn info_files(folder: &Folder) -> (usize, usize) {
    (fs::read_dir(&folder.path).unwrap().count(), folder.histories())
}

#[test]
fn a_server_takes_as_many_snapshots_as_it_has_places_and_the_next_one_more() {
    let (folder, mut cache, mut overlay, _) = disk();
    for round in 0..2 {
        for _ in 0..64 {
            snapshot(&overlay, &mut cache, None).unwrap();
        }
        let error = overlay.take_snapshot(&named(None), &cache).unwrap_err();
        assert_eq!(error.code, Code::Resources, "{error}");
        write(&overlay, &mut cache, 5, round);
        drop(overlay);
        overlay = folder.open(&Boot::simulated(1)).unwrap();
        cache = Cache::new(&folder.layer());
        assert_eq!(read(&overlay, &mut cache, 5), round);
    }
}
