//! Automatic registration: traps 9 to 12.

use ublk_sys::{
    UBLK_F_AUTO_BUF_REG as AUTO, UBLK_F_SUPPORT_ZERO_COPY as ZC, UBLK_IO_F_NEED_REG_BUF,
};

use crate::driver::sim::tests::rig::*;
use crate::driver::sim::uring::sqe::Sqe;
use crate::driver::sim::*;
use crate::driver::{Driver, Ring, RingSize};

fn failing_auto() -> SimConfig {
    let faults = Faults { auto_register: 1000, ..Faults::default() };
    SimConfig { faults, ..SimConfig::stepping(1) }
}

#[test]
fn the_request_comes_with_its_buffer_in_the_slot_and_the_commit_empties_it() {
    let mut rig = Rig::live(AUTO | ZC, 2);
    let client = rig.client();
    client.submit(&write(512, &[3; 512]), None);
    let (tag, descriptor) = rig.take_request();
    assert_eq!(descriptor.op_flags & UBLK_IO_F_NEED_REG_BUF, 0);
    rig.push(&write_fixed(tag, 512, 512, 0x10));
    assert_eq!(rig.results(), [(0x10, 512)]);
    rig.push(&rig.commit(tag, 512));
    rig.turn();
    assert_eq!(client.take()[0].result, Ok(()));
    assert_eq!(rig.disk.contents()[512..1024], [3; 512]);
    rig.sim.audit();
    assert_eq!(rig.rules(), []);
}

#[test]
fn trap_9_a_flush_occupies_no_slot() {
    let mut rig = Rig::live(AUTO | ZC, 1);
    let client = rig.client();
    client.submit(&ClientOp::Flush, None);
    let (tag, _) = rig.take_request();
    rig.push(&unregister(tag, u64::from(tag), 0x10));
    assert_eq!(rig.results(), [(0x10, -libc::EINVAL)]);
    rig.push(&rig.commit(tag, 0));
    rig.turn();
    assert_eq!(client.take()[0].result, Ok(()));
}

#[test]
fn trap_10_a_commit_on_another_ring_leaves_the_buffer_registered() {
    let mut rig = Rig::live(AUTO | ZC, 1);
    let client = rig.client();
    client.submit(&write(0, &[3; 512]), None);
    let (tag, _) = rig.take_request();
    let mut other =
        rig.sim.ring(RingSize { submissions: 4, completions: 8, tells_of_work: false }).unwrap();
    register_files(&mut other, &[rig.char_device.fd()]);
    std::mem::swap(&mut rig.ring, &mut other);
    rig.push(&rig.commit(tag, 512));
    rig.turn();
    assert_eq!(client.in_flight(), 1);
    std::mem::swap(&mut rig.ring, &mut other);
    rig.push(&unregister(tag, u64::from(tag), 0x10));
    assert_eq!(rig.results(), [(0x10, 0)]);
    assert_eq!(client.take()[0].result, Ok(()));
}

#[test]
fn trap_11_with_fallback_the_server_is_told_to_register_by_hand() {
    let mut rig = Rig::with(failing_auto(), AUTO | ZC, 1);
    let client = rig.client();
    client.submit(&read(0, 512), None);
    let (tag, descriptor) = rig.take_request();
    assert_ne!(descriptor.op_flags & UBLK_IO_F_NEED_REG_BUF, 0);
    rig.push(&register(tag, 1, 0x10));
    rig.push(&read_fixed(1, 0, 512, 0x11));
    rig.push(&unregister(tag, 1, 0x12));
    assert_eq!(rig.results(), [(0x10, 0), (0x11, 512), (0x12, 0)]);
    rig.push(&rig.commit(tag, 512));
    rig.turn();
    assert_eq!(client.take()[0].data, [0; 512]);
    assert_eq!(rig.rules(), []);
}

#[test]
fn trap_11_a_server_that_overlooks_the_fallback_finds_no_buffer() {
    let mut rig = Rig::with(failing_auto(), AUTO | ZC, 1);
    rig.client().submit(&read(0, 512), None);
    let (tag, _) = rig.take_request();
    rig.push(&read_fixed(tag, 0, 512, 0x10));
    assert_eq!(rig.results(), [(0x10, -libc::EFAULT)]);
    assert_eq!(rig.rules(), [Rule::EmptySlot]);
}

#[test]
fn trap_11_by_hand_needs_zero_copy_too() {
    let mut rig = Rig::with(failing_auto(), AUTO, 1);
    rig.client().submit(&read(0, 512), None);
    let (tag, _) = rig.take_request();
    rig.push(&register(tag, 1, 0x10));
    assert_eq!(rig.results(), [(0x10, -libc::EINVAL)]);
}

#[test]
fn trap_11_without_fallback_the_request_fails_and_the_server_never_hears_of_it() {
    let mut rig = Rig::added(failing_auto(), AUTO | ZC, 1);
    rig.push(&Sqe { addr: 0, ..rig.fetch(0) });
    rig.turn();
    start(&rig.sim, rig.id).unwrap();
    let client = rig.client();
    client.submit(&read(0, 512), None);
    assert_eq!(rig.turn(), []);
    assert_eq!(client.take()[0].result, Err(libc::EIO));
    client.submit(&ClientOp::Flush, None);
    assert_eq!(rig.turn().len(), 1, "the tag still waits");
}

#[test]
fn trap_11_an_occupied_slot_is_what_makes_registration_fail() {
    let mut rig = Rig::live(AUTO | ZC, 2);
    let client = rig.client();
    client.submit(&read(0, 512), None);
    let (first, _) = rig.take_request();
    rig.push(&register(first, u64::from(1 - first), 0x10));
    assert_eq!(rig.results(), [(0x10, 0)], "into the other tag's slot");
    client.submit(&read(512, 512), None);
    let (second, descriptor) = rig.take_request();
    assert_eq!(second, 1 - first);
    assert_ne!(descriptor.op_flags & UBLK_IO_F_NEED_REG_BUF, 0);
    assert_eq!(rig.rules(), [Rule::Register]);
}

#[test]
fn trap_12_reserved_bits_are_refused() {
    let mut rig = Rig::added(SimConfig::stepping(1), AUTO | ZC, 1);
    for addr in [1 << 17, 1 << 24, 1 << 32] {
        rig.push(&Sqe { addr, ..rig.fetch(0) });
        assert_eq!(rig.results(), [(0, -libc::EINVAL)], "{addr:#x}");
    }
    assert_eq!(rig.rules(), [Rule::Fetch; 3]);
}

#[test]
fn a_tag_is_committed_by_the_thread_that_has_fetched_it() {
    let config = SimConfig { thread_per_ring: true, ..SimConfig::stepping(1) };
    let mut rig = Rig::with(config, AUTO | ZC, 1);
    let client = rig.client();
    client.submit(&write(0, &[3; 512]), None);
    let (tag, _) = rig.take_request();
    let mut other =
        rig.sim.ring(RingSize { submissions: 4, completions: 8, tells_of_work: false }).unwrap();
    register_files(&mut other, &[rig.char_device.fd()]);
    other.register_buffers_sparse(1).unwrap();
    std::mem::swap(&mut rig.ring, &mut other);
    rig.push(&rig.commit(tag, 512));
    assert_eq!(rig.results(), [(u64::from(tag), -libc::EINVAL)]);
    assert_eq!(rig.rules(), [Rule::Commit]);
    rig.push(&register(tag, 0, 0x10));
    rig.push(&unregister(tag, 0, 0x11));
    assert_eq!(rig.results(), [(0x10, 0), (0x11, 0)], "buffers are anybody's");
    std::mem::swap(&mut rig.ring, &mut other);
    rig.push(&rig.commit(tag, 512));
    assert_eq!(rig.results(), []);
    assert_eq!(client.take()[0].result, Ok(()));
}
