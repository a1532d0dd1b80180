//! io_uring itself: links, silent completions, waits, limits.

use std::os::fd::AsRawFd;

use ublk_sys::UBLK_F_SUPPORT_ZERO_COPY as ZC;

use crate::driver::sim::tests::rig::*;
use crate::driver::sim::uring::sqe::*;
use crate::driver::sim::*;
use crate::driver::{Completion, Driver, Ring, RingSize, SEVERED};

fn nop(user_data: u64, flags: u8) -> Sqe {
    Sqe { flags, ..sqe(OP_NOP, 0, user_data) }
}

#[test]
fn a_failure_cancels_what_is_softly_linked_to_it() {
    let mut rig = Rig::live(ZC, 1);
    let bad = Sqe { flags: FIXED_FILE | LINK, ..read_fixed(0, 0, 512, 1) };
    rig.push(&bad);
    rig.push(&nop(2, LINK));
    rig.push(&nop(3, 0));
    rig.push(&nop(4, 0));
    let cancelled = -libc::ECANCELED;
    assert_eq!(rig.results(), [(1, -libc::EFAULT), (2, cancelled), (3, cancelled), (4, 0)]);
}

#[test]
fn a_hard_link_survives_failures_but_not_refusals() {
    let mut rig = Rig::live(ZC, 1);
    rig.push(&Sqe { flags: FIXED_FILE | HARDLINK, ..read_fixed(0, 0, 512, 1) });
    rig.push(&nop(2, 0));
    assert_eq!(rig.results(), [(1, -libc::EFAULT), (2, 0)]);
    rig.push(&nop(1, HARDLINK));
    rig.push(&Sqe { flags: HARDLINK, ..sqe(200, 0, 2) });
    rig.push(&nop(3, 0));
    let cancelled = -libc::ECANCELED;
    assert_eq!(rig.results(), [(1, cancelled), (2, -libc::EINVAL), (3, cancelled)]);
}

#[test]
fn silence_on_success_silences_the_rest_of_a_chain_that_breaks() {
    let mut rig = Rig::live(ZC, 1);
    let silent = FIXED_FILE | LINK | SKIP_SUCCESS;
    rig.push(&Sqe { flags: silent, ..read_fixed(0, 0, 512, 1) });
    rig.push(&nop(2, LINK));
    rig.push(&nop(3, 0));
    assert_eq!(rig.results(), [(1, -libc::EFAULT)], "2 and 3 are cancelled, and nobody is told");
    rig.push(&nop(4, LINK | SKIP_SUCCESS));
    rig.push(&nop(5, SKIP_SUCCESS));
    assert_eq!(rig.results(), []);
}

fn short_of_memory() -> Rig {
    let faults = Faults { submit: 1000, ..Faults::default() };
    Rig::with(SimConfig { faults, ..SimConfig::stepping(1) }, ZC, 1)
}

#[test]
fn the_rest_of_a_chain_that_is_taken_in_part_is_withdrawn_and_no_more_than_that() {
    let mut rig = short_of_memory();
    rig.push(&nop(1, LINK));
    rig.push(&nop(2, 0));
    rig.ring.submit().unwrap();
    assert_eq!(rig.results(), [(1, 0), (1 | SEVERED, 0)]);
    rig.push(&nop(1, LINK));
    rig.push(&nop(2, LINK));
    rig.ring.poll().unwrap();
    rig.push(&nop(3, 0));
    rig.ring.submit().unwrap();
    assert_eq!(rig.results(), [(1, 0), (3, 0), (1 | SEVERED, 0)]);
}

#[test]
fn a_chain_that_ends_with_its_submission_has_no_rest_to_be_withdrawn() {
    for mut rig in [Rig::live(ZC, 1), short_of_memory()] {
        rig.push(&nop(1, LINK));
        rig.ring.submit().unwrap();
        rig.push(&nop(2, 0));
        rig.ring.submit().unwrap();
        assert_eq!(rig.results(), [(1, 0), (2, 0)]);
    }
}

#[test]
fn a_failed_fsync_breaks_no_chain_and_stays_silent_if_success_would() {
    let mut rig = Rig::live(ZC, 1);
    rig.disk.set_trouble(Trouble { syncs: Some(libc::EIO), ..Trouble::default() });
    rig.push(&Sqe { flags: FIXED_FILE | LINK, ..sqe(OP_FSYNC, DISK, 1) });
    rig.push(&nop(2, 0));
    assert_eq!(rig.results(), [(1, -libc::EIO), (2, 0)]);
    rig.push(&Sqe { flags: FIXED_FILE | SKIP_SUCCESS, ..sqe(OP_FSYNC, DISK, 1) });
    assert_eq!(rig.results(), []);
}

#[test]
fn a_read_of_an_eventfd_ends_when_it_is_written() {
    let mut rig = Rig::live(ZC, 1);
    // SAFETY: plain numbers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    assert!(fd >= 0);
    // SAFETY: fresh and ours.
    let fd: std::os::fd::OwnedFd = unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) };
    let mut count = [0_u8; 8];
    let addr = count.as_mut_ptr() as u64;
    rig.push(&Sqe { flags: 0, addr, len: 8, ..sqe(OP_READ, fd.as_raw_fd(), 1) });
    assert_eq!(rig.results(), []);
    let write = |value: u64| {
        // SAFETY: eight bytes of ours.
        let wrote = unsafe { libc::write(fd.as_raw_fd(), (&raw const value).cast(), 8) };
        assert_eq!(wrote, 8);
    };
    write(3);
    assert_eq!(rig.results(), [(1, 8)]);
    assert_eq!(u64::from_ne_bytes(count), 3);

    let poll = Sqe { flags: 0, len: 1, op_flags: 1, ..sqe(OP_POLL_ADD, fd.as_raw_fd(), 2) };
    rig.push(&poll);
    assert_eq!(rig.turn(), []);
    write(1);
    assert_eq!(rig.turn(), [Completion { user_data: 2, result: 1, flags: 2 }]);
    assert_eq!(rig.turn(), [], "once for each edge");
    rig.push(&Sqe { flags: 0, addr: 2, ..sqe(OP_ASYNC_CANCEL, 0, 3) });
    assert_eq!(rig.results(), [(2, -libc::ECANCELED), (3, 0)]);
}

#[test]
fn what_cannot_be_cancelled_yet_is_not_cancelled_again_without_a_pause() {
    let faults = Faults { delay: 1000, ..Faults::default() };
    let mut rig = Rig::with(SimConfig { faults, ..SimConfig::stepping(1) }, ZC, 1);
    rig.client().submit(&write(0, &[1; 512]), None);
    let (tag, _) = rig.take_request();
    rig.push(&register(tag, 0, 1));
    rig.push(&write_fixed(0, 0, 512, 2));
    let cancel = Sqe { flags: 0, addr: 2, ..sqe(OP_ASYNC_CANCEL, 0, 3) };
    rig.push(&cancel);
    rig.ring.submit().unwrap();
    assert_eq!(rig.rules(), []);
    rig.push(&cancel);
    rig.ring.submit().unwrap();
    assert_eq!(rig.rules(), [Rule::Spin]);
    assert!(rig.results().contains(&(3, -libc::EALREADY)));
}

#[test]
fn a_timeout_comes_when_nothing_else_will() {
    let mut rig = Rig::live(ZC, 1);
    let time = [60_u64, 0];
    rig.push(&Sqe { flags: 0, addr: time.as_ptr() as u64, len: 1, ..sqe(OP_TIMEOUT, 0, 1) });
    assert_eq!(rig.results(), [(1, -libc::ETIME)]);
}

#[test]
fn what_is_synced_survives_a_power_cut() {
    let mut rig = Rig::live(ZC, 1);
    rig.client().submit(&write(0, &[1; 1536]), None);
    let (tag, _) = rig.take_request();
    rig.push(&register(tag, 0, 1));
    rig.push(&Sqe { op_flags: 2, ..write_fixed(0, 0, 512, 2) });
    rig.push(&Sqe { addr: 512, ..write_fixed(0, 512, 512, 3) });
    rig.turn();
    assert_eq!(rig.disk.durable()[..1024], [[1; 512], [0; 512]].concat());
    rig.push(&sqe(OP_FSYNC, DISK, 4));
    rig.turn();
    rig.push(&Sqe { addr: 1024, ..write_fixed(0, 1024, 512, 3) });
    rig.turn();
    rig.disk.cut_power();
    let left = rig.disk.contents();
    assert_eq!(left[..1024], [1; 1024]);
    assert!(left[1024..1536] == [0; 512] || left[1024..1536] == [1; 512]);
}

#[test]
fn queues_have_their_limits() {
    let mut rig = Rig::live(ZC, 1);
    let mut small =
        rig.sim.ring(RingSize { submissions: 2, completions: 2, tells_of_work: false }).unwrap();
    std::mem::swap(&mut rig.ring, &mut small);
    rig.push(&nop(1, 0));
    rig.push(&nop(2, 0));
    assert_eq!(rig.ring.space(), 0);
    rig.push(&nop(3, 0));
    assert_eq!(rig.rules(), [Rule::NoSpace]);
    rig.ring.submit().unwrap();
    rig.push(&nop(4, 0));
    rig.ring.submit().unwrap();
    assert_eq!(rig.rules(), [Rule::NoSpace, Rule::Overflow]);
}

#[test]
fn what_the_model_does_not_know_is_no_success() {
    let mut rig = Rig::live(ZC, 1);
    rig.push(&Sqe { flags: 1 << 1, ..sqe(OP_NOP, 0, 1) });
    rig.push(&sqe(9, 0, 2));
    rig.push(&sqe(OP_FSYNC, 7, 3));
    assert_eq!(rig.results(), [(1, -libc::EINVAL), (2, -libc::EINVAL), (3, -libc::EBADF)]);
    assert_eq!(rig.rules(), [Rule::Operation; 3]);
}
