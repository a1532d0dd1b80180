//! Batches of commands: the buffers that requests are registered in, and those that answers come in.

use ublk_sys::{
    UBLK_BATCH_F_AUTO_BUF_REG_FALLBACK as FALLBACK, UBLK_F_AUTO_BUF_REG as AUTO,
    UBLK_F_SUPPORT_ZERO_COPY as ZC, UBLK_IO_F_NEED_REG_BUF,
};

use crate::driver::sim::tests::batch_rig::*;
use crate::driver::sim::tests::rig::*;
use crate::driver::sim::uring::sqe::{ASYNC, BUFFER_SELECT, LINK, Sqe};
use crate::driver::sim::*;
use crate::driver::{Driver, Ring, RingSize};
use crate::tag::Tag;

#[test]
fn trap_8_a_request_committed_in_a_batch_lives_until_its_buffer_is_unregistered() {
    let mut rig = BatchRig::live(ZC, 2);
    let client = rig.rig.client();
    client.submit(&read(0, 512), None);
    let tags = rig.take();
    rig.rig.push(&register(tags[0], 0, 0x10));
    assert_eq!(rig.rig.results(), [(0x10, 0)]);
    assert_eq!(rig.answer(&tags, 512), 8);
    assert_eq!(client.in_flight(), 1);
    rig.rig.push(&unregister(tags[0], 0, 0x10));
    assert_eq!(rig.rig.results(), [(0x10, 0)]);
    assert_eq!(client.take()[0].result, Ok(()));
}

#[test]
fn the_ring_that_fetched_holds_the_buffers_and_its_commit_empties_their_slots() {
    let mut rig = BatchRig::live(AUTO | ZC, 2);
    let client = rig.rig.client();
    submit(&client, 2, |at| write(at * 512, &[3; 512]));
    let tags = rig.take();
    assert_eq!(tags.len(), 2);
    rig.rig.push(&write_fixed(tags[0], 0, 512, 0x10));
    rig.rig.push(&write_fixed(tags[1], 512, 512, 0x11));
    assert_eq!(rig.rig.results(), [(0x10, 512), (0x11, 512)]);
    assert_eq!(rig.answer(&tags, 512), 16);
    assert_eq!(client.take().len(), 2);
    assert_eq!(rig.rig.disk.contents()[..1024], [3; 1024]);
    rig.rig.sim.audit();
    assert_eq!(rig.rig.rules(), []);
}

#[test]
fn trap_10_a_batch_committed_on_another_ring_leaves_its_buffers_registered() {
    let mut rig = BatchRig::live(AUTO | ZC, 2);
    let client = rig.rig.client();
    client.submit(&write(0, &[3; 512]), None);
    let tags = rig.take();
    let mut other = rig
        .rig
        .sim
        .ring(RingSize { submissions: 4, completions: 8, tells_of_work: false })
        .unwrap();
    register_files(&mut other, &[rig.rig.char_device.fd()]);
    std::mem::swap(&mut rig.rig.ring, &mut other);
    assert_eq!(rig.answer(&tags, 512), 8);
    assert_eq!(client.in_flight(), 1);
    std::mem::swap(&mut rig.rig.ring, &mut other);
    rig.rig.push(&unregister(tags[0], tags[0].into(), 0x10));
    assert_eq!(rig.rig.results(), [(0x10, 0)]);
    assert_eq!(client.take()[0].result, Ok(()));
}

#[test]
fn trap_11_with_and_without_fallback_in_a_batch() {
    let failing = faulty(Faults { auto_register: 1000, ..Faults::default() });
    let mut rig = BatchRig::added(failing, AUTO | ZC, 2);
    rig.provide(8);
    let prep = [rig.prep(&[0]), with(rig.prep(&[1]), |header| header.flags = FALLBACK)];
    rig.rig.push(&prep[0]);
    rig.rig.push(&prep[1]);
    rig.rig.push(&fetch_batch());
    assert_eq!(rig.rig.results(), [(PREP, 0), (PREP, 0)]);
    start(&rig.rig.sim, rig.rig.id).unwrap();
    let client = rig.rig.client();
    submit(&client, 2, |_| read(0, 512));
    assert_eq!(rig.take(), [1], "the server hears nothing of tag 0");
    assert_eq!(client.take()[0].result, Err(libc::EIO));
    assert_ne!(rig.rig.descriptors.read(Tag::new(1)).op_flags & UBLK_IO_F_NEED_REG_BUF, 0);
    rig.rig.push(&register(1, 0, 0x10));
    rig.rig.push(&read_fixed(0, 0, 512, 0x11));
    rig.rig.push(&unregister(1, 0, 0x12));
    assert_eq!(rig.rig.results(), [(0x10, 0), (0x11, 512), (0x12, 0)]);
    assert_eq!(rig.answer(&[1], 512), 8);
    assert_eq!(client.take()[0].data, [0; 512]);
    assert_eq!(rig.rig.rules(), []);
}

#[test]
fn a_commit_can_end_a_chain() {
    let mut rig = BatchRig::live(AUTO | ZC, 2);
    let client = rig.rig.client();
    for (size, committed) in [(512, 8), (1024, -libc::ECANCELED)] {
        rig.rig.disk.resize(512);
        client.submit(&read(0, size), None);
        let tags = rig.take();
        let step = read_fixed(tags[0], 0, size, 0x10);
        rig.rig.push(&Sqe { flags: step.flags | LINK, ..step });
        let commit = rig.commit(&answers(&tags, i32::try_from(size).unwrap()));
        rig.rig.push(&commit);
        assert_eq!(rig.rig.results(), [(0x10, 512), (COMMIT, committed)], "of {size}");
    }
}

#[test]
fn a_multishot_command_and_a_buffer_group_belong_together() {
    let mut rig = BatchRig::armed(SimConfig::stepping(1), ZC, 2);
    let fetch = fetch_batch();
    rig.rig.push(&Sqe { op_flags: 0, ..fetch });
    rig.rig.push(&Sqe { flags: fetch.flags & !BUFFER_SELECT, ..fetch });
    rig.rig.push(&Sqe { op_flags: 0, flags: fetch.flags & !BUFFER_SELECT, ..fetch });
    rig.rig.push(&with(fetch, |header| header.elem_bytes = 8));
    rig.rig.push(&with(fetch, |header| header.flags = FALLBACK));
    rig.rig.push(&with(fetch, |header| header.q_id = 1));
    rig.rig.push(&Sqe { flags: fetch.flags | ASYNC, ..fetch });
    assert_eq!(rig.rig.results(), [(FETCH, -libc::EINVAL); 7]);
    rig.provide(8);
    rig.rig.push(&Sqe { buf_index: GROUP + 1, ..fetch });
    rig.rig.client().submit(&ClientOp::Flush, None);
    assert_eq!(rig.rig.results(), [(FETCH, -libc::ENOBUFS)], "there is no such group");
}

#[test]
fn buffer_rings_are_pages_and_powers_of_two_and_registered_once() {
    let mut rig = BatchRig::added(SimConfig::stepping(1), ZC, 2);
    let mut page = Box::new(Page([0; 4096]));
    let base = page.0.as_mut_ptr();
    let mut register = |ring: *mut u8, entries, group| {
        // SAFETY: within the page, which outlives the rig's ring.
        errno(unsafe { rig.rig.ring.register_buffer_ring(ring, entries, group) })
    };
    assert_eq!(register(base, 3, 1), libc::EINVAL);
    assert_eq!(register(base, 0, 1), libc::EINVAL);
    assert_eq!(register(base.wrapping_add(16), 4, 1), libc::EINVAL);
    assert_eq!(register(base, 4, GROUP), libc::EEXIST);
    drop(rig);
}

#[test]
fn more_buffers_than_the_ring_holds_break_the_rules() {
    let mut rig = BatchRig::armed(SimConfig::stepping(1), ZC, 2);
    (0..=ENTRIES).for_each(|_| rig.provide(8));
    rig.rig.push(&fetch_batch());
    rig.rig.client().submit(&ClientOp::Flush, None);
    rig.rig.turn();
    assert_eq!(rig.rig.rules(), [Rule::Operation]);
}
