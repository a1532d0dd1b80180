//! How a reactor takes queues in, and what it has lent when it could not serve one.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use ublk_sys::{UBLK_F_AUTO_BUF_REG, UBLK_F_SUPPORT_ZERO_COPY, ublksrv_ctrl_dev_info};

use super::*;
use crate::bridge::{Bridge, BridgeOptions};
use crate::control::Control;
use crate::driver::RingSize;
use crate::driver::sim::{Sim, SimConfig};
use crate::targets::Op;
use crate::targets::handler::{Handler, HandlerOptions};
use crate::targets::null::Null;

const DEPTH: u16 = 4;
const SIZE: u64 = 1 << 20;

/// Another queue of a new device, and who hears of it.
fn service<T: Target>(sim: &Sim, target: T, rotate_slots: bool) -> (Service<T>, Receiver<bool>) {
    let wanted = ublksrv_ctrl_dev_info {
        nr_hw_queues: 1,
        queue_depth: DEPTH,
        max_io_buf_bytes: 4096,
        dev_id: u32::MAX,
        flags: UBLK_F_AUTO_BUF_REG | UBLK_F_SUPPORT_ZERO_COPY,
        ..Default::default()
    };
    let info = Control::new(sim.clone()).add(&wanted).unwrap();
    let (told, heard) = channel();
    let service = Service {
        char_device: sim.open_char(info.dev_id).unwrap(),
        zeros: sim.open_zeros().unwrap(),
        config: QueueConfig {
            spin: Duration::ZERO,
            queue: 0,
            depth: DEPTH,
            share: Share::WHOLE,
            transfer: Transfer::Auto,
            exchange: ExchangeMode::PerIo,
            max_io_bytes: 4096,
            descriptor_size: usize::from(info.io_desc_size),
            features: info.flags,
            rotate_slots,
            links: true,
        },
        part: Part::Whole,
        target: Arc::new(target),
        throttle: Arc::default(),
        shared: None,
        counters: Arc::default(),
        listener: Listener::new(move |news| {
            let _unheard = told.send(matches!(news, News::Ready));
        }),
    };
    (service, heard)
}

/// Whether the queue gets served.
fn is_served<D: Driver, T: Target>(
    reactor: &mut Reactor<D, T>,
    (service, heard): (Service<T>, Receiver<bool>),
) -> bool {
    reactor.serve(service).unwrap();
    heard.try_recv().unwrap()
}

fn capacity(files: u32, slots: u16) -> Capacity {
    let ring = RingSize { submissions: 64, completions: 128, tells_of_work: false };
    Capacity { ring, files, slots, spin: Duration::ZERO }
}

fn null() -> Null {
    Null::new(SIZE)
}

fn handler() -> Handler {
    let time = Duration::from_secs(1);
    let options = BridgeOptions { queues: 1, depth: DEPTH, max_pieces: 1, timeout: time };
    Handler::new(HandlerOptions {
        size: SIZE,
        logical_block: None,
        ops: vec![Op::Read],
        fua: None,
        read_only: false,
        zones: None,
        backends: Vec::new(),
        bridge: Arc::new(Bridge::unwatched(&options).unwrap()),
    })
    .unwrap()
}

#[test]
fn a_quit_that_comes_while_a_queue_is_taken_in_is_heard() {
    let sim = Sim::new(SimConfig::blocking(1));
    let (service, _heard) = service(&sim, null(), false);
    let mailbox = Mailbox::new().unwrap();
    mailbox.waker().quit();
    let (ended, told) = channel();
    thread::spawn(move || {
        let mut reactor = Reactor::of(&sim, mailbox, vec![service]).unwrap();
        while reactor.turn().unwrap() == Turn::Serving {}
        reactor.end(&Ok(()));
        ended.send(()).unwrap();
    });
    told.recv_timeout(Duration::from_secs(20)).unwrap();
}

#[test]
fn a_queue_that_finds_no_slots_keeps_no_places() {
    let sim = Sim::new(SimConfig::stepping(1));
    let mut reactor = Reactor::new(&sim, capacity(2, DEPTH), Mailbox::new().unwrap()).unwrap();
    assert!(!is_served(&mut reactor, service(&sim, null(), true)));
    assert!(is_served(&mut reactor, service(&sim, null(), false)));
}

#[test]
fn a_queue_that_finds_too_few_slots_keeps_none() {
    let sim = Sim::new(SimConfig::stepping(1));
    let mut reactor =
        Reactor::new(&sim, capacity(4, DEPTH * 2 - 1), Mailbox::new().unwrap()).unwrap();
    assert!(!is_served(&mut reactor, service(&sim, null(), true)));
    assert!(is_served(&mut reactor, service(&sim, null(), false)));
}

#[test]
fn a_queue_whose_descriptors_cannot_be_mapped_keeps_nothing() {
    let sim = Sim::new(SimConfig::stepping(1));
    let mut reactor = Reactor::new(&sim, capacity(2, DEPTH), Mailbox::new().unwrap()).unwrap();
    let (mut narrow, heard) = service(&sim, null(), false);
    narrow.config.descriptor_size = 8;
    assert!(!is_served(&mut reactor, (narrow, heard)));
    assert!(is_served(&mut reactor, service(&sim, null(), false)));
}

#[test]
fn a_queue_that_nobody_can_be_asked_for_keeps_no_places_and_the_bell_is_hung_again() {
    let sim = Sim::new(SimConfig::stepping(1));
    let mut reactor = Reactor::new(&sim, capacity(2, DEPTH), Mailbox::new().unwrap()).unwrap();
    sim.stall(true);
    assert!(!is_served(&mut reactor, service(&sim, handler(), false)));
    assert!(reactor.bell.is_none());
    sim.stall(false);
    assert!(is_served(&mut reactor, service(&sim, handler(), false)));
}

#[test]
fn a_reactor_none_of_whose_queues_can_be_served_ends() {
    let sim = Sim::new(SimConfig::stepping(1));
    let (mut narrow, heard) = service(&sim, null(), false);
    narrow.config.descriptor_size = 8;
    assert!(Reactor::of(&sim, Mailbox::new().unwrap(), vec![narrow]).is_err());
    assert_eq!(heard.try_recv(), Ok(false));
}

/// The reactors of the thread `name` that owe a sign of life.
fn silent(name: &str) -> usize {
    silent_reactors().iter().filter(|one| *one == name).count()
}

#[test]
fn a_reactor_that_turns_gives_a_sign_of_life_and_one_that_stands_still_is_named() {
    let sim = Sim::new(SimConfig::blocking(1));
    let (ended, told) = channel();
    let mailbox = Mailbox::<Null>::new().unwrap();
    let waker = mailbox.waker().clone();
    let (go, may_turn) = channel::<()>();
    let body = move || {
        let mut reactor = Reactor::new(&sim, capacity(2, DEPTH), mailbox).unwrap();
        ended.send(()).unwrap();
        may_turn.recv().unwrap();
        while reactor.turn().unwrap() == Turn::Serving {
            ended.send(()).unwrap();
        }
        drop(reactor);
    };
    let thread = thread::Builder::new().name("pulse".into()).spawn(body).unwrap();
    told.recv().unwrap();
    assert_eq!(silent("pulse"), 0, "asked for the first time");
    assert_eq!(silent("pulse"), 1, "stands still");
    assert_eq!(silent("pulse"), 1, "still stands still");
    go.send(()).unwrap();
    told.recv().unwrap();
    assert_eq!(silent("pulse"), 0, "asleep and woken");
    told.recv().unwrap();
    assert_eq!(silent("pulse"), 0, "again");
    waker.quit();
    thread.join().unwrap();
    assert_eq!(silent("pulse"), 0, "a reactor that has ended owes nothing");
}
