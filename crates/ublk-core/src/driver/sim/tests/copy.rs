//! Copy mode, get-data included.

use ublk_sys::{
    UBLK_F_NEED_GET_DATA, UBLK_IO_RES_NEED_GET_DATA, UBLK_U_IO_COMMIT_AND_FETCH_REQ,
    UBLK_U_IO_NEED_GET_DATA, ublksrv_io_cmd,
};

use super::super::sqe::{OP_READ, OP_WRITE, Sqe};
use super::super::*;
use super::rig::*;

#[test]
fn a_write_s_data_is_in_the_tag_s_buffer() {
    let mut rig = Rig::live(0, 2);
    rig.client().submit(&write(1024, &[8; 1024]), None);
    let (tag, descriptor) = rig.take_request();
    let buffer = &rig.buffers[usize::from(tag)];
    assert_eq!(descriptor.addr, buffer.as_ptr() as u64);
    assert_eq!(buffer[..1024], [8; 1024]);
    let (addr, len) = (descriptor.addr, 1024);
    rig.push(&Sqe { off: 1024, addr, len, ..sqe(OP_WRITE, DISK, 0x10) });
    assert_eq!(rig.results(), [(0x10, 1024)]);
    assert_eq!(rig.disk.contents()[1024..2048], [8; 1024]);
}

#[test]
fn a_read_s_data_comes_from_the_tag_s_buffer() {
    let mut rig = Rig::live(0, 1);
    let client = rig.client();
    rig.disk.store(512, &[6; 512]);
    client.submit(&read(512, 512), None);
    let (tag, descriptor) = rig.take_request();
    assert_eq!(rig.buffers[0][..512], [POISON; 512]);
    let addr = descriptor.addr;
    rig.push(&Sqe { off: 512, addr, len: 512, ..sqe(OP_READ, DISK, 0x10) });
    assert_eq!(rig.results(), [(0x10, 512)]);
    rig.push(&rig.commit(tag, 512));
    rig.turn();
    assert_eq!(client.take()[0].data, [6; 512]);
    assert_eq!(rig.rules(), []);
}

#[test]
fn trap_3_the_rest_of_a_short_read_comes_again() {
    let mut rig = Rig::live(0, 1);
    let client = rig.client();
    client.submit(&read(2048, 1024), None);
    let (tag, _) = rig.take_request();
    rig.buffers[0].fill(1);
    rig.push(&rig.commit(tag, 512));
    let (again, rest) = rig.take_request();
    assert_eq!((again, rest.start_sector, rest.nr_sectors), (tag, 5, 1));
    rig.buffers[0].fill(2);
    rig.push(&rig.commit(tag, 512));
    rig.turn();
    let done = client.take();
    assert_eq!(done[0].data[..512], [1; 512]);
    assert_eq!(done[0].data[512..], [2; 512]);
}

#[test]
fn trap_1_a_short_write_is_success_even_when_copying() {
    let mut rig = Rig::live(0, 1);
    let client = rig.client();
    client.submit(&write(0, &[8; 1024]), None);
    let (tag, _) = rig.take_request();
    rig.push(&rig.commit(tag, 512));
    rig.turn();
    assert_eq!(client.take()[0].result, Ok(()));
}

#[test]
fn fetch_and_commit_need_a_buffer() {
    let mut rig = Rig::added(SimConfig::stepping(1), 0, 1);
    let fetch = rig.fetch(0);
    rig.push(&Sqe { pad: 0, ..fetch });
    assert_eq!(rig.results(), [(0, -libc::EINVAL)]);
    rig.push(&fetch);
    rig.turn();
    start(&rig.sim, rig.id).unwrap();
    rig.client().submit(&ClientOp::Flush, None);
    rig.take_request();
    let cmd = ublksrv_io_cmd { q_id: 0, tag: 0, result: 0, addr: 0 };
    rig.push(&ublk_sqe(UBLK_U_IO_COMMIT_AND_FETCH_REQ, cmd, 1));
    assert_eq!(rig.results(), [(1, -libc::EINVAL)]);
}

#[test]
fn memory_that_is_no_buffer_of_a_request_we_have_is_refused() {
    let mut rig = Rig::live(0, 2);
    let client = rig.client();
    client.submit(&read(0, 512), None);
    let (tag, descriptor) = rig.take_request();
    let other = rig.buffers[usize::from(1 - tag)].as_ptr() as u64;
    for (addr, len) in [(other, 512), (descriptor.addr + 512, MAX_IO), (0, 1), (u64::MAX, 512)] {
        rig.push(&Sqe { addr, len, ..sqe(OP_READ, DISK, 0x10) });
        assert_eq!(rig.results(), [(0x10, -libc::EFAULT)]);
    }
    assert_eq!(rig.rules(), [Rule::Memory; 4]);
}

#[test]
fn a_buffer_must_not_be_given_back_while_a_read_fills_it() {
    let faults = Faults { delay: 1000, ..Faults::default() };
    let mut rig = Rig::with(SimConfig { faults, ..SimConfig::stepping(1) }, 0, 1);
    rig.client().submit(&read(0, 512), None);
    let (tag, descriptor) = rig.take_request();
    rig.push(&Sqe { addr: descriptor.addr, len: 512, ..sqe(OP_READ, DISK, 0x10) });
    rig.push(&rig.commit(tag, 512));
    assert_eq!(rig.results(), [(0x10, -libc::EFAULT)]);
    assert_eq!(rig.rules(), [Rule::Memory]);
}

#[test]
fn with_need_get_data_a_write_s_data_is_asked_for() {
    let mut rig = Rig::live(UBLK_F_NEED_GET_DATA, 1);
    let client = rig.client();
    client.submit(&write(0, &[4; 512]), None);
    let all = rig.results();
    assert_eq!(all, [(0, UBLK_IO_RES_NEED_GET_DATA)]);
    assert_eq!(rig.buffers[0][..512], [0; 512]);
    rig.push(&rig.commit(0, 512));
    assert_eq!(rig.results(), [(0, -libc::EINVAL)], "first the data");
    let addr = rig.buffers[0].as_ptr() as u64;
    let cmd = ublksrv_io_cmd { q_id: 0, tag: 0, result: 0, addr };
    rig.push(&ublk_sqe(UBLK_U_IO_NEED_GET_DATA, cmd, 1));
    assert_eq!(rig.results(), [(1, 0)]);
    assert_eq!(rig.buffers[0][..512], [4; 512]);
    rig.push(&rig.commit(0, 512));
    rig.turn();
    assert_eq!(client.take()[0].result, Ok(()));
}
