//! The life of a device: traps 23, 24, 30, 31, 33, 57, 58, 65.

use ublk_sys::{
    UBLK_F_AUTO_BUF_REG, UBLK_F_SUPPORT_ZERO_COPY as ZC, UBLK_F_UNPRIVILEGED_DEV,
    UBLK_F_USER_RECOVERY, UBLK_F_USER_RECOVERY_REISSUE, UBLK_IO_RES_ABORT, UBLK_S_DEV_DEAD,
    UBLK_S_DEV_LIVE, UBLK_U_CMD_DEL_DEV, UBLK_U_CMD_DEL_DEV_ASYNC, UBLK_U_CMD_GET_DEV_INFO,
    UBLK_U_CMD_GET_FEATURES, UBLK_U_CMD_GET_PARAMS, UBLK_U_CMD_GET_QUEUE_AFFINITY,
    UBLK_U_CMD_START_DEV, UBLK_U_CMD_START_USER_RECOVERY, UBLK_U_CMD_STOP_DEV,
    UBLK_U_CMD_TRY_STOP_DEV, UBLK_U_CMD_UPDATE_SIZE, ublk_params, ublksrv_ctrl_cmd,
};

use crate::driver::sim::tests::rig::*;
use crate::driver::sim::ublk_drv::params::{parse_info, parse_params};
use crate::driver::sim::*;
use crate::driver::{Driver, Ring, RingSize};

fn send(sim: &Sim, operation: u32, id: u32) -> io::Result<i32> {
    sim.control(operation, command(id), None, Duration::ZERO).map(|answer| answer.result)
}

fn state(sim: &Sim, id: u32) -> u16 {
    let buffer = Some(vec![0; 64].into_boxed_slice());
    let answer = sim.control(UBLK_U_CMD_GET_DEV_INFO, command(id), buffer, Duration::ZERO);
    parse_info(&answer.unwrap().buffer.unwrap()).state
}

fn get_params(sim: &Sim, id: u32) -> io::Result<ublk_params> {
    let buffer = Some(
        crate::driver::sim::ublk_drv::params::params_bytes(&params()).to_vec().into_boxed_slice(),
    );
    let answer = sim.control(UBLK_U_CMD_GET_PARAMS, command(id), buffer, Duration::ZERO)?;
    Ok(parse_params(&answer.buffer.unwrap()))
}

#[test]
fn features_need_eight_bytes() {
    let sim = Sim::new(SimConfig { kernel: Kernel::linux_6_12(), ..SimConfig::stepping(1) });
    let ask = |length: usize| {
        let buffer = Some(vec![0; length].into_boxed_slice());
        sim.control(UBLK_U_CMD_GET_FEATURES, command(u32::MAX), buffer, Duration::ZERO)
    };
    assert_eq!(errno(ask(4)), libc::EINVAL);
    let answer = ask(8).unwrap().buffer.unwrap();
    assert_eq!(u64::from_ne_bytes(answer[..8].try_into().unwrap()) & ZC, 0);
}

#[test]
fn trap_57_what_is_asked_for_is_not_what_comes() {
    let sim = Sim::new(SimConfig { kernel: Kernel::linux_6_12(), ..SimConfig::stepping(1) });
    let info = add(&sim, 7, ZC | UBLK_F_AUTO_BUF_REG | UBLK_F_UNPRIVILEGED_DEV, 128).unwrap();
    assert_eq!(info.dev_id, 7);
    assert_eq!(info.flags, Kernel::linux_6_12().always);
    assert_eq!(info.state, UBLK_S_DEV_DEAD);
    assert_eq!((info.max_io_buf_bytes, info.ublksrv_pid), (MAX_IO, -1));
}

#[test]
fn devices_that_cannot_be_are_refused() {
    let sim = Sim::new(SimConfig::stepping(1));
    assert_eq!(errno(add(&sim, u32::MAX, 0, 0)), libc::EINVAL);
    assert_eq!(errno(add(&sim, u32::MAX, 0, 4097)), libc::EINVAL);
    assert_eq!(errno(add(&sim, 1 << 20, 0, 1)), libc::EINVAL);
    assert_eq!(errno(add(&sim, u32::MAX, UBLK_F_USER_RECOVERY_REISSUE, 1)), libc::EINVAL);
    assert_eq!(add(&sim, 3, 0, 1).unwrap().dev_id, 3);
    assert_eq!(errno(add(&sim, 3, 0, 1)), libc::EEXIST);
    assert_eq!(add(&sim, u32::MAX, 0, 1).unwrap().dev_id, 0);
    assert_eq!(errno(send(&sim, UBLK_U_CMD_STOP_DEV, 9)), libc::ENODEV);
}

#[test]
fn trap_58_parameters_are_validated_and_a_refusal_keeps_none() {
    let sim = Sim::new(SimConfig::stepping(1));
    let id = add(&sim, u32::MAX, 0, 1).unwrap().dev_id;
    type Change = fn(&mut ublk_params);
    let changes: [Change; 8] = [
        |p| p.types = 0,
        |p| p.basic.logical_bs_shift = 8,
        |p| p.basic.logical_bs_shift = 13,
        |p| p.basic.physical_bs_shift = 8,
        |p| p.basic.max_sectors = (MAX_IO >> 9) + 1,
        |p| p.basic.max_sectors = 7,
        |p| p.discard.max_discard_segments = 2,
        |p| p.discard.discard_granularity = 0,
    ];
    for (at, change) in changes.iter().enumerate() {
        let mut wrong = params();
        change(&mut wrong);
        assert_eq!(errno(set_params(&sim, id, &wrong)), libc::EINVAL, "change {at}");
    }
    assert_eq!(errno(start(&sim, id)), libc::EINVAL, "none are set");
    set_params(&sim, id, &params()).unwrap();
    let got = get_params(&sim, id).unwrap();
    assert_eq!(got.basic, params().basic);
    assert_eq!((got.types & 4, got.devt.char_minor), (4, id));
}

#[test]
fn every_cpu_feeds_one_queue() {
    let sim = Sim::new(SimConfig::stepping(1));
    let id = add(&sim, u32::MAX, 0, 1).unwrap().dev_id;
    let ask = |queue: u64, length: usize| {
        let command = ublksrv_ctrl_cmd { data: [queue], ..command(id) };
        let buffer = Some(vec![0; length].into_boxed_slice());
        sim.control(UBLK_U_CMD_GET_QUEUE_AFFINITY, command, buffer, Duration::ZERO)
    };
    assert_eq!(ask(0, 8).unwrap().buffer.unwrap()[0], 0b1111);
    assert_eq!(errno(ask(1, 8)), libc::EINVAL);
    assert_eq!(errno(ask(0, 7)), libc::EINVAL);
}

#[test]
fn trap_23_the_start_waits_for_every_fetch() {
    let mut rig = Rig::added(SimConfig::stepping(1), ZC, 2);
    rig.push(&rig.fetch(0));
    rig.turn();
    assert_eq!(errno(start(&rig.sim, rig.id)), libc::ETIMEDOUT);
    rig.push(&rig.fetch(0));
    assert_eq!(rig.results(), [(0, -libc::EINVAL)], "each tag once");
    rig.push(&rig.fetch(1));
    rig.turn();
    start(&rig.sim, rig.id).unwrap();
    assert_eq!(state(&rig.sim, rig.id), UBLK_S_DEV_LIVE);
    assert_eq!(errno(start(&rig.sim, rig.id)), libc::EEXIST);
    assert_eq!(errno(set_params(&rig.sim, rig.id, &params())), libc::EACCES);
    rig.push(&rig.fetch(0));
    assert_eq!(rig.results(), [(0, -libc::EBUSY)], "not any more");
}

/// Answers the one request that there is: the kernel's read for partitions.
fn answer_the_scan(rig: &mut Rig) {
    let (tag, read) = rig.take_request();
    assert_eq!((read.op_flags & 0xff, read.start_sector, read.nr_sectors), (0, 0, 8));
    rig.push(&rig.commit(tag, 4096));
    rig.turn();
}

#[test]
fn the_kernel_reads_a_disk_that_has_started() {
    let config = SimConfig { partition_scan: true, ..SimConfig::stepping(1) };
    let mut rig = Rig::added(config, 0, 1);
    rig.push(&rig.fetch(0));
    rig.turn();
    start(&rig.sim, rig.id).unwrap();
    answer_the_scan(&mut rig);
    assert_eq!(rig.client().take(), [], "no client has asked");
}

#[test]
fn trap_65_an_old_kernel_reads_while_it_starts_and_lets_nobody_stop_the_device() {
    let kernel = Kernel::linux_6_12();
    let config = SimConfig { kernel, partition_scan: true, ..SimConfig::stepping(1) };
    let mut rig = Rig::added(config, 0, 1);
    rig.push(&rig.fetch(0));
    rig.turn();
    assert_eq!(errno(start(&rig.sim, rig.id)), libc::ETIMEDOUT);
    assert_eq!(state(&rig.sim, rig.id), UBLK_S_DEV_LIVE);
    assert_eq!(errno(start(&rig.sim, rig.id)), libc::ETIMEDOUT, "another start waits, too");
    assert_eq!(errno(send(&rig.sim, UBLK_U_CMD_STOP_DEV, rig.id)), libc::ETIMEDOUT);
    assert_eq!(state(&rig.sim, rig.id), UBLK_S_DEV_LIVE, "the start has the mutex");
    answer_the_scan(&mut rig);
    assert_eq!(state(&rig.sim, rig.id), UBLK_S_DEV_DEAD, "the stop was late");
}

#[test]
fn trap_65_a_read_that_is_kept_for_the_next_server_keeps_the_start_waiting_for_ever() {
    let kernel = Kernel::linux_6_12();
    for (kind, ends) in [(0, true), (UBLK_F_USER_RECOVERY_REISSUE, false)] {
        let config = SimConfig { kernel, partition_scan: true, ..SimConfig::stepping(1) };
        let mut rig = Rig::added(config, UBLK_F_USER_RECOVERY | kind, 1);
        rig.push(&rig.fetch(0));
        rig.turn();
        assert_eq!(errno(start(&rig.sim, rig.id)), libc::ETIMEDOUT);
        rig.take_request();
        let (sim, id) = (rig.sim.clone(), rig.id);
        drop(rig);
        let recovery = send(&sim, UBLK_U_CMD_START_USER_RECOVERY, id);
        assert_eq!(recovery.is_ok(), ends, "{recovery:?}");
        let deleted = send(&sim, UBLK_U_CMD_DEL_DEV, id);
        assert_eq!(deleted.is_ok(), ends, "{deleted:?}");
    }
}

#[test]
fn trap_24_the_server_is_the_process_that_opened_the_device() {
    let mut rig = Rig::added(SimConfig::stepping(1), ZC, 1);
    assert_eq!(errno(rig.sim.open_char(rig.id)), libc::EBUSY);
    rig.push(&rig.fetch(0));
    rig.turn();
    let wrong = ublksrv_ctrl_cmd { data: [1], ..command(rig.id) };
    let answer = rig.sim.control(UBLK_U_CMD_START_DEV, wrong, None, Duration::ZERO);
    assert_eq!(errno(answer), libc::EINVAL);
}

#[test]
fn a_stop_serves_what_is_in_flight_and_then_aborts_the_fetches() {
    let mut rig = Rig::live(ZC, 2);
    let client = rig.client();
    client.submit(&write(0, &[1; 512]), None);
    let (tag, _) = rig.take_request();
    assert_eq!(errno(send(&rig.sim, UBLK_U_CMD_TRY_STOP_DEV, rig.id)), libc::EBUSY);
    assert_eq!(errno(send(&rig.sim, UBLK_U_CMD_STOP_DEV, rig.id)), libc::ETIMEDOUT);
    client.submit(&write(0, &[1; 512]), None);
    assert_eq!(client.take()[0].result, Err(libc::EIO), "the disk is dying");
    assert_eq!(rig.turn(), []);
    rig.push(&rig.commit(tag, 512));
    assert_eq!(rig.results(), [(0, UBLK_IO_RES_ABORT), (1, UBLK_IO_RES_ABORT)]);
    assert_eq!(client.take()[0].result, Ok(()));
    assert_eq!(state(&rig.sim, rig.id), UBLK_S_DEV_DEAD);
    rig.push(&rig.fetch(0));
    assert_eq!(rig.results(), [(0, UBLK_IO_RES_ABORT)], "stopping");
    assert_eq!(rig.rules(), []);
}

#[test]
fn trap_33_a_stopped_device_starts_again_after_its_server_has_closed_it() {
    let mut rig = Rig::live(ZC, 1);
    send(&rig.sim, UBLK_U_CMD_STOP_DEV, rig.id).unwrap();
    rig.turn();
    assert_eq!(errno(start(&rig.sim, rig.id)), libc::EBUSY);
    let Rig { descriptors, ring, char_device, sim, id, .. } = rig;
    drop((descriptors, ring, char_device));
    let again = sim.open_char(id).unwrap();
    let mut ring =
        sim.ring(RingSize { submissions: 4, completions: 8, tells_of_work: false }).unwrap();
    register_files(&mut ring, &[again.fd()]);
    assert_eq!(errno(start(&sim, id)), libc::ETIMEDOUT, "waits for fetches as at first");
}

#[test]
fn trap_30_a_device_is_deleted_when_its_last_user_is_gone() {
    let rig = Rig::live(ZC, 1);
    let Rig { descriptors, mut ring, char_device, sim, id, .. } = rig;
    assert_eq!(errno(send(&sim, UBLK_U_CMD_DEL_DEV, id)), libc::ETIMEDOUT);
    ring.submit_and_wait(1).unwrap();
    drop(char_device);
    assert_eq!(errno(send(&sim, UBLK_U_CMD_DEL_DEV, id)), libc::ETIMEDOUT, "the fixed file");
    ring.empty_files(0..1).unwrap();
    assert_eq!(errno(send(&sim, UBLK_U_CMD_DEL_DEV, id)), libc::ETIMEDOUT, "the mapping");
    drop(descriptors);
    assert_eq!(errno(send(&sim, UBLK_U_CMD_GET_DEV_INFO, id)), libc::ENODEV);
    assert_eq!(add(&sim, id, 0, 1).unwrap().dev_id, id, "the number is free");
}

#[test]
fn a_server_that_dies_fails_its_requests_and_stops_its_device() {
    let mut rig = Rig::live(ZC, 2);
    let client = rig.client();
    client.submit(&read(0, 512), None);
    let (tag, _) = rig.take_request();
    rig.push(&register(tag, 0, 1));
    rig.turn();
    for _ in 0..3 {
        client.submit(&read(0, 512), None);
    }
    let Rig { descriptors, ring, char_device, sim, id, .. } = rig;
    drop((char_device, descriptors));
    assert_eq!(state(&sim, id), UBLK_S_DEV_LIVE, "the ring holds it");
    drop(ring);
    assert_eq!(state(&sim, id), UBLK_S_DEV_DEAD);
    let results: Vec<_> = client.take().iter().map(|done| done.result).collect();
    assert_eq!(results, [Err(libc::EIO); 4]);
    drop(client);
    send(&sim, UBLK_U_CMD_DEL_DEV, id).unwrap();
}

#[test]
fn without_a_cache_there_are_no_flushes_and_no_fua() {
    let mut rig = Rig::added(SimConfig::stepping(1), ZC, 1);
    let mut plain = params();
    plain.basic.attrs = 0;
    set_params(&rig.sim, rig.id, &plain).unwrap();
    rig.push(&rig.fetch(0));
    rig.turn();
    start(&rig.sim, rig.id).unwrap();
    let client = rig.client();
    client.submit(&ClientOp::Flush, None);
    assert_eq!(client.take()[0].result, Ok(()));
    client.submit(&ClientOp::Write { offset: 0, data: vec![0; 512], fua: true }, None);
    let (_, descriptor) = rig.take_request();
    assert_eq!(descriptor.op_flags, 1);
}

#[test]
fn who_needs_a_device_s_mutex_waits_for_its_stop_and_who_needs_none_does_not() {
    let mut rig = Rig::live(ZC, 1);
    let client = rig.client();
    client.submit(&read(0, 512), None);
    let (tag, _) = rig.take_request();
    assert_eq!(errno(send(&rig.sim, UBLK_U_CMD_STOP_DEV, rig.id)), libc::ETIMEDOUT);
    assert_eq!(errno(get_params(&rig.sim, rig.id)), libc::ETIMEDOUT);
    for operation in [UBLK_U_CMD_STOP_DEV, UBLK_U_CMD_UPDATE_SIZE, UBLK_U_CMD_START_USER_RECOVERY] {
        assert_eq!(errno(send(&rig.sim, operation, rig.id)), libc::ETIMEDOUT);
    }
    assert_eq!(state(&rig.sim, rig.id), UBLK_S_DEV_LIVE, "GET_DEV_INFO takes none");
    assert_eq!(add(&rig.sim, u32::MAX, 0, 1).unwrap().dev_id, rig.id + 1, "another device's");
    rig.push(&rig.commit(tag, 512));
    rig.turn();
    get_params(&rig.sim, rig.id).unwrap();
}

#[test]
fn who_adds_or_deletes_waits_for_a_device_that_is_being_deleted() {
    let mut rig = Rig::live(ZC, 1);
    rig.client().submit(&read(0, 512), None);
    let (tag, _) = rig.take_request();
    let other = add(&rig.sim, 9, 0, 1).unwrap().dev_id;
    assert_eq!(errno(send(&rig.sim, UBLK_U_CMD_DEL_DEV_ASYNC, rig.id)), libc::ETIMEDOUT);
    assert_eq!(errno(add(&rig.sim, 5, 0, 1)), libc::ETIMEDOUT);
    assert_eq!(errno(send(&rig.sim, UBLK_U_CMD_DEL_DEV, other)), libc::ETIMEDOUT);
    assert_eq!(rig.sim.devices(), [rig.id, other]);
    rig.push(&rig.commit(tag, 512));
    rig.turn();
    assert_eq!(rig.sim.devices(), [5], "what timed out has been done all the same");
}

#[test]
fn a_start_whose_sender_gave_up_is_interrupted_while_it_waits_for_fetches() {
    let mut rig = Rig::added(SimConfig::stepping(1), ZC, 1);
    assert_eq!(errno(start(&rig.sim, rig.id)), libc::ETIMEDOUT);
    rig.push(&rig.fetch(0));
    rig.turn();
    assert_eq!(state(&rig.sim, rig.id), UBLK_S_DEV_DEAD);
    start(&rig.sim, rig.id).unwrap();
}

#[test]
fn a_late_command_means_the_device_that_had_the_number_when_it_began() {
    let mut rig = Rig::live(ZC, 1);
    rig.client().submit(&read(0, 512), None);
    let (tag, _) = rig.take_request();
    let id = rig.id;
    assert_eq!(errno(send(&rig.sim, UBLK_U_CMD_DEL_DEV_ASYNC, id)), libc::ETIMEDOUT);
    let size = ublksrv_ctrl_cmd { data: [1], ..command(id) };
    let resized = rig.sim.control(UBLK_U_CMD_UPDATE_SIZE, size, None, Duration::ZERO);
    assert_eq!(errno(resized), libc::ETIMEDOUT);
    let first = rig.sim.device_identity(id);
    assert!(first.is_some());
    rig.push(&rig.commit(tag, 512));
    rig.turn();
    assert_eq!(rig.sim.device_identity(id), None, "deleted, though its server still has it open");
    let Rig { descriptors, ring, char_device, sim, .. } = rig;
    drop((descriptors, ring, char_device));
    assert_eq!(add(&sim, id, 0, 1).unwrap().dev_id, id, "the number is handed out at once");
    assert_ne!(sim.device_identity(id), first);
    set_params(&sim, id, &params()).unwrap();
    let got = get_params(&sim, id).unwrap();
    assert_eq!(got.basic.dev_sectors, params().basic.dev_sectors);
}
