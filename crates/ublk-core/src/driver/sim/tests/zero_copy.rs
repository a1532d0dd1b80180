//! Manual registration: traps 1, 2 and 4 to 13.

use ublk_sys::{UBLK_F_SUPPORT_ZERO_COPY as ZC, UBLK_U_IO_COMMIT_AND_FETCH_REQ, ublksrv_io_cmd};

use crate::driver::Ring;
use crate::driver::sim::tests::rig::*;
use crate::driver::sim::uring::sqe::{ASYNC, HARDLINK, LINK, Sqe};
use crate::driver::sim::*;

const REG: u64 = 0x100;
const IO: u64 = 0x200;
const UNREG: u64 = 0x300;

#[test]
fn a_registered_read_brings_the_disk_s_bytes_without_a_copy() {
    let mut rig = Rig::live(ZC, 4);
    rig.disk.store(4096, &[7; 512]);
    let client = rig.client();
    client.submit(&read(4096, 512), None);
    let (tag, descriptor) = rig.take_request();
    assert_eq!((descriptor.start_sector, descriptor.nr_sectors, descriptor.addr), (8, 1, 0));

    rig.push(&register(tag, 5, REG));
    rig.push(&read_fixed(5, 4096, 512, IO));
    rig.push(&unregister(tag, 5, UNREG));
    assert_eq!(rig.results(), [(REG, 0), (IO, 512), (UNREG, 0)]);
    assert_eq!(client.take(), [], "not before the commit");
    rig.push(&rig.commit(tag, 512));
    rig.turn();
    let done = client.take();
    assert_eq!(done[0].result, Ok(()));
    assert_eq!(done[0].data, [7; 512]);
    assert_eq!(rig.rules(), []);
}

#[test]
fn trap_1_a_short_result_is_success_for_the_whole_request() {
    let mut rig = Rig::live(ZC, 1);
    let client = rig.client();
    client.submit(&read(0, 1024), None);
    let (tag, _) = rig.take_request();
    rig.push(&rig.commit(tag, 512));
    rig.turn();
    let done = client.take();
    assert_eq!(done[0].result, Ok(()));
    assert_eq!(done[0].data, [POISON; 1024], "nobody filled it, and nobody said so");
    assert_eq!(rig.rules(), [], "it is for the client to notice");
}

#[test]
fn trap_2_a_read_committed_with_nothing_fails() {
    let mut rig = Rig::live(ZC, 1);
    let client = rig.client();
    client.submit(&read(0, 512), None);
    let (tag, _) = rig.take_request();
    rig.push(&rig.commit(tag, 0));
    rig.turn();
    assert_eq!(client.take()[0].result, Err(libc::EIO));
}

/// Register, read beyond the end of the file (short), unregister, then the commit.
fn chain_with_a_short_read(link: u8) -> (Rig, Client) {
    let mut rig = Rig::live(ZC, 1);
    rig.disk.resize(512);
    let client = rig.client();
    client.submit(&read(0, 1024), None);
    let (tag, _) = rig.take_request();
    rig.push(&Sqe { flags: 1 | link, ..register(tag, 0, REG) });
    rig.push(&Sqe { flags: 1 | link, ..read_fixed(0, 0, 1024, IO) });
    rig.push(&unregister(tag, 0, UNREG));
    (rig, client)
}

#[test]
fn trap_4_a_soft_link_loses_the_unregister_and_the_request_never_ends() {
    let (mut rig, client) = chain_with_a_short_read(LINK);
    assert_eq!(rig.results(), [(REG, 0), (IO, 512), (UNREG, -libc::ECANCELED)]);
    rig.push(&rig.commit(0, 1024));
    assert_eq!(rig.turn(), []);
    assert_eq!(client.in_flight(), 1);
    rig.sim.begin_stop(rig.id).unwrap();
    assert_eq!(rig.turn(), [], "the stop hangs with it");
    rig.sim.audit();
    assert_eq!(rig.rules(), [Rule::BufferLeft, Rule::Unanswered]);
}

#[test]
fn trap_4_a_hard_link_keeps_the_unregister() {
    let (mut rig, client) = chain_with_a_short_read(HARDLINK);
    assert_eq!(rig.results(), [(REG, 0), (IO, 512), (UNREG, 0)]);
    rig.push(&rig.commit(0, 1024));
    rig.turn();
    assert_eq!(client.take()[0].result, Ok(()));
    rig.sim.audit();
    assert_eq!(rig.rules(), []);
}

#[test]
fn trap_5_without_links_a_late_register_leaves_the_fixed_operation_without_buffer() {
    let mut rig = Rig::live(ZC, 1);
    rig.client().submit(&read(0, 512), None);
    let (tag, _) = rig.take_request();
    let late = register(tag, 0, REG);
    rig.push(&Sqe { flags: late.flags | ASYNC, ..late });
    rig.push(&read_fixed(0, 0, 512, IO));
    assert_eq!(rig.results(), [(REG, 0), (IO, -libc::EFAULT)]);
    assert_eq!(rig.rules(), [Rule::EmptySlot]);
}

#[test]
fn trap_5_the_buffer_is_looked_up_at_issue_and_outlives_its_slot() {
    let config =
        SimConfig { faults: Faults { delay: 1000, ..Faults::default() }, ..SimConfig::stepping(1) };
    let mut rig = Rig::with(config, ZC, 1);
    rig.disk.store(0, &[9; 512]);
    let client = rig.client();
    client.submit(&read(0, 512), None);
    let (tag, _) = rig.take_request();
    rig.push(&register(tag, 0, REG));
    rig.push(&read_fixed(0, 0, 512, IO));
    rig.push(&unregister(tag, 0, UNREG));
    rig.push(&rig.commit(tag, 512));
    rig.ring.submit().unwrap();
    assert_eq!(client.in_flight(), 1, "the read has the pages, committed or not");
    assert_eq!(rig.results(), [(REG, 0), (IO, 512), (UNREG, 0)]);
    assert_eq!(client.take()[0].data, [9; 512]);
}

#[test]
fn trap_5_a_chain_split_over_two_enters_is_two_chains() {
    let mut rig = Rig::live(ZC, 1);
    rig.client().submit(&read(0, 512), None);
    let (tag, _) = rig.take_request();
    let first = register(tag, 0, REG);
    rig.push(&Sqe { flags: first.flags | HARDLINK, ..first });
    rig.ring.submit().unwrap();
    rig.push(&read_fixed(0, 0, 512, IO));
    rig.ring.submit().unwrap();
    assert_eq!(rig.results(), [(REG, 0), (IO, -libc::EFAULT)]);
}

#[test]
fn trap_6_slots_answer_as_the_kernel_s() {
    let mut rig = Rig::live(ZC, 2);
    rig.client().submit(&read(0, 512), None);
    let (tag, _) = rig.take_request();
    for (sqe, expected) in [
        (register(tag, 0, 1), 0),
        (register(tag, 0, 1), -libc::EBUSY),
        (register(tag, 4, 1), -libc::EINVAL),
        (unregister(tag, 0, 1), 0),
        (unregister(tag, 0, 1), -libc::EINVAL),
        (unregister(tag, 4, 1), -libc::EINVAL),
    ] {
        rig.push(&sqe);
        assert_eq!(rig.results(), [(1, expected)], "{sqe:?}");
    }
    use Rule::{Register, Unregister};
    assert_eq!(rig.rules(), [Register, Register, Unregister, Unregister]);
}

#[test]
fn trap_7_unregister_takes_whatever_is_in_the_slot() {
    let mut rig = Rig::live(ZC, 2);
    let client = rig.client();
    client.submit(&read(0, 512), None);
    let (first, _) = rig.take_request();
    client.submit(&read(512, 512), None);
    let (second, _) = rig.take_request();
    rig.push(&register(first, 0, 1));
    rig.push(&unregister(second, 0, 2));
    assert_eq!(rig.results(), [(1, 0), (2, 0)], "the kernel does not mind");
    assert_eq!(rig.rules(), [Rule::Unregister], "the model does");
}

#[test]
fn trap_8_a_committed_request_lives_until_its_buffer_is_unregistered() {
    let mut rig = Rig::live(ZC, 1);
    let client = rig.client();
    client.submit(&write(0, &[1; 512]), None);
    let (tag, _) = rig.take_request();
    rig.push(&register(tag, 0, REG));
    rig.push(&rig.commit(tag, 512));
    rig.turn();
    assert_eq!(client.in_flight(), 1);
    rig.push(&unregister(tag, 0, UNREG));
    assert_eq!(rig.results(), [(UNREG, 0)]);
    assert_eq!(client.take()[0].result, Ok(()));
}

#[test]
fn trap_9_requests_without_data_cannot_be_registered() {
    let mut rig = Rig::live(ZC, 1);
    rig.client().submit(&ClientOp::Flush, None);
    let (tag, _) = rig.take_request();
    rig.push(&register(tag, 0, REG));
    assert_eq!(rig.results(), [(REG, -libc::EINVAL)]);
    assert_eq!(rig.rules(), [Rule::Register]);
}

#[test]
fn trap_13_direction_and_length_are_enforced() {
    let mut rig = Rig::live(ZC, 1);
    rig.client().submit(&write(0, &[1; 1024]), None);
    let (tag, _) = rig.take_request();
    rig.push(&register(tag, 0, REG));
    rig.push(&read_fixed(0, 0, 512, 1));
    rig.push(&Sqe { addr: 512, ..write_fixed(0, 0, 1024, 2) });
    rig.push(&Sqe { addr: 512, ..write_fixed(0, 0, 512, 3) });
    assert_eq!(rig.results(), [(1, -libc::EFAULT), (2, -libc::EFAULT), (3, 512), (REG, 0)]);
    assert_eq!(rig.rules(), [Rule::Range, Rule::Range]);
    assert_eq!(rig.disk.contents()[..512], [1; 512]);
}

#[test]
fn a_buffer_address_is_refused_where_nothing_is_copied() {
    let mut rig = Rig::live(ZC, 1);
    rig.client().submit(&write(0, &[1; 512]), None);
    let (tag, _) = rig.take_request();
    let cmd = ublksrv_io_cmd { q_id: 0, tag, result: 512, addr: 4096 };
    rig.push(&ublk_sqe(UBLK_U_IO_COMMIT_AND_FETCH_REQ, cmd, 1));
    assert_eq!(rig.results(), [(1, -libc::EINVAL)]);
}

#[test]
fn commits_of_what_is_not_ours_are_refused() {
    let mut rig = Rig::live(ZC, 2);
    rig.client().submit(&write(0, &[1; 512]), None);
    let (tag, _) = rig.take_request();
    let commit = |q_id: u16, tag: u16, result: i32| {
        let cmd = ublksrv_io_cmd { q_id, tag, result, addr: 0 };
        ublk_sqe(UBLK_U_IO_COMMIT_AND_FETCH_REQ, cmd, 0x99)
    };
    for (sqe, expected) in [
        (commit(1, tag, 512), libc::EINVAL),
        (commit(0, 2, 512), libc::EINVAL),
        (commit(0, 1 - tag, 512), libc::EBUSY),
    ] {
        rig.push(&sqe);
        assert_eq!(rig.results(), [(0x99, -expected)]);
    }
    rig.push(&commit(0, tag, 512));
    rig.push(&commit(0, tag, 512));
    assert_eq!(rig.results(), [(0x99, -libc::EBUSY)], "the second of two");
    assert_eq!(rig.rules(), [Rule::Commit; 4]);
}

#[test]
fn a_result_longer_than_the_request_breaks_the_rules() {
    let mut rig = Rig::live(ZC, 1);
    rig.client().submit(&write(0, &[1; 512]), None);
    let (tag, _) = rig.take_request();
    rig.push(&rig.commit(tag, 1024));
    rig.turn();
    assert_eq!(rig.rules(), [Rule::Commit]);
}
