//! Batches of commands, Linux 7.0.

use ublk_sys::{
    UBLK_BATCH_F_AUTO_BUF_REG_FALLBACK as FALLBACK, UBLK_BATCH_F_HAS_BUF_ADDR as HAS_ADDRESS,
    UBLK_BATCH_F_HAS_ZONE_LBA as HAS_LBA, UBLK_F_AUTO_BUF_REG as AUTO, UBLK_F_BATCH_IO as BATCH,
    UBLK_F_PER_IO_DAEMON, UBLK_F_SUPPORT_ZERO_COPY as ZC, UBLK_U_IO_COMMIT_IO_CMDS,
    UBLK_U_IO_PREP_IO_CMDS, ublk_batch_io,
};

use crate::driver::Ring;
use crate::driver::sim::tests::batch_rig::*;
use crate::driver::sim::tests::rig::*;
use crate::driver::sim::uring::sqe::{HARDLINK, Sqe};
use crate::driver::sim::*;

#[test]
fn one_completion_tells_of_many_requests_and_one_commit_answers_them() {
    let mut rig = BatchRig::live(ZC, 4);
    let client = rig.rig.client();
    submit(&client, 3, |at| write(at * 512, &[1; 512]));
    let tags = rig.take();
    assert_eq!(tags.len(), 3);
    assert_eq!(rig.answer(&tags, 512), 3 * 8);
    assert!(client.take().iter().all(|done| done.result == Ok(())));
    client.submit(&ClientOp::Flush, None);
    assert_eq!(rig.take().len(), 1, "the same fetch goes on");
    assert_eq!(rig.rig.rules(), []);
}

#[test]
fn requests_wait_until_a_fetch_comes() {
    let mut rig = BatchRig::armed(SimConfig::stepping(1), ZC, 4);
    let client = rig.rig.client();
    submit(&client, 2, |_| ClientOp::Flush);
    assert_eq!(rig.rig.turn(), []);
    rig.provide(8);
    rig.rig.push(&fetch_batch());
    assert_eq!(rig.take().len(), 2);
}

#[test]
fn a_fetch_without_a_buffer_ends_and_leaves_its_requests_to_the_next() {
    let mut rig = BatchRig::armed(SimConfig::stepping(1), ZC, 4);
    rig.rig.push(&fetch_batch());
    assert_eq!(rig.rig.turn(), [], "nothing to tell: no buffer is needed");
    let client = rig.rig.client();
    submit(&client, 2, |_| ClientOp::Flush);
    let ended = rig.rig.turn();
    assert_eq!((ended.len(), ended[0].result, ended[0].flags), (1, -libc::ENOBUFS, 0));
    rig.provide(8);
    assert_eq!(rig.rig.turn(), [], "a buffer alone is not enough");
    rig.rig.push(&fetch_batch());
    assert_eq!(rig.take().len(), 2);
    assert_eq!(rig.rig.rules(), []);
}

#[test]
fn a_completion_tells_of_128_requests_at_most_and_of_what_fits_the_buffer() {
    let mut rig = BatchRig::armed(SimConfig::stepping(1), ZC, 200);
    let client = rig.rig.client();
    submit(&client, 150, |_| ClientOp::Flush);
    rig.provide(200);
    rig.provide(2);
    rig.provide(200);
    rig.rig.push(&fetch_batch());
    let all = rig.rig.turn();
    let counts: Vec<usize> = all.iter().map(|done| rig.tags(done).len()).collect();
    assert_eq!(counts, [128, 2, 20]);
    let mut tags: Vec<u16> = all.iter().flat_map(|done| rig.tags(done)).collect();
    tags.sort_unstable();
    tags.dedup();
    assert_eq!(tags.len(), 150, "none twice");
}

#[test]
fn the_first_fetch_works_until_it_ends_and_what_it_leaves_waits_for_an_event() {
    let mut rig = BatchRig::armed(SimConfig::stepping(1), ZC, 4);
    rig.provide(8);
    rig.rig.push(&fetch_batch());
    rig.rig.push(&Sqe { user_data: 0x60, ..fetch_batch() });
    assert_eq!(rig.rig.turn(), []);
    let client = rig.rig.client();
    client.submit(&ClientOp::Flush, None);
    assert_eq!(rig.take().len(), 1);
    client.submit(&ClientOp::Flush, None);
    assert_eq!(rig.rig.results(), [(FETCH, -libc::ENOBUFS)]);
    rig.provide(8);
    assert_eq!(rig.rig.turn(), [], "nobody tells the second fetch");
    client.submit(&ClientOp::Flush, None);
    let all = rig.rig.turn();
    assert_eq!((all.len(), all[0].user_data, all[0].result), (1, 0x60, 4));
}

#[test]
fn a_stop_ends_the_fetches_and_lets_no_other_in() {
    let mut rig = BatchRig::live(ZC, 2);
    rig.rig.push(&Sqe { user_data: 0x60, ..fetch_batch() });
    rig.rig.ring.submit().unwrap();
    let client = rig.rig.client();
    client.submit(&ClientOp::Flush, None);
    rig.rig.sim.begin_stop(rig.rig.id).unwrap();
    let tags = rig.take();
    let commit = rig.commit(&answers(&tags, 0));
    rig.rig.push(&commit);
    let ended = [(COMMIT, 8), (FETCH, -libc::ENODEV), (0x60, -libc::ENODEV)];
    assert_eq!(rig.rig.results(), ended);
    rig.rig.push(&fetch_batch());
    let prep = rig.prep(&[0]);
    rig.rig.push(&prep);
    assert_eq!(rig.rig.results(), [(PREP, -libc::ENODEV), (FETCH, -libc::ENODEV)]);
    assert_eq!(rig.rig.rules(), []);
}

#[test]
fn preparation_is_all_or_nothing() {
    let mut rig = BatchRig::added(SimConfig::stepping(1), ZC, 3);
    for tags in [&[0, 1, 0][..], &[0, 1, 3]] {
        let prep = rig.prep(tags);
        rig.rig.push(&prep);
        assert_eq!(rig.rig.results(), [(PREP, -libc::EINVAL)]);
    }
    for tags in [&[2][..], &[], &[0, 1]] {
        let prep = rig.prep(tags);
        rig.rig.push(&prep);
        assert_eq!(rig.rig.results(), [(PREP, 0)]);
    }
    let prep = rig.prep(&[1]);
    rig.rig.push(&prep);
    assert_eq!(rig.rig.results(), [(PREP, -libc::EBUSY)], "the device is ready");
    start(&rig.rig.sim, rig.rig.id).unwrap();
    assert_eq!(rig.rig.rules(), [Rule::Fetch; 3]);
}

#[test]
fn headers_must_fit_the_device() {
    let check = |flags: u64, change: fn(&mut ublk_batch_io), errno: i32| {
        let mut rig = BatchRig::added(SimConfig::stepping(1), flags, 2);
        for op in [UBLK_U_IO_PREP_IO_CMDS, UBLK_U_IO_COMMIT_IO_CMDS] {
            let sqe = with(rig.prep(&[0, 1]), change);
            rig.rig.push(&Sqe { off: u64::from(op), ..sqe });
            assert_eq!(rig.rig.results(), [(PREP, -errno)], "{:?}", sqe.batch_io());
        }
        assert_eq!(rig.rig.rules(), [Rule::Fetch, Rule::Commit]);
    };
    check(ZC, |header| header.q_id = 1, libc::EINVAL);
    check(ZC, |header| header.nr_elem = 3, libc::E2BIG);
    check(ZC, |header| header.elem_bytes = 16, libc::EINVAL);
    check(ZC, |header| header.flags = 1 << 3, libc::EINVAL);
    check(ZC, |header| (header.flags, header.elem_bytes) = (HAS_LBA, 16), libc::EINVAL);
    check(ZC, |header| (header.flags, header.elem_bytes) = (HAS_ADDRESS, 16), libc::EINVAL);
    check(ZC, |header| header.flags = FALLBACK, libc::EINVAL);
    check(AUTO, |header| (header.flags, header.elem_bytes) = (HAS_ADDRESS, 16), libc::EINVAL);
    check(0, |header| header.flags |= FALLBACK, libc::EINVAL);
    check(0, |header| header.elem_bytes = 8, libc::EINVAL);
}

#[test]
fn where_the_driver_copies_every_element_has_a_buffer() {
    let mut rig = BatchRig::added(SimConfig::stepping(1), 0, 2);
    let without = |header: &mut ublk_batch_io| (header.flags, header.elem_bytes) = (0, 8);
    let prep = with(rig.prep(&[0, 1]), without);
    rig.rig.push(&prep);
    assert_eq!(rig.rig.results(), [(PREP, -libc::EINVAL)]);
    let mut rig = BatchRig::live(0, 2);
    let client = rig.rig.client();
    client.submit(&write(0, &[7; 512]), None);
    let tags = rig.take();
    assert_eq!(rig.rig.buffers[usize::from(tags[0])][..512], [7; 512]);
    let commit = with(rig.commit(&answers(&tags, 512)), without);
    rig.rig.push(&commit);
    assert_eq!(rig.rig.results(), [(COMMIT, -libc::EINVAL)]);
    assert_eq!(rig.answer(&tags, 512), 16);
    client.submit(&read(0, 1024), None);
    let tags = rig.take();
    rig.rig.buffers[usize::from(tags[0])][..512].fill(9);
    assert_eq!(rig.answer(&tags, 1024), 16);
    assert_eq!(client.take()[1].data[..513], [&[9; 512][..], &[POISON]].concat());
}

#[test]
fn a_commit_stops_at_the_first_element_that_is_not_ours() {
    let mut rig = BatchRig::live(ZC, 4);
    let client = rig.rig.client();
    submit(&client, 2, |_| ClientOp::Flush);
    let tags = rig.take();
    let idle = (0..4).find(|tag| !tags.contains(tag)).unwrap();
    assert_eq!(rig.answer(&[idle, tags[0]], 0), -libc::EBUSY);
    assert_eq!(rig.answer(&[tags[0], 4, tags[1]], 0), 8);
    assert_eq!(client.take().len(), 1);
    assert_eq!(rig.answer(&[tags[0], tags[1]], 0), -libc::EBUSY);
    assert_eq!(rig.answer(&[], 0), 0);
    assert_eq!(rig.answer(&tags[1..], 0), 8);
    assert_eq!(client.take().len(), 1);
    assert_eq!(rig.rig.rules(), [Rule::Commit; 3]);
}

#[test]
fn commands_for_one_request_are_refused_but_those_for_buffers() {
    let mut rig = BatchRig::live(ZC, 2);
    let client = rig.rig.client();
    client.submit(&write(512, &[3; 512]), None);
    let tag = rig.take()[0];
    let (fetch, commit) = (rig.rig.fetch(1 - tag), rig.rig.commit(tag, 512));
    rig.rig.push(&Sqe { user_data: 0x10, ..fetch });
    rig.rig.push(&Sqe { user_data: 0x11, ..commit });
    let refused = [(0x10, -libc::EOPNOTSUPP), (0x11, -libc::EOPNOTSUPP)];
    assert_eq!(rig.rig.results(), refused);
    rig.rig.push(&register(1 - tag, 0, 0x10));
    rig.rig.push(&register(2, 0, 0x11));
    assert_eq!(rig.rig.results(), [(0x10, -libc::EINVAL), (0x11, -libc::EINVAL)]);
    assert_eq!(rig.rig.rules(), [Rule::Fetch, Rule::Commit, Rule::Register, Rule::Register]);
    rig.rig.push(&register(tag, 0, 0x10));
    rig.rig.push(&write_fixed(0, 512, 512, 0x11));
    rig.rig.push(&unregister(tag, 0, 0x12));
    assert_eq!(rig.rig.results(), [(0x10, 0), (0x11, 512), (0x12, 0)]);
    assert_eq!(rig.answer(&[tag], 512), 8);
    assert_eq!(client.take()[0].result, Ok(()));
}

#[test]
fn a_server_that_dies_fails_what_it_has_and_what_it_has_not_heard_of() {
    let mut rig = BatchRig::live(AUTO | ZC, 4);
    let client = rig.rig.client();
    client.submit(&read(0, 512), None);
    rig.take();
    client.submit(&read(0, 512), None);
    client.submit(&read(0, 512), None);
    let BatchRig { rig: Rig { ring, descriptors, char_device, sim, id, .. }, .. } = rig;
    drop((ring, descriptors, char_device));
    let done = client.take();
    assert_eq!(done.len(), 3);
    assert!(done.iter().all(|done| done.result == Err(libc::EIO)));
    drop(client);
    assert_eq!(errno(sim.client(id)), libc::ENOENT);
}

#[test]
fn batches_exclude_threads_of_single_requests() {
    let sim = Sim::new(SimConfig::stepping(1));
    assert_ne!(add(&sim, 0, ZC, 1).unwrap().flags & UBLK_F_PER_IO_DAEMON, 0);
    assert_eq!(errno(add(&sim, 1, ZC | BATCH, 1)), libc::EINVAL, "a kfifo of one");
    let info = add(&sim, 1, ZC | BATCH, 2).unwrap();
    assert_eq!(info.flags & (UBLK_F_PER_IO_DAEMON | BATCH), BATCH);
    let kernel = Kernel::linux_6_12();
    let sim = Sim::new(SimConfig { kernel, ..SimConfig::stepping(1) });
    assert_eq!(add(&sim, 0, BATCH, 1).unwrap().flags & BATCH, 0);
}

#[test]
fn injected_a_commit_takes_a_part_or_nothing() {
    let mut rig = BatchRig::live(ZC, 8);
    let client = rig.rig.client();
    submit(&client, 8, |_| ClientOp::Flush);
    let tags = rig.take();
    rig.rig.sim.set_faults(Faults { partial: 1000, ..Faults::default() });
    let mut done = 0;
    let mut results = Vec::new();
    while done < 7 {
        let result = rig.answer(&tags[done..], 0);
        done += usize::try_from(result).unwrap_or(0) / 8;
        assert_eq!(client.in_flight(), 8 - done);
        results.push(result);
    }
    assert_eq!(rig.answer(&tags[7..], 0), -libc::EFAULT, "one element has no part");
    assert!(results.iter().any(|&result| result > 0));
    assert_eq!(rig.rig.sim.injected().partial as usize, results.len() + 1);
    assert_eq!(rig.rig.rules(), []);
}

#[test]
fn injected_commands_are_refused_before_they_do_anything() {
    let mut rig = BatchRig::live(ZC, 2);
    let client = rig.rig.client();
    client.submit(&ClientOp::Flush, None);
    let tags = rig.take();
    rig.rig.sim.set_faults(Faults { command: 1000, ..Faults::default() });
    assert_eq!(rig.answer(&tags, 0), -libc::ENOMEM);
    rig.rig.push(&fetch_batch());
    assert_eq!(rig.rig.results(), [(FETCH, -libc::ENOMEM)]);
    let commit = rig.commit(&answers(&tags, 0));
    let step = read_fixed(0, 0, 512, 0x10);
    rig.rig.push(&Sqe { flags: step.flags | HARDLINK, ..step });
    rig.rig.push(&commit);
    let refused = [(0x10, -libc::ECANCELED), (COMMIT, -libc::ENOMEM)];
    assert_eq!(rig.rig.results(), refused, "the whole chain");
    rig.rig.sim.set_faults(Faults { no_buffers: 1000, ..Faults::default() });
    assert_eq!(rig.answer(&tags, 0), 8);
    client.submit(&ClientOp::Flush, None);
    assert_eq!(rig.rig.results(), [(FETCH, -libc::ENOBUFS)]);
    assert_eq!(rig.rig.rules(), []);
}

#[test]
fn a_wait_for_two_completions_does_not_end_with_one() {
    let mut rig = BatchRig::live(ZC, 2);
    let client = rig.rig.client();
    client.submit(&ClientOp::Flush, None);
    let tags = rig.take();
    let commit = rig.commit(&answers(&tags, 0));
    rig.rig.push(&commit);
    client.submit(&ClientOp::Flush, None);
    rig.rig.ring.submit_and_wait(2).unwrap();
    assert_eq!(rig.rig.ring.ready(), 2);
}

#[test]
fn a_submission_queue_that_holds_something_may_be_full_until_it_is_submitted() {
    let mut rig = BatchRig::live(ZC, 2);
    let space = rig.rig.ring.space();
    rig.rig.sim.set_faults(Faults { full: 1000, ..Faults::default() });
    assert_eq!(rig.rig.ring.space(), space, "it is empty");
    rig.rig.push(&read_fixed(0, 0, 512, 0x10));
    assert_eq!(rig.rig.ring.space(), 0);
    rig.rig.ring.submit().unwrap();
    assert_eq!(rig.rig.ring.space(), space);
}
