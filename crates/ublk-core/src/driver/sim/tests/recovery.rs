//! A device between two servers: traps 45 to 51, 59, and who may do what.

use ublk_sys::{
    UBLK_F_QUIESCE as QUIESCE, UBLK_F_SUPPORT_ZERO_COPY as ZC, UBLK_F_UNPRIVILEGED_DEV,
    UBLK_F_USER_RECOVERY as RECOVERY, UBLK_F_USER_RECOVERY_FAIL_IO as FAIL_IO,
    UBLK_F_USER_RECOVERY_REISSUE as REISSUE, UBLK_S_DEV_FAIL_IO, UBLK_S_DEV_LIVE,
    UBLK_S_DEV_QUIESCED,
};

use crate::control::Control;
use crate::driver::sim::tests::rig::*;
use crate::driver::sim::*;
use crate::driver::{Driver, Ring, RingSize};
use crate::error::Code;

const LIMIT: Duration = Duration::from_millis(1);

fn state(sim: &Sim) -> u16 {
    Control::new(sim.clone()).info(0).unwrap().state
}

/// Ends the server as a kill would.
fn kill(rig: Rig) -> Sim {
    let Rig { descriptors, ring, char_device, sim, .. } = rig;
    drop((descriptors, char_device, ring));
    sim
}

/// A new server for the device, up to its fetches.
fn serve_again(sim: &Sim, depth: u16) -> Rig {
    Control::new(sim.clone()).start_recovery(0).unwrap();
    let char_device = sim.open_char(0).unwrap();
    let descriptors = sim.map_descriptors(&char_device, 0, depth, 24).unwrap();
    let mut ring =
        sim.ring(RingSize { submissions: 64, completions: 128, tells_of_work: false }).unwrap();
    let disk = sim.file(SIZE as usize);
    register_files(&mut ring, &[char_device.fd(), disk.fd()]);
    ring.register_buffers_sparse(u32::from(depth)).unwrap();
    let buffers = (0..depth).map(|_| vec![0; MAX_IO as usize].into_boxed_slice()).collect();
    let sim = sim.clone();
    let mut rig = Rig { sim, id: 0, depth, char_device, descriptors, ring, disk, buffers };
    for tag in 0..depth {
        rig.push(&rig.fetch(tag));
    }
    rig.turn();
    rig
}

fn recover(sim: &Sim, depth: u16) -> Rig {
    let rig = serve_again(sim, depth);
    Control::new(sim.clone()).end_recovery(0, std::process::id(), LIMIT).unwrap();
    rig
}

#[test]
fn plain_recovery_fails_what_the_dead_server_had_and_keeps_the_rest() {
    let mut rig = Rig::live(ZC | RECOVERY, 2);
    let client = rig.client();
    let taken = client.submit(&write(0, &[1; 512]), None);
    rig.take_request();
    let sim = kill(rig);
    assert_eq!(state(&sim), UBLK_S_DEV_QUIESCED);
    client.submit(&write(0, &[2; 512]), None);
    let done = client.take();
    assert_eq!((done.len(), done[0].ticket, done[0].result), (1, taken, Err(libc::EIO)));
    let mut rig = recover(&sim, 2);
    assert_eq!(state(&sim), UBLK_S_DEV_LIVE);
    let (tag, _) = rig.take_request();
    rig.push(&rig.commit(tag, 512));
    rig.turn();
    assert_eq!(client.take()[0].result, Ok(()));
    assert_eq!(rig.rules(), []);
}

#[test]
fn reissue_gives_the_next_server_what_the_dead_one_had() {
    let mut rig = Rig::live(ZC | RECOVERY | REISSUE, 2);
    let client = rig.client();
    client.submit(&write(512, &[1; 512]), None);
    let (_, before) = rig.take_request();
    let sim = kill(rig);
    assert_eq!(client.take(), []);
    let mut rig = recover(&sim, 2);
    let (tag, again) = rig.take_request();
    assert_eq!((before.op_flags, before.start_sector), (again.op_flags, again.start_sector));
    rig.push(&rig.commit(tag, 512));
    rig.turn();
    assert_eq!(client.take()[0].result, Ok(()));
}

#[test]
fn fail_io_fails_everything_until_there_is_a_server() {
    let mut rig = Rig::live(ZC | RECOVERY | FAIL_IO, 1);
    let client = rig.client();
    client.submit(&write(0, &[1; 512]), None);
    rig.take_request();
    client.submit(&write(0, &[2; 512]), None);
    let sim = kill(rig);
    assert_eq!(state(&sim), UBLK_S_DEV_FAIL_IO);
    assert!(client.take().iter().all(|done| done.result.is_err()));
    client.submit(&read(0, 512), None);
    assert_eq!(client.take()[0].result, Err(libc::EREMOTEIO));
    let mut rig = recover(&sim, 1);
    client.submit(&read(0, 512), None);
    rig.take_request();
}

#[test]
fn trap_45_recovery_waits_until_the_old_server_has_let_go() {
    let rig = Rig::live(ZC | RECOVERY, 1);
    let control = Control::new(rig.sim.clone());
    assert_eq!(control.start_recovery(0).unwrap_err().code, Code::Busy);
    let Rig { descriptors, ring, char_device, .. } = rig;
    drop((ring, char_device));
    assert_eq!(control.start_recovery(0).unwrap_err().code, Code::Busy, "the mapping");
    drop(descriptors);
    control.start_recovery(0).unwrap();
    let without = Rig::live(ZC, 1);
    let error = Control::new(without.sim.clone()).start_recovery(0).unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
}

#[test]
fn a_server_that_dies_in_the_middle_of_a_recovery_leaves_it_to_the_next() {
    let mut rig = Rig::live(ZC | RECOVERY | REISSUE, 2);
    let client = rig.client();
    client.submit(&write(0, &[1; 512]), None);
    rig.take_request();
    let sim = kill(rig);
    let control = Control::new(sim.clone());
    control.start_recovery(0).unwrap();
    let ended = control.end_recovery(0, std::process::id(), LIMIT);
    assert_eq!(ended.unwrap_err().code, Code::Timeout, "nobody fetches");
    let sim = kill(serve_again(&sim, 2));
    assert_eq!(state(&sim), UBLK_S_DEV_QUIESCED);
    let mut rig = recover(&sim, 2);
    let (tag, _) = rig.take_request();
    rig.push(&rig.commit(tag, 512));
    rig.turn();
    assert_eq!(client.take()[0].result, Ok(()));
}

#[test]
fn trap_49_a_quiesced_server_finishes_what_it_has_and_leaves() {
    let mut rig = Rig::live(ZC | RECOVERY | QUIESCE, 2);
    let client = rig.client();
    client.submit(&write(0, &[1; 512]), None);
    let (tag, _) = rig.take_request();
    Control::new(rig.sim.clone()).quiesce(0, LIMIT).unwrap();
    client.submit(&write(512, &[2; 512]), None);
    let aborted = rig.results();
    assert_eq!(aborted, [(u64::from(1 - tag), ublk_sys::UBLK_IO_RES_ABORT)]);
    rig.push(&rig.commit(tag, 512));
    assert_eq!(rig.turn(), [], "the tag is fetched again, and nobody aborts that");
    assert_eq!(client.take()[0].result, Ok(()));
    assert_eq!(state(&rig.sim), UBLK_S_DEV_LIVE, "until it has left");
    let sim = kill(rig);
    assert_eq!(state(&sim), UBLK_S_DEV_QUIESCED);
    Control::new(sim.clone()).quiesce(0, LIMIT).unwrap();
    let mut rig = recover(&sim, 2);
    let (tag, descriptor) = rig.take_request();
    assert_eq!(descriptor.start_sector, 1);
    rig.push(&rig.commit(tag, 512));
    rig.turn();
    assert_eq!(client.take()[0].result, Ok(()));
}

#[test]
fn quiesce_needs_its_feature() {
    let rig = Rig::live(ZC | RECOVERY, 1);
    let error = Control::new(rig.sim.clone()).quiesce(0, LIMIT).unwrap_err();
    assert_eq!(error.code, Code::Unsupported);
    assert_eq!(errno(add(&rig.sim, u32::MAX, QUIESCE, 1)), libc::EINVAL);
}

#[test]
fn a_quiesced_device_that_is_stopped_fails_what_was_waiting() {
    let mut rig = Rig::live(ZC | RECOVERY | REISSUE, 1);
    let client = rig.client();
    for _ in 0..3 {
        client.submit(&write(0, &[1; 512]), None);
    }
    rig.take_request();
    let sim = kill(rig);
    assert_eq!(client.take(), []);
    Control::new(sim.clone()).stop(0, LIMIT).unwrap();
    let results: Vec<_> = client.take().iter().map(|done| done.result).collect();
    assert_eq!(results, [Err(libc::EIO); 3]);
}

#[test]
fn who_is_not_root_has_devices_of_a_lesser_kind_and_names_them_by_their_path() {
    let kernel = Kernel { root: false, ..Kernel::linux_7_3() };
    let sim = Sim::new(SimConfig { kernel, ..SimConfig::stepping(1) });
    assert_eq!(errno(add(&sim, 7, 0, 1)), libc::EPERM);
    assert_eq!(errno(add(&sim, 7, UBLK_F_UNPRIVILEGED_DEV | ZC, 1)), libc::EINVAL);
    let info = add(&sim, 7, UBLK_F_UNPRIVILEGED_DEV | RECOVERY, 1).unwrap();
    assert_eq!(info.flags & (RECOVERY | UBLK_F_UNPRIVILEGED_DEV), UBLK_F_UNPRIVILEGED_DEV);
    assert_eq!(errno(set_params(&sim, 7, &params())), libc::EINVAL, "no path");
    let control = Control::new(sim);
    control.set_params(7, &params()).unwrap();
    assert_eq!(control.params(7).unwrap().basic, params().basic);
    assert_eq!(control.info(7).unwrap().owner_uid, 1000);
    control.queue_affinity(7, 0).unwrap();
    control.delete(7, LIMIT).unwrap();
    assert_eq!(control.info(7).unwrap_err().code, Code::NoDevice);
}

#[test]
fn an_old_kernel_hears_the_bare_numbers() {
    let sim = Sim::new(SimConfig { kernel: Kernel::linux_6_1(), ..SimConfig::stepping(1) });
    let control = Control::new(sim);
    assert_eq!(control.features().unwrap_err().code, Code::Unsupported);
    let wanted = ublk_sys::ublksrv_ctrl_dev_info {
        nr_hw_queues: 1,
        queue_depth: 1,
        max_io_buf_bytes: MAX_IO,
        dev_id: u32::MAX,
        ..Default::default()
    };
    let id = control.add(&wanted).unwrap().dev_id;
    control.set_params(id, &params()).unwrap();
    assert_eq!(control.update_size(id, 8, Duration::ZERO).unwrap_err().code, Code::Unsupported);
    control.delete(id, LIMIT).unwrap();
}

#[test]
fn a_stop_of_a_device_with_recovery_fails_what_waits_once_the_server_has_nothing_left() {
    let mut rig = Rig::live(ZC | RECOVERY | REISSUE | QUIESCE, 2);
    let client = rig.client();
    client.submit(&read(0, 512), None);
    let (tag, _) = rig.take_request();
    Control::new(rig.sim.clone()).quiesce(0, LIMIT).unwrap();
    for _ in 0..3 {
        client.submit(&read(0, 512), None);
    }
    rig.sim.begin_stop(0).unwrap();
    assert_eq!(client.take(), []);
    rig.push(&rig.commit(tag, 512));
    rig.turn();
    let done = client.take();
    assert_eq!(done.len(), 4);
    assert_eq!(done.iter().filter(|one| one.result == Err(libc::EIO)).count(), 3, "{done:?}");
}

#[test]
fn trap_49_a_queue_with_a_tag_that_no_request_gets_can_always_be_taken_away() {
    for (requests, taken) in [("8", Err(Code::Busy)), ("7", Ok(()))] {
        let mut rig = Rig::live(ZC | RECOVERY | QUIESCE, 8);
        rig.sim.set_queue(0, "nr_requests", requests).unwrap();
        let client = rig.client();
        for _ in 0..16 {
            client.submit(&read(0, 512), None);
        }
        let control = Control::new(rig.sim.clone());
        let begun = rig.turn();
        control.quiesce(0, LIMIT).unwrap();
        for one in begun {
            rig.push(&rig.commit(u16::try_from(one.user_data).unwrap(), 512));
        }
        rig.turn();
        let again = control.quiesce(0, LIMIT).map_err(|error| error.code);
        assert_eq!(again, taken);
    }
}

#[test]
fn nr_requests_is_four_at_least_and_the_depth_at_most() {
    let rig = Rig::live(ZC, 8);
    rig.sim.set_queue(0, "nr_requests", "1").unwrap();
    assert_eq!(rig.sim.queue_setting(0, "nr_requests").as_deref(), Some("4"));
    assert!(rig.sim.set_queue(0, "nr_requests", "9").is_err());
}
