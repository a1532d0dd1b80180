//! Disks with logical blocks of 512 bytes: writes of parts of blocks.

use std::fs;

use super::super::super::file::{Direct, File, FileOptions};
use super::super::super::native::Native;
use super::super::super::{Boot, Errno, Op, Place, StepKind, Target};
use super::super::fills::SLOTS;
use super::super::{
    Fixed, Overlay, OverlayOptions, Progress, create, flatten, fork, info, rebase, receive, send,
};
use super::disk::{BLOCK, Cache, Folder, block_of, bytes_of, of_base, stamp_of};
use super::machine::{Now, Running, run};
use crate::error::Code;

const DISK: u64 = 2048;
const B: u64 = BLOCK as u64;
const MIB: u64 = 1 << 20;
const WRITE: StepKind = StepKind::Write { dsync: false };

fn disk() -> (Folder, Cache, Overlay, Boot) {
    let folder = Folder::of(DISK, 512);
    folder.make(8);
    let (cache, boot) = (Cache::of(&folder.layer(), 512), Boot::simulated(1));
    let overlay = folder.open(&boot).unwrap();
    assert_eq!(overlay.geometry().logical_block, 512);
    (folder, cache, overlay, boot)
}

/// A write of sectors, all with this stamp.
fn begin(overlay: &Overlay, sector: u64, count: u64, stamp: u64) -> Running {
    let length = count * 512;
    let bytes = bytes_of(stamp, usize::try_from(length).unwrap());
    Running::begin_bytes(overlay, Op::Write, (sector * 512, length), bytes).unwrap()
}

fn end(running: &mut Running, overlay: &Overlay, cache: &mut Cache) -> Result<(), Errno> {
    loop {
        if let Now::Ended(result) = running.advance(overlay, cache, |_| 0, |_| None) {
            return result;
        }
    }
}

fn write(overlay: &Overlay, cache: &mut Cache, sector: u64, count: u64, stamp: u64) {
    end(&mut begin(overlay, sector, count, stamp), overlay, cache).unwrap();
}

/// The stamps of the sectors of a block.
fn sectors(overlay: &Overlay, cache: &mut Cache, block: u64) -> [u64; 8] {
    let bytes = run(overlay, cache, Op::Read, (block, 1), Vec::new()).unwrap();
    std::array::from_fn(|sector| stamp_of(&bytes[sector * 512..][..512]))
}

/// Kind, stage, file, memory, length and offset of the steps.
fn steps(running: &Running) -> Vec<(StepKind, u8, u16, Place, u64, u64)> {
    let steps = running.steps().iter();
    steps.map(|s| (s.kind, s.stage, s.file, s.place, u64::from(s.length), s.offset)).collect()
}

#[test]
fn a_part_of_a_block_gets_a_new_place_with_what_was_around_it_and_a_later_one_goes_in_place() {
    let (_folder, mut cache, overlay, _) = disk();
    let mut first = begin(&overlay, 7 * 8 + 1, 2, 5);
    assert_eq!(steps(&first), [(StepKind::Read, 0, 1, Place::Own, B, 7 * B)]);
    for _ in 0..2 {
        first.advance(&overlay, &mut cache, |_| 0, |_| None);
    }
    let place = 2 * MIB;
    let expected = [
        (StepKind::Allocate, 0, 0, Place::Request, MIB, place),
        (WRITE, 1, 0, Place::Own, 512, place),
        (WRITE, 1, 0, Place::Own, 5 * 512, place + 3 * 512),
        (WRITE, 1, 0, Place::Request, 2 * 512, place + 512),
    ];
    assert_eq!(steps(&first), expected);
    assert_eq!(sectors(&overlay, &mut cache, 7), [of_base(7); 8], "not before all is written");
    end(&mut first, &overlay, &mut cache).unwrap();
    let base = of_base(7);
    assert_eq!(sectors(&overlay, &mut cache, 7), [base, 5, 5, base, base, base, base, base]);
    let later = begin(&overlay, 7 * 8 + 2, 1, 6);
    assert_eq!(steps(&later), [(WRITE, 0, 0, Place::Request, 512, place + 2 * 512)]);
}

#[test]
fn a_part_of_a_block_of_zeros_reads_nothing() {
    let (_folder, mut cache, overlay, _) = disk();
    run(&overlay, &mut cache, Op::WriteZeroes, (7, 1), Vec::new()).unwrap();
    let mut write = begin(&overlay, 7 * 8 + 7, 1, 5);
    assert!(steps(&write).iter().all(|step| step.0 != StepKind::Read));
    end(&mut write, &overlay, &mut cache).unwrap();
    assert_eq!(sectors(&overlay, &mut cache, 7), [0, 0, 0, 0, 0, 0, 0, 5]);
}

#[test]
fn a_request_may_begin_and_end_within_blocks() {
    let (_folder, mut cache, overlay, _) = disk();
    write(&overlay, &mut cache, 3 * 8 + 5, 22, 5);
    let base = of_base(3);
    assert_eq!(sectors(&overlay, &mut cache, 3), [base, base, base, base, base, 5, 5, 5]);
    assert_eq!(sectors(&overlay, &mut cache, 4), [5; 8]);
    assert_eq!(sectors(&overlay, &mut cache, 5), [5; 8]);
    let base = of_base(6);
    assert_eq!(sectors(&overlay, &mut cache, 6), [5, 5, 5, base, base, base, base, base]);
    let read = Running::begin_bytes(&overlay, Op::Read, ((2 * 8 + 7) * 512, 7 * 512), Vec::new());
    let mut read = read.unwrap();
    end(&mut read, &overlay, &mut cache).unwrap();
    let found: Vec<_> = read.bytes.chunks(512).map(stamp_of).collect();
    let base = of_base(3);
    assert_eq!(found, [of_base(2), base, base, base, base, base, 5]);
    let read = Running::begin_bytes(&overlay, Op::Read, ((6 * 8 + 2) * 512, 2 * 512), Vec::new());
    let mut read = read.unwrap();
    end(&mut read, &overlay, &mut cache).unwrap();
    assert_eq!([0, 512].map(|at| stamp_of(&read.bytes[at..at + 512])), [5, of_base(6)]);
}

#[test]
fn of_writes_to_one_block_at_once_none_is_lost() {
    // A write is at any of its steps when another one ends, and at any later when a third one ends.
    let cases =
        (0..64).flat_map(|at| [(1, 0), (8, 0), (3, 5)].map(|other| (at % 8, at / 8, other)));
    for (at, more, (count, first)) in cases {
        let (_folder, mut cache, overlay, _) = disk();
        let mut slow = Some(begin(&overlay, 7 * 8 + 4, 1, 6));
        let mut advance = |cache: &mut Cache, steps| {
            for _ in 0..steps {
                let Some(running) = &mut slow else { return };
                let now = running.advance(&overlay, cache, |_| 0, |_| None);
                if now == Now::Ended(Ok(())) {
                    slow = None;
                }
            }
        };
        advance(&mut cache, at);
        write(&overlay, &mut cache, 7 * 8 + first, count, 5);
        advance(&mut cache, more);
        write(&overlay, &mut cache, 7 * 8 + 2, 1, 7);
        advance(&mut cache, 100);
        let found = sectors(&overlay, &mut cache, 7);
        let expected = std::array::from_fn(|sector| match sector as u64 {
            // Which of two writes at once is seen is open.
            4 if found[4] == 5 && first == 0 && count == 8 => 5,
            4 => 6,
            2 => 7,
            other if (first..first + count).contains(&other) => 5,
            _ => of_base(7),
        });
        assert_eq!(found, expected, "{count} from {first}, after {at} and {more} steps");
    }
}

#[test]
fn a_discard_leaves_parts_of_blocks_and_a_write_of_zeros_does_not() {
    let (_folder, mut cache, overlay, _) = disk();
    write(&overlay, &mut cache, 0, 32, 5);
    let range = (4 * 512, 16 * 512);
    let discard = Running::begin_bytes(&overlay, Op::Discard, range, Vec::new());
    end(&mut discard.unwrap(), &overlay, &mut cache).unwrap();
    let found = [0, 1, 2, 3].map(|block| sectors(&overlay, &mut cache, block));
    assert_eq!(found, [[5; 8], [0; 8], [5; 8], [5; 8]]);
    let small = Running::begin_bytes(&overlay, Op::Discard, (512, 512), Vec::new());
    end(&mut small.unwrap(), &overlay, &mut cache).unwrap();
    assert_eq!(sectors(&overlay, &mut cache, 0), [5; 8]);
    let stored = |overlay: &Overlay| {
        let live = overlay.live();
        let extents = live.head.index().iter().filter(|extent| extent.layer().is_some());
        extents.map(|extent| extent.count()).sum::<u32>()
    };
    assert_eq!(stored(&overlay), 3);
    // In place, whole, and a block of the base.
    let zeros = |sector: u64, count: u64, cache: &mut Cache| {
        let range = (sector * 512, count * 512);
        let zeros = Running::begin_bytes(&overlay, Op::WriteZeroes, range, Vec::new());
        end(&mut zeros.unwrap(), &overlay, cache).unwrap();
    };
    zeros(2 * 8 + 5, 3 + 8 + 8 + 2, &mut cache);
    zeros(7 * 8 + 2, 3, &mut cache);
    let found = [2, 3, 4, 5, 7].map(|block| sectors(&overlay, &mut cache, block));
    let (five, seven) = (of_base(5), of_base(7));
    let expected = [
        [5, 5, 5, 5, 5, 0, 0, 0],
        [0; 8],
        [0; 8],
        [0, 0, five, five, five, five, five, five],
        [seven, seven, 0, 0, 0, seven, seven, seven],
    ];
    assert_eq!(found, expected);
    assert_eq!(stored(&overlay), 4, "whole blocks take no space");
}

#[test]
fn writes_wait_for_memory_that_others_use() {
    let (_folder, mut cache, overlay, _) = disk();
    let count = u64::from(SLOTS) + 3;
    let mut writes: Vec<_> =
        (0..count).map(|block| begin(&overlay, block * 8, 1, block + 1)).collect();
    let mut waits = writes.split_off(usize::from(SLOTS));
    for write in &mut waits {
        assert_eq!(write.advance(&overlay, &mut cache, |_| 0, |_| None), Now::Parked);
    }
    // One ends, one fails, and one is given up.
    end(&mut writes.remove(0), &overlay, &mut cache).unwrap();
    let eio = Errno(libc::EIO);
    let mut fails = writes.remove(0);
    fails.advance(&overlay, &mut cache, |_| 0, |_| Some(eio));
    assert_eq!(fails.advance(&overlay, &mut cache, |_| 0, |_| None), Now::Ended(Err(eio)));
    writes.remove(0).give_up(&overlay, &mut cache);
    for write in &mut waits {
        assert_eq!(write.advance(&overlay, &mut cache, |_| 0, |_| None), Now::Runs);
    }
    for mut write in waits.into_iter().chain(writes) {
        end(&mut write, &overlay, &mut cache).unwrap();
    }
    for block in 0..count {
        let lost = block == 1 || block == 2;
        let expected = if lost { of_base(block) } else { block + 1 };
        assert_eq!(sectors(&overlay, &mut cache, block)[0], expected);
        assert_eq!(sectors(&overlay, &mut cache, block)[1], of_base(block));
    }
}

#[test]
fn a_full_disk_fails_the_part_of_a_block_and_loses_nothing() {
    let (_folder, mut cache, overlay, _) = disk();
    let full = Errno(libc::ENOSPC);
    let mut refused = begin(&overlay, 7 * 8, 1, 5);
    let fail = |step: &super::super::super::Step| (step.kind == StepKind::Allocate).then_some(full);
    let result = loop {
        match refused.advance(&overlay, &mut cache, |_| 0, fail) {
            Now::Ended(result) => break result,
            Now::Runs | Now::Parked => {}
        }
    };
    assert_eq!(result, Err(full));
    assert_eq!(sectors(&overlay, &mut cache, 7), [of_base(7); 8]);
    write(&overlay, &mut cache, 7 * 8, 1, 6);
    assert_eq!(sectors(&overlay, &mut cache, 7)[..2], [6, of_base(7)]);
}

#[test]
fn a_disk_keeps_its_logical_block_through_every_verb() {
    let folder = Folder::of(64, 512);
    let at = |name: &str| folder.path.join(name);
    let block = |name: &str| info(&at(name)).unwrap()[0].logical_block;
    create(&folder.base(), &at("low"), Some(512)).unwrap();
    create(&folder.base(), &at("whole"), None).unwrap();
    assert_eq!((block("low"), block("whole")), (512, 4096));
    fork(&at("low"), &[at("middle")], None).unwrap();
    fork(&at("middle"), &[at("high")], None).unwrap();
    assert_eq!(block("high"), 512);
    let out = fs::File::create(at("changes")).unwrap();
    send(&at("high"), None, std::os::fd::AsFd::as_fd(&out), &Progress::default()).unwrap();
    let changes = fs::File::open(at("changes")).unwrap();
    let changes = std::os::fd::AsFd::as_fd(&changes);
    receive(changes, &at("received"), Some(&folder.base()), &Progress::default()).unwrap();
    flatten(&at("high"), false, &Progress::default()).unwrap();
    assert_eq!((block("received"), block("high")), (512, 512));
    // Disks on a frozen layer have its logical block.
    let fixed = || {
        let options = folder.options(&Boot::simulated(1));
        let fixed = Fixed::open(folder.base(), &at("middle"), &options).unwrap();
        Native::Fixed(Box::new(fixed))
    };
    assert_eq!(fixed().geometry().logical_block, 512);
    fs::create_dir(at("elsewhere")).unwrap();
    create(&fixed(), &at("elsewhere/layer"), None).unwrap();
    assert_eq!(block("elsewhere/layer"), 512);
}

#[test]
fn a_frozen_layer_is_read_in_sectors() {
    let (folder, mut cache, overlay, _) = disk();
    write(&overlay, &mut cache, 7 * 8 + 3, 1, 5);
    drop(overlay);
    fork(&folder.layer(), &[folder.path.join("child")], Some(&folder.path.join("history")))
        .unwrap();
    let options = folder.options(&Boot::simulated(2));
    let fixed = Fixed::open(folder.base(), &folder.layer(), &options).unwrap();
    let read = crate::targets::testing::request(Op::Read, (7 * 8 + 2) * 512, 7 * 512);
    let planned: Vec<_> = crate::targets::testing::plan(&fixed, &read).unwrap();
    let planned = planned.iter().map(|step| (step.file, step.at, step.length, step.offset));
    let planned: Vec<_> = planned.collect();
    assert_eq!(planned, [(0, 0, 6 * 512, 2 * MIB + 2 * 512), (1, 6 * 512, 512, 8 * B)]);
}

#[test]
fn logical_blocks_that_a_disk_or_its_base_cannot_have_are_refused() {
    let folder = Folder::of(64, 512);
    let layer = folder.layer();
    let odd = create(&folder.base(), &layer, Some(513)).unwrap_err();
    assert_eq!((odd.code, layer.exists()), (Code::InvalidArgument, false));
    let coarse = || {
        let how = FileOptions {
            direct: Direct::No,
            read_only: true,
            logical_block: Some(4096),
            ..FileOptions::default()
        };
        Native::File(File::open(&folder.path.join("base"), &how).unwrap())
    };
    let refused = create(&coarse(), &layer, Some(512)).unwrap_err();
    assert_eq!((refused.code, layer.exists()), (Code::InvalidArgument, false));
    assert!(refused.hint.unwrap().contains("logicalBlockSize: 512"));
    create(&folder.base(), &layer, Some(512)).unwrap();
    let open = |base, logical_block| {
        let options = folder.options(&Boot::simulated(1));
        Overlay::open(base, &layer, &OverlayOptions { logical_block, ..options })
    };
    assert_eq!(open(coarse(), None).unwrap_err().code, Code::InvalidArgument);
    let other = open(folder.base(), Some(4096)).unwrap_err();
    assert!(other.message.contains("logical blocks of 512 bytes"), "{other}");
    open(folder.base(), Some(512)).unwrap();
    let rebased = rebase(&layer, None, &coarse(), &Progress::default()).unwrap_err();
    assert_eq!(rebased.code, Code::InvalidArgument);
    let bytes = block_of(of_base(0));
    assert_eq!(fs::read(folder.path.join("base")).unwrap()[..BLOCK], bytes);
}
