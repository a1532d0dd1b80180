//! What requests become.

use super::super::super::{Boot, Op, Place, StepKind, Target};
use super::super::Overlay;
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
    assert_eq!(seen, [sync, (WRITE, Place::Own, MIB), sync]);
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
    let full = super::super::super::Errno(libc::ENOSPC);
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
