//! Zones and metadata.

use ublk_sys::{
    UBLK_F_AUTO_BUF_REG as AUTO, UBLK_F_INTEGRITY, UBLK_F_SUPPORT_ZERO_COPY as ZC,
    UBLK_F_USER_COPY as UC, UBLK_F_ZONED, UBLK_IO_F_INTEGRITY, UBLK_IO_OP_REPORT_ZONES,
    UBLK_U_IO_COMMIT_AND_FETCH_REQ, UBLKSRV_IO_INTEGRITY_FLAG, ublksrv_io_cmd, user_copy_offset,
};

use crate::driver::sim::tests::batch_rig::*;
use crate::driver::sim::tests::rig::*;
use crate::driver::sim::uring::sqe::{OP_READ, OP_WRITE, Sqe};
use crate::driver::sim::*;

const ZONED: u64 = UBLK_F_ZONED | UC;
const APPEND: usize = 1024;

fn append() -> ClientOp {
    ClientOp::Append { zone: u64::from(MAX_IO), data: vec![7; APPEND] }
}

/// The commit, with another address.
fn saying(rig: &Rig, tag: u16, addr: u64) -> Sqe {
    let cmd = ublksrv_io_cmd { q_id: 0, tag, result: 1024, addr };
    Sqe {
        addr: rig.commit(tag, 0).addr,
        ..ublk_sqe(UBLK_U_IO_COMMIT_AND_FETCH_REQ, cmd, u64::from(tag))
    }
}

#[test]
fn a_commit_says_where_an_append_went_and_nothing_else_may_say_so() {
    for mode in [ZC, AUTO | ZC, 0] {
        let mut rig = Rig::live(ZONED | mode, 1);
        let client = rig.client();
        client.submit(&append(), None);
        let (tag, _) = rig.take_request();
        rig.push(&saying(&rig, tag, 1234));
        rig.turn();
        assert_eq!(client.take()[0].landed, Some(1234 << 9), "{mode:#x}");
        client.submit(&read(0, 1024), None);
        let (tag, _) = rig.take_request();
        rig.push(&saying(&rig, tag, 1234));
        assert_eq!(rig.results(), [(u64::from(tag), -libc::EINVAL)], "{mode:#x}");
    }
}

#[test]
fn a_batch_forgets_where_an_append_went_that_was_registered_automatically() {
    for (mode, landed) in [(ZC, Some(1234 << 9)), (AUTO | ZC, None)] {
        let mut rig = BatchRig::live(ZONED | mode, 2);
        let client = rig.rig.client();
        client.submit(&append(), None);
        let [tag] = rig.take()[..] else { panic!("one request") };
        let commit = rig.commit_landed(tag, 1024, 1234);
        rig.rig.push(&commit);
        assert_eq!(rig.rig.results(), [(COMMIT, 16)]);
        let done = client.take();
        assert_eq!((done[0].result, done[0].landed), (Ok(()), landed), "{mode:#x}");
    }
}

#[test]
fn a_report_counts_zones_and_is_filled_like_a_read() {
    let mut rig = Rig::live(ZONED, 1);
    let client = rig.client();
    client.submit(&ClientOp::ReportZones { first: u64::from(MAX_IO), count: 3 }, None);
    let (tag, descriptor) = rig.take_request();
    assert_eq!(descriptor.op_flags & 0xff, u32::from(UBLK_IO_OP_REPORT_ZONES));
    assert_eq!((descriptor.nr_sectors, descriptor.start_sector), (3, u64::from(MAX_IO >> 9)));
    rig.buffers[0].fill(5);
    let (off, addr) = (user_copy_offset(0, tag, 0), rig.buffers[0].as_ptr() as u64);
    rig.push(&Sqe { off, addr, len: 4096, ..sqe(OP_WRITE, CHAR, 0x10) });
    assert_eq!(rig.results(), [(0x10, 192)]);
    rig.push(&rig.commit(tag, 0));
    rig.turn();
    assert_eq!(client.take()[0].data, [5; 192]);
    assert_eq!(rig.rules(), []);
}

#[test]
fn metadata_is_copied_beside_the_data() {
    let mut rig = Rig::live(UC | UBLK_F_INTEGRITY, 1);
    let client = rig.client();
    client.submit_with(&write(0, &[4; 1024]), vec![6; 16]);
    let (tag, descriptor) = rig.take_request();
    assert_ne!(descriptor.op_flags & UBLK_IO_F_INTEGRITY, 0);
    let copy = |rig: &Rig, opcode, at| {
        let off = user_copy_offset(0, tag, at) | UBLKSRV_IO_INTEGRITY_FLAG;
        Sqe { off, addr: rig.buffers[0].as_ptr() as u64, len: 4096, ..sqe(opcode, CHAR, 0x10) }
    };
    rig.push(&copy(&rig, OP_READ, 8));
    assert_eq!(rig.results(), [(0x10, 8)], "no more than there is");
    assert_eq!(rig.buffers[0][..9], [[6; 8].as_slice(), &[0]].concat());
    rig.push(&rig.commit(tag, 1024));
    client.submit(&read(0, 1024), None);
    rig.take_request();
    rig.buffers[0].fill(9);
    rig.push(&copy(&rig, OP_WRITE, 0));
    rig.push(&rig.commit(tag, 1024));
    rig.turn();
    let done = client.take();
    assert_eq!(done[1].metadata, [9; 16]);
    assert_eq!(rig.rules(), []);
}

#[test]
fn metadata_that_is_not_of_its_data_fails_the_read() {
    let mut rig = Rig::live(UC | UBLK_F_INTEGRITY, 1);
    let client = rig.client();
    client.submit(&write(0, &[4; 1024]), None);
    let (tag, descriptor) = rig.take_request();
    assert_ne!(descriptor.op_flags & UBLK_IO_F_INTEGRITY, 0, "made by the block layer");
    let copy = |rig: &Rig, opcode, metadata| {
        let flag = if metadata { UBLKSRV_IO_INTEGRITY_FLAG } else { 0 };
        let off = user_copy_offset(0, tag, 0) | flag;
        Sqe { off, addr: rig.buffers[0].as_ptr() as u64, len: 1024, ..sqe(opcode, CHAR, 0x10) }
    };
    rig.push(&copy(&rig, OP_READ, true));
    rig.results();
    let metadata = rig.buffers[0][..16].to_vec();
    assert_eq!(metadata[12..], [0, 0, 0, 1], "the reference tag of the second sector");
    rig.push(&rig.commit(tag, 1024));
    for (data, expected) in [(4, Ok(())), (5, Err(libc::EILSEQ))] {
        client.submit(&read(0, 1024), None);
        rig.take_request();
        rig.buffers[0][..1024].fill(data);
        rig.push(&copy(&rig, OP_WRITE, false));
        rig.results();
        rig.buffers[0][..16].copy_from_slice(&metadata);
        rig.push(&copy(&rig, OP_WRITE, true));
        rig.results();
        rig.push(&rig.commit(tag, 1024));
        rig.turn();
        assert_eq!(client.take().pop().unwrap().result, expected);
    }
    assert_eq!(rig.rules(), []);
}
