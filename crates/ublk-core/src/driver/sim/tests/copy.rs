//! Copy mode, get-data included.

use ublk_sys::{
    UBLK_F_NEED_GET_DATA, UBLK_IO_RES_NEED_GET_DATA, UBLK_U_IO_COMMIT_AND_FETCH_REQ,
    UBLK_U_IO_NEED_GET_DATA, ublksrv_io_cmd,
};

use crate::driver::sim::tests::rig::*;
use crate::driver::sim::uring::sqe::{OP_READ, OP_WRITE, Sqe};
use crate::driver::sim::*;
use crate::tag::Tag;

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

/// A device of which the driver copies only a part of the data of each request; `rest` as in
/// [`Kernel::rest_of_writes`].
fn partial(flags: u64, rest: bool, seed: u64) -> (Rig, Client) {
    let kernel = Kernel { rest_of_writes: rest, ..Kernel::linux_7_3() };
    let rig = Rig::with(SimConfig { kernel, ..SimConfig::stepping(seed) }, flags, 1);
    rig.sim.set_faults(Faults { copied: 1000, ..Faults::default() });
    let client = rig.client();
    (rig, client)
}

#[test]
fn trap_63_a_write_that_is_copied_in_part_is_announced_shorter_and_its_tail_is_lost() {
    // Each seed draws how many of the 16 pages are copied.
    for seed in 1..=20 {
        let (mut rig, client) = partial(0, false, seed);
        client.submit(&write(0, &[8; MAX_IO as usize]), None);
        let (tag, descriptor) = rig.take_request();
        let copied = descriptor.nr_sectors << 9;
        assert!((4096..MAX_IO).contains(&copied) && copied.is_multiple_of(4096), "{copied}");
        let at = copied as usize;
        assert_eq!(rig.buffers[0][at - 1..=at], [8, 0]);
        rig.push(&rig.commit(tag, i32::try_from(copied).unwrap()));
        rig.turn();
        let done = client.take();
        assert_eq!((done[0].result, done[0].lost), (Ok(()), MAX_IO - copied));
        assert_eq!(rig.rules(), []);
    }
}

#[test]
fn trap_63_an_older_driver_hands_the_tail_of_such_a_write_over_again() {
    let (mut rig, client) = partial(0, true, 3);
    client.submit(&write(0, &[8; MAX_IO as usize]), None);
    let mut next = 0;
    while next < MAX_IO {
        let (tag, descriptor) = rig.take_request();
        assert_eq!(descriptor.start_sector, u64::from(next >> 9));
        next += descriptor.nr_sectors << 9;
        if next + 4096 == MAX_IO {
            // Of a single page all is copied, or nothing, and then the driver tries again.
            rig.sim.set_faults(Faults::none());
        }
        rig.push(&rig.commit(tag, i32::try_from(descriptor.nr_sectors << 9).unwrap()));
    }
    rig.turn();
    let done = client.take();
    assert_eq!((done[0].result, done[0].lost), (Ok(()), 0));
}

#[test]
fn a_read_that_is_copied_back_in_part_comes_again_and_fails_when_nothing_is_copied() {
    let (mut rig, client) = partial(0, false, 2);
    client.submit(&read(0, MAX_IO), None);
    let mut next = 0;
    let done = loop {
        let all = rig.turn();
        let Some(done) = client.take().pop() else {
            assert_eq!(all[0].result, 0);
            let rest = rig.descriptors.read(Tag::new(0));
            assert!(rest.start_sector > next || next == 0);
            next = rest.start_sector;
            rig.push(&rig.commit(0, i32::try_from(rest.nr_sectors << 9).unwrap()));
            continue;
        };
        break done;
    };
    assert!(next > 0, "the read comes again");
    assert_eq!(done.result, Err(libc::EIO));
}

#[test]
fn a_write_of_which_nothing_can_be_copied_is_tried_again_and_with_get_data_announced_again() {
    let (mut rig, client) = partial(0, false, 1);
    client.submit(&write(0, &[8; 512]), None);
    rig.sim.set_faults(Faults { copied: 999, ..Faults::default() });
    let (_, descriptor) = rig.take_request();
    assert_eq!(descriptor.nr_sectors, 1);
    assert!(rig.sim.injected().copied > 0);

    let (mut rig, client) = partial(UBLK_F_NEED_GET_DATA, false, 1);
    client.submit(&write(0, &[8; 512]), None);
    assert_eq!(rig.results(), [(0, UBLK_IO_RES_NEED_GET_DATA)]);
    let addr = rig.buffers[0].as_ptr() as u64;
    let ask = |number| {
        let cmd = ublksrv_io_cmd { q_id: 0, tag: 0, result: 0, addr };
        ublk_sqe(UBLK_U_IO_NEED_GET_DATA, cmd, number)
    };
    rig.push(&ask(1));
    assert_eq!(rig.results(), [(1, UBLK_IO_RES_NEED_GET_DATA)]);
    rig.sim.set_faults(Faults::none());
    rig.push(&ask(2));
    assert_eq!(rig.results(), [(2, 0)]);
    assert_eq!(rig.rules(), []);
}
