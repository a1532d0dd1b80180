//! START_DEV of a zoned device: the kernel has the zones reported before the disk appears.

use ublk_sys::{
    BLK_ZONE_COND_EMPTY, BLK_ZONE_TYPE_CONVENTIONAL, BLK_ZONE_TYPE_SEQWRITE_PREF,
    BLK_ZONE_TYPE_SEQWRITE_REQ, UBLK_F_USER_COPY as UC, UBLK_F_USER_RECOVERY,
    UBLK_F_USER_RECOVERY_REISSUE, UBLK_F_ZONED, UBLK_IO_OP_REPORT_ZONES, UBLK_S_DEV_DEAD,
    UBLK_S_DEV_LIVE, UBLK_U_CMD_DEL_DEV, UBLK_U_CMD_STOP_DEV, blk_zone, user_copy_offset,
};

use crate::driver::Driver;
use crate::driver::sim::tests::rig::*;
use crate::driver::sim::uring::sqe::{OP_WRITE, Sqe};
use crate::driver::sim::*;
use crate::tag::Tag;

const ZONED: u64 = UBLK_F_ZONED | UC;
const ZONE_SECTORS: u64 = (MAX_IO >> 9) as u64;

/// Empty zones that are written in order, from number `first` on.
fn zones(first: u64, count: u64) -> Vec<blk_zone> {
    let zone = |start| blk_zone {
        start,
        len: ZONE_SECTORS,
        wp: start,
        type_: BLK_ZONE_TYPE_SEQWRITE_REQ,
        cond: BLK_ZONE_COND_EMPTY,
        capacity: ZONE_SECTORS,
        ..Default::default()
    };
    (first..first + count).map(|number| zone(number * ZONE_SECTORS)).collect()
}

impl Rig {
    /// Starts a device that has been fetched from and whose zones are right.
    pub(super) fn start_with_zones(&mut self) {
        assert_eq!(errno(start(&self.sim, self.id)), libc::ETIMEDOUT, "the start waits for zones");
        let (tag, _) = self.take_request();
        let length = self.fill_report(tag);
        self.push(&self.commit(tag, length));
        self.turn();
        assert_eq!(self.state(), UBLK_S_DEV_LIVE);
    }

    /// Fills the report that a tag asks for. Returns the length of the report.
    pub(super) fn fill_report(&mut self, tag: u16) -> i32 {
        let descriptor = self.descriptors.read(Tag::new(tag));
        assert_eq!(descriptor.op_flags & 0xff, u32::from(UBLK_IO_OP_REPORT_ZONES));
        let first = descriptor.start_sector / ZONE_SECTORS;
        self.fill(tag, &zones(first, descriptor.nr_sectors.into()))
    }

    fn fill(&mut self, tag: u16, zones: &[blk_zone]) -> i32 {
        let bytes: Vec<u8> = zones.iter().flat_map(|zone| zone.to_bytes()).collect();
        self.buffers[usize::from(tag)][..bytes.len()].copy_from_slice(&bytes);
        let addr = self.buffers[usize::from(tag)].as_ptr() as u64;
        let len = u32::try_from(bytes.len()).unwrap();
        let off = user_copy_offset(0, tag, 0);
        self.push(&Sqe { off, addr, len, ..sqe(OP_WRITE, CHAR, 0x10) });
        let length = i32::try_from(len).unwrap();
        assert_eq!(self.results(), [(0x10, length)]);
        length
    }

    fn state(&self) -> u16 {
        self.sim.lock().devices[0].info.state
    }
}

/// A device that waits in START_DEV for its zones, with the tag that asks for them.
fn asked(flags: u64) -> (Rig, u16) {
    asked_by(Rig::added(SimConfig::stepping(1), flags, 1))
}

fn asked_by(mut rig: Rig) -> (Rig, u16) {
    rig.push(&rig.fetch(0));
    rig.turn();
    assert_eq!(errno(start(&rig.sim, rig.id)), libc::ETIMEDOUT);
    let (tag, descriptor) = rig.take_request();
    assert_eq!((descriptor.start_sector, descriptor.nr_sectors), (0, SIZE / MAX_IO));
    (rig, tag)
}

fn commit(rig: &mut Rig, tag: u16, result: i32) {
    rig.push(&rig.commit(tag, result));
    rig.turn();
}

#[test]
fn the_disk_appears_when_its_zones_have_been_reported() {
    let (mut rig, tag) = asked(ZONED);
    assert_eq!(errno(rig.sim.client(rig.id)), libc::ENOENT, "no disk yet");
    assert!(rig.sim.disk(rig.id).is_none());
    let length = rig.fill_report(tag);
    commit(&mut rig, tag, length);
    assert_eq!(rig.client().take(), [], "no client has asked");
    assert_eq!(rig.rules(), []);
}

#[test]
fn zones_that_are_refused_fail_the_start_and_the_device_can_be_started_again() {
    let (mut rig, tag) = asked(ZONED);
    commit(&mut rig, tag, -libc::ENOTSUP);
    assert_eq!(rig.state(), UBLK_S_DEV_DEAD);
    assert_eq!(errno(rig.sim.client(rig.id)), libc::ENOENT);
    rig.start_with_zones();
    rig.client();
    assert_eq!(rig.rules(), []);
}

#[test]
fn zones_that_are_wrong_fail_the_start() {
    type Change = fn(&mut [blk_zone]);
    let changes: [Change; 7] = [
        |zones| zones[0].start = 1,
        |zones| zones.swap(3, 4),
        |zones| zones[2].len /= 2,
        |zones| zones[5].capacity = 0,
        |zones| zones[5].capacity = ZONE_SECTORS + 1,
        |zones| zones[1].type_ = BLK_ZONE_TYPE_SEQWRITE_PREF,
        |zones| {
            zones[1].type_ = BLK_ZONE_TYPE_CONVENTIONAL;
            zones[1].capacity -= 1;
        },
    ];
    for (at, change) in changes.iter().enumerate() {
        let (mut rig, tag) = asked(ZONED);
        let mut wrong = zones(0, u64::from(SIZE / MAX_IO));
        change(&mut wrong);
        let length = rig.fill(tag, &wrong);
        commit(&mut rig, tag, length);
        assert_eq!(rig.state(), UBLK_S_DEV_DEAD, "change {at}");
    }
}

#[test]
fn a_report_that_ends_early_is_asked_for_again_and_an_empty_report_for_ever() {
    let (mut rig, mut tag) = asked(ZONED);
    let mut known = 0;
    for count in [0, 0, 5, 0, 4] {
        rig.fill(tag, &zones(known, count));
        known += count;
        rig.push(&rig.commit(tag, 1));
        let (next, descriptor) = rig.take_request();
        assert_eq!(descriptor.start_sector, known * ZONE_SECTORS);
        assert_eq!(u64::from(descriptor.nr_sectors), u64::from(SIZE / MAX_IO) - known);
        tag = next;
    }
    let length = rig.fill_report(tag);
    commit(&mut rig, tag, length);
    assert_eq!(rig.state(), UBLK_S_DEV_LIVE);
}

#[test]
fn a_small_zone_at_the_end_is_missing_from_the_report() {
    let rig = Rig::added(SimConfig::stepping(1), ZONED, 1);
    rig.sim.lock().devices[0].params.basic.dev_sectors += 8;
    let (mut rig, tag) = asked_by(rig);
    let length = rig.fill_report(tag);
    commit(&mut rig, tag, length);
    assert_eq!(rig.state(), UBLK_S_DEV_DEAD);
}

#[test]
fn a_server_that_goes_meanwhile_fails_the_start_unless_its_requests_are_kept_for_the_next() {
    for (recovery, gone) in
        [(0, true), (UBLK_F_USER_RECOVERY | UBLK_F_USER_RECOVERY_REISSUE, false)]
    {
        let (rig, _) = asked(ZONED | recovery);
        let (sim, id) = (rig.sim.clone(), rig.id);
        let send = |operation| {
            sim.control(operation, command(id), None, Duration::ZERO).map(|answer| answer.result)
        };
        assert_eq!(errno(send(UBLK_U_CMD_STOP_DEV)), libc::ETIMEDOUT, "START_DEV has the mutex");
        drop(rig);
        let deleted = send(UBLK_U_CMD_DEL_DEV);
        assert_eq!(deleted.is_ok(), gone, "{recovery:#x}: {deleted:?}");
    }
}
