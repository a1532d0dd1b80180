//! Real threads: who may do what, and sleeping.

use std::thread;

use ublk_sys::{UBLK_F_SUPPORT_ZERO_COPY as ZC, UBLK_IO_RES_ABORT, UBLK_U_CMD_STOP_DEV};

use crate::driver::sim::tests::rig::*;
use crate::driver::sim::*;
use crate::driver::{Driver, Ring, RingSize};
use crate::tag::Tag;

#[test]
fn only_the_thread_that_fetched_may_commit() {
    let mut rig = Rig::live(ZC, 1);
    rig.client().submit(&write(0, &[1; 512]), None);
    let (tag, _) = rig.take_request();
    let commit = rig.commit(tag, 512);
    thread::scope(|scope| {
        let sim = rig.sim.clone();
        let fd = rig.char_device.fd();
        let other = scope.spawn(move || {
            let mut ring = sim
                .ring(RingSize { submissions: 4, completions: 8, tells_of_work: false })
                .unwrap();
            register_files(&mut ring, &[fd]);
            // SAFETY: the same 64 bytes under another name; they point to nothing.
            unsafe { ring.push(&std::mem::transmute_copy(&commit)) };
            ring.submit_and_wait(1).unwrap();
            ring.pop().unwrap().result
        });
        assert_eq!(other.join().unwrap(), -libc::EINVAL);
    });
    assert_eq!(rig.rules(), [Rule::Commit]);
}

#[test]
fn a_ring_serves_the_thread_that_made_it() {
    let Rig { mut ring, sim, .. } = Rig::live(ZC, 1);
    thread::scope(|scope| {
        let entered = scope.spawn(move || ring.submit().unwrap_err().raw_os_error());
        assert_eq!(entered.join().unwrap(), Some(libc::EEXIST));
    });
    assert_eq!(sim.violations()[0].rule, Rule::Thread);
}

/// Serves until the device stops, each write answered at once.
fn serve(sim: &Sim, ready: &std::sync::mpsc::Sender<u32>) -> usize {
    let config_of_sim = sim.clone();
    let mut rig = Rig::on(config_of_sim, ZC, 4);
    for tag in 0..rig.depth {
        rig.push(&rig.fetch(tag));
    }
    rig.ring.submit().unwrap();
    ready.send(rig.id).unwrap();
    let mut answered = 0;
    let mut aborted = 0;
    while aborted < rig.depth {
        rig.ring.submit_and_wait(1).unwrap();
        while let Some(done) = rig.ring.pop() {
            if done.result == UBLK_IO_RES_ABORT {
                aborted += 1;
                continue;
            }
            let tag = u16::try_from(done.user_data).unwrap();
            let length = rig.descriptors.read(Tag::new(tag)).nr_sectors << 9;
            rig.push(&rig.commit(tag, i32::try_from(length).unwrap()));
            answered += 1;
        }
    }
    answered
}

#[test]
fn a_server_on_a_thread_of_its_own_starts_serves_and_stops() {
    let sim = Sim::new(SimConfig::blocking(1));
    let (ready, id) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        let server = scope.spawn(|| serve(&sim, &ready));
        let id = id.recv().unwrap();
        start(&sim, id).unwrap();
        let client = sim.client(id).unwrap();
        for sector in 0..20 {
            assert_eq!(client.run(&write(sector * 512, &[1; 512])).result, Ok(()));
        }
        let limit = Duration::from_secs(5);
        sim.control(UBLK_U_CMD_STOP_DEV, command(id), None, limit).unwrap();
        assert_eq!(server.join().unwrap(), 20);
    });
    assert_eq!(sim.violations().len(), 0);
}
