//! User copy: trap 22.

use ublk_sys::{
    UBLK_F_AUTO_BUF_REG, UBLK_F_SUPPORT_ZERO_COPY, UBLK_F_USER_COPY as UC, user_copy_offset,
};

use crate::driver::sim::tests::rig::*;
use crate::driver::sim::uring::sqe::{OP_READ, OP_READ_FIXED, OP_WRITE, Sqe};
use crate::driver::sim::*;

/// A read or write of `/dev/ublkcN`, into or out of the rig's buffer 0.
fn copy(rig: &Rig, opcode: u8, (queue, tag): (u16, u16), at: u32, len: u32) -> Sqe {
    let (off, addr) = (user_copy_offset(queue, tag, at), rig.buffers[0].as_ptr() as u64);
    Sqe { off, addr, len, ..sqe(opcode, CHAR, 0x10) }
}

#[test]
fn a_read_s_data_goes_in_and_a_write_s_comes_out() {
    let mut rig = Rig::live(UC, 2);
    let client = rig.client();
    client.submit(&write(0, &[4; 1024]), None);
    let (tag, descriptor) = rig.take_request();
    assert_eq!(descriptor.addr, 0);
    rig.push(&copy(&rig, OP_READ, (0, tag), 512, 4096));
    assert_eq!(rig.results(), [(0x10, 512)], "no more than there is");
    assert_eq!(rig.buffers[0][..513], [[4; 512].as_slice(), &[0]].concat());
    rig.push(&rig.commit(tag, 1024));
    client.submit(&read(0, 512), None);
    let (tag, _) = rig.take_request();
    rig.buffers[0].fill(9);
    rig.push(&copy(&rig, OP_WRITE, (0, tag), 0, 512));
    rig.push(&rig.commit(tag, 512));
    rig.turn();
    let done = client.take();
    assert_eq!(done[1].data, [9; 512]);
    assert_eq!(rig.rules(), []);
}

#[test]
fn what_is_not_ours_or_goes_the_other_way_is_refused() {
    let mut rig = Rig::live(UC, 2);
    rig.client().submit(&write(0, &[4; 512]), None);
    let (tag, _) = rig.take_request();
    let fixed = Sqe { opcode: OP_READ_FIXED, ..copy(&rig, OP_READ, (0, tag), 0, 512) };
    for (sqe, errno) in [
        (copy(&rig, OP_WRITE, (0, tag), 0, 512), libc::EACCES),
        (fixed, libc::EACCES),
        (copy(&rig, OP_READ, (0, 1 - tag), 0, 512), libc::EINVAL),
        (copy(&rig, OP_READ, (0, 2), 0, 512), libc::EINVAL),
        (copy(&rig, OP_READ, (1, tag), 0, 512), libc::EINVAL),
        (copy(&rig, OP_READ, (0, tag), 513, 1), libc::EINVAL),
    ] {
        rig.push(&sqe);
        assert_eq!(rig.results(), [(0x10, -errno)], "{sqe:?}");
    }
    rig.client().submit(&ClientOp::Flush, None);
    let (tag, _) = rig.take_request();
    rig.push(&copy(&rig, OP_READ, (0, tag), 0, 512));
    assert_eq!(rig.results(), [(0x10, -libc::EINVAL)]);
    assert_eq!(rig.rules(), [Rule::UserCopy; 7]);
}

#[test]
fn it_needs_the_feature() {
    let mut rig = Rig::live(UBLK_F_SUPPORT_ZERO_COPY, 1);
    rig.client().submit(&write(0, &[4; 512]), None);
    let (tag, _) = rig.take_request();
    rig.push(&copy(&rig, OP_READ, (0, tag), 0, 512));
    assert_eq!(rig.results(), [(0x10, -libc::EACCES)]);
}

#[test]
fn beside_automatic_registration_it_shows_a_write_s_bytes() {
    let mut rig = Rig::live(UC | UBLK_F_AUTO_BUF_REG, 1);
    let client = rig.client();
    client.submit(&write(0, &[4; 512]), None);
    let (tag, _) = rig.take_request();
    rig.push(&copy(&rig, OP_READ, (0, tag), 0, 8));
    rig.push(&write_fixed(0, 0, 512, 0x20));
    assert_eq!(rig.results(), [(0x10, 8), (0x20, 512)]);
    assert_eq!(rig.buffers[0][..8], [4; 8]);
    assert_eq!(rig.disk.contents()[..512], [4; 512]);
    assert_eq!(rig.rules(), []);
}
