//! Shared memory: trap 21.

use std::time::Duration;

use ublk_sys::{
    UBLK_F_NEED_GET_DATA, UBLK_F_SHMEM_ZC as SHARED, UBLK_IO_F_SHMEM_ZC, UBLK_IO_RES_NEED_GET_DATA,
    UBLK_SHMEM_BUF_READ_ONLY, UBLK_U_CMD_REG_BUF, UBLK_U_CMD_UNREG_BUF, UBLK_U_IO_NEED_GET_DATA,
    ublk_shmem_zc_addr, ublksrv_ctrl_cmd, ublksrv_io_cmd, ublksrv_io_desc,
};

use crate::driver::Driver;
use crate::driver::sim::tests::rig::*;
use crate::driver::sim::uring::sqe::{OP_READ, OP_WRITE, Sqe};
use crate::driver::sim::*;
use crate::tag::Tag;

const LENGTH: usize = 16384;

fn shares(rig: &Rig, (addr, len): (u64, u64), flags: u32) -> io::Result<i32> {
    let words = [addr, len, u64::from(flags)];
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let answer =
        rig.sim.control(UBLK_U_CMD_REG_BUF, command(rig.id), Some(bytes.into()), Duration::ZERO)?;
    Ok(answer.result)
}

fn share(rig: &Rig, memory: &SimMemory, flags: u32) -> (i32, u64) {
    let map = rig.sim.map_memory(memory.fd(), true).unwrap();
    let base = map.base() as u64;
    (shares(rig, (base, LENGTH as u64), flags).unwrap(), base)
}

fn is_shared(descriptor: &ublksrv_io_desc) -> bool {
    descriptor.op_flags & UBLK_IO_F_SHMEM_ZC != 0
}

#[test]
fn a_request_on_registered_memory_names_its_place_and_is_not_copied() {
    let mut rig = Rig::live(SHARED, 2);
    let memory = rig.sim.memory(LENGTH);
    let (index, base) = share(&rig, &memory, 0);
    let client = rig.client();
    client.submit_in(&write(0, &[7; 512]), None, Some((&memory, 1024)));
    let (tag, descriptor) = rig.take_request();
    assert!(is_shared(&descriptor));
    assert_eq!(descriptor.addr, ublk_shmem_zc_addr(u16::try_from(index).unwrap(), 1024));
    assert_eq!(rig.buffers[usize::from(tag)][..512], [0; 512]);
    rig.push(&Sqe { addr: base + 1024, len: 512, ..sqe(OP_WRITE, DISK, 0x10) });
    assert_eq!(rig.results(), [(0x10, 512)]);
    rig.push(&rig.commit(tag, 512));
    client.submit_in(&read(0, 512), None, Some((&memory, 4096)));
    let (tag, descriptor) = rig.take_request();
    assert!(is_shared(&descriptor));
    rig.push(&Sqe { addr: base + 4096, len: 512, ..sqe(OP_READ, DISK, 0x10) });
    assert_eq!(rig.results(), [(0x10, 512)]);
    rig.push(&rig.commit(tag, 512));
    rig.turn();
    assert_eq!(client.take()[1].data, [7; 512]);
    assert_eq!(rig.rules(), []);
}

#[test]
fn other_requests_go_the_device_s_usual_way() {
    let mut rig = Rig::live(SHARED, 4);
    let (memory, other) = (rig.sim.memory(LENGTH), rig.sim.memory(LENGTH));
    let (index, _) = share(&rig, &memory, UBLK_SHMEM_BUF_READ_ONLY);
    let client = rig.client();
    for (op, place, shared) in [
        (write(0, &[1; 512]), Some((&memory, 0)), true),
        (read(0, 512), Some((&memory, 0)), false),
        (write(0, &[2; 512]), Some((&other, 0)), false),
        (write(0, &[3; 512]), None, false),
    ] {
        client.submit_in(&op, None, place);
        let (_, descriptor) = rig.take_request();
        assert_eq!(is_shared(&descriptor), shared, "{op:?}");
    }
    let unregister = ublksrv_ctrl_cmd { data: [u64::try_from(index).unwrap()], ..command(rig.id) };
    let control = |command| rig.sim.control(UBLK_U_CMD_UNREG_BUF, command, None, Duration::ZERO);
    assert_eq!(errno(control(unregister)), libc::ETIMEDOUT, "not while requests are under way");
}

#[test]
fn memory_must_be_whole_pages_and_registered_once_is_unregistered_once() {
    let rig = Rig::live(SHARED, 1);
    let memory = rig.sim.memory(LENGTH);
    let base = rig.sim.map_memory(memory.fd(), true).unwrap().base() as u64;
    for (place, flags) in
        [((base + 512, 4096), 0), ((base, 0), 0), ((base, 512), 0), ((base, 4096), 2)]
    {
        assert_eq!(errno(shares(&rig, place, flags)), libc::EINVAL);
    }
    assert_eq!(errno(shares(&rig, (4096, 4096), 0)), libc::EFAULT);
    assert_eq!(shares(&rig, (base, 4096), 0).unwrap(), 0);
    let control = || rig.sim.control(UBLK_U_CMD_UNREG_BUF, command(rig.id), None, Duration::ZERO);
    assert!(control().is_ok());
    assert_eq!(errno(control()), libc::ENOENT);
    let plain = Rig::live(0, 1);
    assert_eq!(errno(shares(&plain, (base, 4096), 0)), libc::EOPNOTSUPP);
}

#[test]
fn with_get_data_the_place_is_told_before_and_overwritten_after() {
    let mut rig = Rig::live(SHARED | UBLK_F_NEED_GET_DATA, 1);
    let memory = rig.sim.memory(LENGTH);
    let (_, base) = share(&rig, &memory, 0);
    rig.client().submit_in(&write(0, &[7; 512]), None, Some((&memory, 1024)));
    assert_eq!(rig.results(), [(0, UBLK_IO_RES_NEED_GET_DATA)]);
    let addr = rig.buffers[0].as_ptr() as u64;
    assert_eq!(rig.descriptors.read(Tag::new(0)).addr, 1024);
    let cmd = ublksrv_io_cmd { q_id: 0, tag: 0, result: 0, addr };
    rig.push(&ublk_sqe(UBLK_U_IO_NEED_GET_DATA, cmd, 1));
    assert_eq!(rig.results(), [(1, 0)]);
    assert_eq!(rig.descriptors.read(Tag::new(0)).addr, addr);
    assert_eq!(rig.buffers[0][..512], [0; 512], "nothing is copied");
    rig.push(&Sqe { addr: base + 1024, len: 512, ..sqe(OP_WRITE, DISK, 0x10) });
    assert_eq!(rig.results(), [(0x10, 512)]);
    assert_eq!(rig.rules(), []);
}

#[test]
fn memory_is_registered_late_though_nobody_waits_for_it_any_more() {
    let mut rig = Rig::live(SHARED, 2);
    let memory = rig.sim.memory(LENGTH);
    let base = rig.sim.map_memory(memory.fd(), true).unwrap().base() as u64;
    let client = rig.client();
    client.submit(&write(0, &[7; 512]), None);
    let (tag, _) = rig.take_request();
    assert_eq!(errno(shares(&rig, (base, LENGTH as u64), 0)), libc::ETIMEDOUT, "a frozen queue");
    let (sim, id) = (rig.sim.clone(), rig.id);
    let unregister =
        || sim.control(UBLK_U_CMD_UNREG_BUF, command(id), None, Duration::ZERO).map(drop);
    assert_eq!(errno(unregister()), libc::ETIMEDOUT, "the mutex");
    client.submit_in(&write(0, &[8; 512]), None, Some((&memory, 0)));
    rig.push(&rig.commit(tag, 512));
    let (tag, descriptor) = rig.take_request();
    assert!(is_shared(&descriptor), "registered since");
    rig.push(&rig.commit(tag, 512));
    rig.turn();
    assert_eq!(errno(unregister()), libc::ENOENT, "taken back since");
}
