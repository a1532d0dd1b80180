//! Steps that begin and end inside of a request's segments. The segments of a request are pages here: a
//! step begins or ends before, at and behind the border of two pages, and reaches over several.

use ublk_sys::{UBLK_F_SUPPORT_ZERO_COPY, UBLK_F_USER_COPY, user_copy_offset};

use crate::driver::sim::tests::rig::*;
use crate::driver::sim::uring::sqe::{OP_READ, OP_WRITE, Sqe};

const PAGE: u32 = 4096;
const LENGTH: u32 = 4 * PAGE;
/// The borders of the steps, in bytes of the request.
const BORDERS: [u32; 8] = [0, 1, 511, PAGE - 1, PAGE + 1, 3 * PAGE - 7, 3 * PAGE, LENGTH];
const REG: u64 = 1 << 32;
const UNREG: u64 = 2 << 32;

/// How a server reaches the bytes of a request.
struct Way {
    flags: u64,
    /// Moves `length` bytes from offset `at` of the request: out of a write, or into a read.
    step: fn(&Rig, out: bool, at: u32, length: u32) -> Sqe,
    /// The bytes that the steps of a write have moved.
    moved: fn(&Rig) -> Vec<u8>,
}

const REGISTERED: Way = Way {
    flags: UBLK_F_SUPPORT_ZERO_COPY,
    step: |_, out, at, length| {
        let fixed = if out { write_fixed } else { read_fixed };
        Sqe { addr: at.into(), ..fixed(0, at.into(), length, at.into()) }
    },
    moved: |rig| rig.disk.contents()[..LENGTH as usize].to_vec(),
};

const COPIED: Way = Way {
    flags: 0,
    step: |rig, out, at, length| {
        let opcode = if out { OP_WRITE } else { OP_READ };
        let addr = rig.buffers[0].as_ptr() as u64 + u64::from(at);
        Sqe { off: at.into(), addr, len: length, ..sqe(opcode, DISK, at.into()) }
    },
    moved: REGISTERED.moved,
};

const COPIED_BY_THE_SERVER: Way = Way {
    flags: UBLK_F_USER_COPY,
    step: |rig, out, at, length| {
        let opcode = if out { OP_READ } else { OP_WRITE };
        let addr = rig.buffers[0].as_ptr() as u64 + u64::from(at);
        let off = user_copy_offset(0, 0, at);
        Sqe { off, addr, len: length, ..sqe(opcode, CHAR, at.into()) }
    },
    moved: |rig| rig.buffers[0][..LENGTH as usize].to_vec(),
};

impl Way {
    fn carry(&self, rig: &mut Rig, out: bool) {
        let (tag, descriptor) = rig.take_request();
        assert_eq!((tag, descriptor.nr_sectors), (0, LENGTH >> 9));
        let registers = self.flags & UBLK_F_SUPPORT_ZERO_COPY != 0;
        let mut expected = Vec::new();
        if registers {
            rig.push(&register(tag, 0, REG));
        }
        for border in BORDERS.windows(2) {
            let (at, length) = (border[0], border[1] - border[0]);
            rig.push(&(self.step)(rig, out, at, length));
            expected.push((at.into(), i32::try_from(length).unwrap()));
        }
        if registers {
            rig.push(&unregister(tag, 0, UNREG));
            expected.extend([(REG, 0), (UNREG, 0)]);
        }
        assert_eq!(rig.results(), expected);
    }
}

#[test]
fn steps_inside_of_segments_move_the_bytes_that_they_name() {
    // No page is as long as the pattern: a byte that goes to another page is seen.
    let bytes: Vec<u8> = (0..251).cycle().take(LENGTH as usize).collect();
    for way in [REGISTERED, COPIED, COPIED_BY_THE_SERVER] {
        let mut rig = Rig::live(way.flags, 1);
        let client = rig.client();
        client.submit(&write(0, &bytes), None);
        way.carry(&mut rig, true);
        assert!((way.moved)(&rig) == bytes, "flags {:#x}: a write", way.flags);
        let length = i32::try_from(LENGTH).unwrap();
        rig.push(&rig.commit(0, length));
        rig.turn();
        assert_eq!(client.take()[0].result, Ok(()));

        client.submit(&read(0, LENGTH), None);
        way.carry(&mut rig, false);
        rig.push(&rig.commit(0, length));
        rig.turn();
        assert!(client.take()[0].data == bytes, "flags {:#x}: a read", way.flags);
        assert_eq!(rig.rules(), []);
    }
}
