//! What requests become.

use std::fs;

use super::super::super::file::{Direct, File, FileOptions};
use super::super::super::native::Native;
use super::super::super::striped::Striped;
use super::super::super::{Boot, Errno, Op, Place, Step, StepKind, Target};
use super::super::{Overlay, create};
use super::disk::{BLOCK, Cache, Folder, block_of, of_base, stamp_of};
use super::machine::{Now, Running, run};

const DISK: u64 = 2048;
const B: u64 = BLOCK as u64;
const MIB: u64 = 1 << 20;

fn disk() -> (Folder, Cache, Overlay, Boot) {
    let folder = Folder::new(DISK);
    folder.make(8);
    let (cache, boot) = (Cache::new(&folder.layer()), Boot::simulated(1));
    let overlay = folder.open(&boot).unwrap();
    (folder, cache, overlay, boot)
}

/// The steps of a request's first round: kind, stage, file, place in the bytes, length, offset.
fn steps(overlay: &Overlay, op: Op, range: (u64, u64)) -> Vec<(StepKind, u8, u16, u32, u64, u64)> {
    let bytes = vec![1; usize::try_from(range.1 * B).unwrap()];
    let running = Running::begin(overlay, op, range, bytes).unwrap();
    let steps = running.steps().iter();
    let steps = steps.map(|step| {
        (step.kind, step.stage, step.file, step.at, u64::from(step.length), step.offset)
    });
    steps.collect()
}

const WRITE: StepKind = StepKind::Write { dsync: false };

fn write(overlay: &Overlay, cache: &mut Cache, block: u64, count: u64, stamp: u64) {
    let bytes = block_of(stamp).repeat(usize::try_from(count).unwrap());
    run(overlay, cache, Op::Write, (block, count), bytes).unwrap();
}

#[test]
fn a_first_write_is_appended_and_a_later_one_goes_in_place() {
    let (_folder, mut cache, overlay, _) = disk();
    let first = steps(&overlay, Op::Write, (7, 2));
    let expected = [(StepKind::Allocate, 0, 0, 0, MIB, 2 * MIB), (WRITE, 1, 0, 0, 2 * B, 2 * MIB)];
    assert_eq!(first, expected, "the first two segments hold superblocks and the log");
    write(&overlay, &mut cache, 40, 2, 5);
    let later = steps(&overlay, Op::Write, (40, 3));
    let place = 2 * MIB + 2 * B;
    let expected = [(WRITE, 0, 0, 0, 2 * B, place), (WRITE, 0, 0, 8192, B, place + 2 * B)];
    assert_eq!(later, expected, "whole blocks never read the base, and space is allocated once");
}

#[test]
fn reads_take_each_block_from_where_it_is() {
    let (_folder, mut cache, overlay, _) = disk();
    write(&overlay, &mut cache, 1, 2, 5);
    run(&overlay, &mut cache, Op::WriteZeroes, (2, 2), Vec::new()).unwrap();
    let expected = [
        (StepKind::Read, 0, 1, 0, B, 0),
        (StepKind::Read, 0, 0, 4096, B, 2 * MIB),
        (StepKind::Zeros, 0, 0, 8192, 2 * B, 0),
        (StepKind::Read, 0, 1, 16384, B, 4 * B),
    ];
    assert_eq!(steps(&overlay, Op::Read, (0, 5)), expected);
}

#[test]
fn a_read_of_more_pieces_than_a_round_has_steps_takes_several() {
    let (_folder, mut cache, overlay, _) = disk();
    for block in (0..200).step_by(2) {
        write(&overlay, &mut cache, block, 1, block + 1);
    }
    let found = run(&overlay, &mut cache, Op::Read, (0, 200), Vec::new()).unwrap();
    for (block, bytes) in (0..).zip(found.chunks(BLOCK)) {
        let expected = if block % 2 == 0 { block + 1 } else { of_base(block) };
        assert_eq!(stamp_of(bytes), expected);
    }
}

#[test]
fn a_write_of_more_than_a_round_can_hold_takes_several() {
    let (_folder, mut cache, overlay, _) = disk();
    for block in (0..600).step_by(3) {
        write(&overlay, &mut cache, block, 1, 1);
    }
    write(&overlay, &mut cache, 0, DISK, 9);
    let found = run(&overlay, &mut cache, Op::Read, (0, DISK), Vec::new()).unwrap();
    assert!(found.chunks(BLOCK).all(|block| stamp_of(block) == 9));
}

#[test]
fn a_flush_syncs_the_data_before_it_writes_the_log() {
    let (_folder, mut cache, overlay, _) = disk();
    write(&overlay, &mut cache, 1, 2, 5);
    let mut flush = Running::begin(&overlay, Op::Flush, (0, 0), Vec::new()).unwrap();
    let mut seen = Vec::new();
    loop {
        seen.extend(flush.steps().first().map(|step| (step.kind, step.place, step.offset)));
        if let Now::Ended(result) = flush.advance(&overlay, &mut cache, |_| 0, |_| None) {
            break result.unwrap();
        }
    }
    let sync = (StepKind::Sync, Place::Request, 0);
    let (grow, log) = ((StepKind::Allocate, Place::Request, MIB), (WRITE, Place::Own, MIB));
    // A new layer has no space for its log.
    assert_eq!(seen, [grow, sync, log, sync]);
    let again = steps(&overlay, Op::Flush, (0, 0));
    assert_eq!(again, [(StepKind::Sync, 0, 0, 0, 0, 0)]);
}

#[test]
fn a_discard_gives_space_back_once_no_request_uses_it() {
    let (_folder, mut cache, overlay, _) = disk();
    write(&overlay, &mut cache, 1, 3, 5);
    let mut read = Running::begin(&overlay, Op::Read, (1, 3), Vec::new()).unwrap();
    run(&overlay, &mut cache, Op::Discard, (1, 3), Vec::new()).unwrap();
    let punched = |cache: &mut Cache| {
        let mut flush = Running::begin(&overlay, Op::Flush, (0, 0), Vec::new()).unwrap();
        let mut punched = Vec::new();
        loop {
            let holes = flush.steps().iter().filter(|step| step.kind == StepKind::PunchHole);
            punched.extend(holes.map(|step| (step.offset, step.length)));
            if let Now::Ended(result) = flush.advance(&overlay, cache, |_| 0, |_| None) {
                result.unwrap();
                return punched;
            }
        }
    };
    assert_eq!(punched(&mut cache), [], "the record is durable only now");
    assert_eq!(punched(&mut cache), [], "the read may still be under way");
    while read.advance(&overlay, &mut cache, |_| 0, |_| None) == Now::Runs {}
    assert!(read.bytes.chunks(BLOCK).all(|block| stamp_of(block) == 5));
    assert_eq!(punched(&mut cache), [(2 * MIB, 3 * 4096)]);
}

#[test]
fn a_flush_waits_for_the_one_under_way() {
    let (_folder, mut cache, overlay, _) = disk();
    write(&overlay, &mut cache, 1, 3, 5);
    let mut first = Running::begin(&overlay, Op::Flush, (0, 0), Vec::new()).unwrap();
    let mut second = Running::begin(&overlay, Op::Flush, (0, 0), Vec::new()).unwrap();
    assert_eq!(second.advance(&overlay, &mut cache, |_| 0, |_| None), Now::Parked);
    while first.advance(&overlay, &mut cache, |_| 0, |_| None) == Now::Runs {}
    assert_eq!(second.advance(&overlay, &mut cache, |_| 0, |_| None), Now::Runs);
    while second.advance(&overlay, &mut cache, |_| 0, |_| None) == Now::Runs {}
    overlay.deserted();
}

#[test]
fn one_flush_serves_all_that_waited_before_it_began_and_no_later_one() {
    let (_folder, mut cache, overlay, _) = disk();
    write(&overlay, &mut cache, 1, 3, 5);
    let begin = || Running::begin(&overlay, Op::Flush, (0, 0), Vec::new()).unwrap();
    let syncs = std::cell::Cell::new(0);
    let mut step = |flush: &mut Running| {
        flush.advance(
            &overlay,
            &mut cache,
            |_| 0,
            |step| {
                syncs.set(syncs.get() + u32::from(step.kind == StepKind::Sync));
                None
            },
        )
    };
    let mut first = begin();
    let mut waiting = [begin(), begin(), begin()];
    for flush in &mut waiting {
        assert_eq!(step(flush), Now::Parked);
    }
    while step(&mut first) == Now::Runs {}
    let [second, others @ ..] = &mut waiting;
    // The second flush has begun when this one comes.
    assert_eq!(step(second), Now::Runs);
    let mut late = begin();
    while step(second) == Now::Runs {}
    let before = syncs.get();
    for flush in others {
        assert_eq!(step(flush), Now::Ended(Ok(())), "served by the second flush");
    }
    assert_eq!(syncs.get(), before);
    while step(&mut late) != Now::Ended(Ok(())) {}
    assert!(syncs.get() > before, "what was answered before the last flush came may be newer");
}

#[test]
fn what_a_lost_reactor_used_is_not_used_again_and_nobody_waits_for_its_flush() {
    let (_folder, mut cache, overlay, _) = disk();
    write(&overlay, &mut cache, 1, 3, 5);
    let _lost = Running::begin(&overlay, Op::Flush, (0, 0), Vec::new()).unwrap();
    overlay.deserted();
    let refused = run(&overlay, &mut cache, Op::Flush, (0, 0), Vec::new());
    assert_eq!(refused.map(drop).unwrap_err().0, libc::EIO);
}

#[test]
fn a_full_disk_fails_the_write_and_loses_nothing() {
    let (_folder, mut cache, overlay, _) = disk();
    let full = Errno(libc::ENOSPC);
    let bytes = block_of(3).repeat(2);
    let mut refused = Running::begin(&overlay, Op::Write, (7, 2), bytes).unwrap();
    refused.advance(&overlay, &mut cache, |_| 0, |_| Some(full));
    assert_eq!(refused.advance(&overlay, &mut cache, |_| 0, |_| None), Now::Ended(Err(full)));
    let found = run(&overlay, &mut cache, Op::Read, (7, 1), Vec::new()).unwrap();
    assert_eq!(stamp_of(&found), of_base(7));
    write(&overlay, &mut cache, 7, 2, 4);
    let found = run(&overlay, &mut cache, Op::Read, (7, 1), Vec::new()).unwrap();
    assert_eq!(stamp_of(&found), 4);
}

/// Advances a request until its end; none: the request does not end. Steps fail where `fails` says so.
fn end(
    running: &mut Running,
    (overlay, cache): (&Overlay, &mut Cache),
    fails: impl Fn(&Step) -> Option<Errno>,
) -> Option<Result<(), Errno>> {
    (0..1000).find_map(|_| match running.advance(overlay, cache, |_| 0, &fails) {
        Now::Ended(result) => Some(result),
        Now::Runs | Now::Parked => None,
    })
}

const EIO: Errno = Errno(libc::EIO);

fn fails_in_the_log(step: &Step) -> Option<Errno> {
    (step.kind == WRITE && step.place == Place::Own).then_some(EIO)
}

#[test]
fn a_flush_that_was_given_up_is_done_by_the_next() {
    let (folder, mut cache, overlay, boot) = disk();
    write(&overlay, &mut cache, 1, 1, 5);
    let mut given_up = Running::begin(&overlay, Op::Flush, (0, 0), Vec::new()).unwrap();
    // In the round that writes the log.
    while given_up.steps().first().is_none_or(|step| step.place != Place::Own) {
        given_up.advance(&overlay, &mut cache, |_| 0, |_| None);
    }
    let mut waits = Running::begin(&overlay, Op::Flush, (0, 0), Vec::new()).unwrap();
    assert_eq!(waits.advance(&overlay, &mut cache, |_| 0, |_| None), Now::Parked);
    given_up.give_up(&overlay, &mut cache);
    assert_eq!(end(&mut waits, (&overlay, &mut cache), |_| None), Some(Ok(())));
    boot.end();
    drop(overlay);
    cache.cut_power(|_| 0);
    let again = folder.open(&Boot::simulated(2)).unwrap();
    let found = run(&again, &mut cache, Op::Read, (1, 1), Vec::new()).unwrap();
    assert_eq!(stamp_of(&found), 5);
}

#[test]
fn writes_end_while_the_history_is_full_and_no_flush_succeeds_and_go_on_after_that() {
    let (_folder, mut cache, overlay, _) = disk();
    let begin = |block| Running::begin(&overlay, Op::Write, (block, 1), block_of(7)).unwrap();
    // More writes than the history has records.
    let results = (0..200).step_by(2).map(|block| {
        end(&mut begin(block), (&overlay, &mut cache), fails_in_the_log).expect("an end")
    });
    let results: Vec<_> = results.collect();
    let full = results.iter().position(|result| *result == Err(EIO)).expect("a full history");
    assert!(full > 8 && results[full..].iter().all(|result| *result == Err(EIO)), "{results:?}");
    // Of two that wait, each runs a flush of its own.
    let mut both = [begin(300), begin(302)];
    for _ in 0..3 {
        for one in &mut both {
            one.advance(&overlay, &mut cache, |_| 0, fails_in_the_log);
        }
    }
    let ends = both.each_mut().map(|one| end(one, (&overlay, &mut cache), fails_in_the_log));
    assert_eq!(ends, [Some(Err(EIO)); 2]);
    write(&overlay, &mut cache, 300, 1, 8);
    for (block, stamp) in [(0, 7), (200, of_base(200)), (300, 8), (302, of_base(302))] {
        let found = run(&overlay, &mut cache, Op::Read, (block, 1), Vec::new()).unwrap();
        assert_eq!(stamp_of(&found), stamp);
    }
}

#[test]
fn nobody_waits_for_a_flush_once_a_sync_has_failed() {
    let (_folder, mut cache, overlay, _) = disk();
    write(&overlay, &mut cache, 1, 1, 5);
    let mut fails = Running::begin(&overlay, Op::Flush, (0, 0), Vec::new()).unwrap();
    let mut waits = Running::begin(&overlay, Op::Flush, (0, 0), Vec::new()).unwrap();
    assert_eq!(waits.advance(&overlay, &mut cache, |_| 0, |_| None), Now::Parked);
    fails.advance(&overlay, &mut cache, |_| 0, |_| Some(EIO));
    // As the engine does.
    overlay.durability().lose(0);
    assert_eq!(fails.advance(&overlay, &mut cache, |_| 0, |_| None), Now::Ended(Err(EIO)));
    assert_eq!(waits.advance(&overlay, &mut cache, |_| 0, |_| None), Now::Ended(Err(EIO)));
}

#[test]
fn a_place_that_a_broken_history_may_have_is_not_used_again() {
    let (_folder, mut cache, overlay, _) = disk();
    overlay.live().history.break_file();
    let segment = 256;
    let places = |range| {
        let steps = steps(&overlay, Op::Write, range);
        let writes = steps.iter().filter(|step| step.0 == WRITE);
        writes.map(|step| step.5 / MIB).collect::<Vec<_>>()
    };
    // A whole segment, so that it would be free.
    let bytes = block_of(7).repeat(segment);
    let mut refused = Running::begin(&overlay, Op::Write, (0, 256), bytes).unwrap();
    assert_eq!(end(&mut refused, (&overlay, &mut cache), |_| None), Some(Err(EIO)));
    assert_eq!(places((512, 256)), [3], "segment 2 may be in the history");
}

#[test]
fn a_log_block_that_a_failed_sync_has_lost_is_written_again_by_the_next_server() {
    let (folder, mut cache, overlay, boot) = disk();
    write(&overlay, &mut cache, 1, 1, 5);
    run(&overlay, &mut cache, Op::Flush, (0, 0), Vec::new()).unwrap();
    write(&overlay, &mut cache, 2, 1, 6);
    let mut flush = Running::begin(&overlay, Op::Flush, (0, 0), Vec::new()).unwrap();
    let has_log = std::cell::Cell::new(false);
    let failed = end(&mut flush, (&overlay, &mut cache), |step| {
        has_log.set(has_log.get() || step.kind == WRITE);
        (has_log.get() && step.kind == StepKind::Sync).then_some(EIO)
    });
    assert_eq!(failed, Some(Err(EIO)));
    // As the engine does.
    overlay.durability().lose(0);
    cache.lose();
    drop(overlay);

    let next = folder.open(&boot).unwrap();
    cache.opened();
    write(&next, &mut cache, 3, 1, 7);
    run(&next, &mut cache, Op::Flush, (0, 0), Vec::new()).unwrap();
    boot.end();
    cache.cut_power(|_| 0);
    drop(next);
    let after = folder.open(&Boot::simulated(2)).unwrap();
    cache.opened();
    let block = run(&after, &mut cache, Op::Read, (3, 1), Vec::new()).unwrap();
    assert_eq!(stamp_of(&block), 7, "a later flush stands on the block");
}

#[test]
fn a_read_that_crosses_stripes_of_the_base_is_cut_there() {
    let folder = Folder::new(32);
    let base = || {
        let how = FileOptions { direct: Direct::No, read_only: true, ..FileOptions::default() };
        let open = |name: &str| Native::File(File::open(&folder.path.join(name), &how).unwrap());
        Native::Striped(Striped::new(vec![open("base"), open("other")], 8192).unwrap())
    };
    let other: Vec<u8> = (32..64).flat_map(block_of).collect();
    fs::write(folder.path.join("other"), other).unwrap();
    create(&base(), &folder.layer(), None).unwrap();
    let options = folder.options(&Boot::simulated(1));
    let overlay = Overlay::open(base(), &folder.layer(), &options).unwrap();
    let mut cache = Cache::new(&folder.layer());
    write(&overlay, &mut cache, 5, 1, 7);
    let read = run(&overlay, &mut cache, Op::Read, (0, 64), Vec::new()).unwrap();
    let expected = (0..64).map(|block| match (block, block / 2 % 2) {
        (5, _) => 7,
        (_, 0) => of_base(block / 4 * 2 + block % 2),
        _ => 32 + block / 4 * 2 + block % 2,
    });
    assert!(read.chunks(BLOCK).map(stamp_of).eq(expected));
}
