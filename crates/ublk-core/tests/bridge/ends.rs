//! Requests that nobody answers in time.

use ublk_core::bridge::TICK;
use ublk_core::device::{DeviceState, Recovery};
use ublk_core::tag::Tag;

use super::*;

/// Moves the bridge's clock as long as it lives.
fn ticking(bridge: &Arc<Bridge>) -> Answering {
    let stop = Arc::new(AtomicBool::new(false));
    let (until, bridge) = (Arc::clone(&stop), Arc::clone(bridge));
    let tick = move || {
        while !until.load(Ordering::Relaxed) {
            bridge.tick();
            thread::sleep(Duration::from_millis(1));
        }
    };
    Answering { stop, threads: vec![thread::spawn(tick)] }
}

#[test]
fn what_is_never_answered_times_out_and_what_is_answered_late_is_not_taken_for_another() {
    for mode in [BufferMode::Copy, BufferMode::UserCopy, BufferMode::Auto] {
        let sim = Sim::new(SimConfig::blocking(7));
        let bridge = bridge(TICK * 8);
        let target = target(&bridge, &[Op::Read, Op::Write], &[]);
        let forgotten = Arc::new(Mutex::new(Vec::new()));
        let forgets = Arc::new(AtomicBool::new(false));
        let (list, forgetting) = (Arc::clone(&forgotten), Arc::clone(&forgets));
        let _answering = Answering::start(&bridge, move |peer, asked| {
            if forgetting.load(Ordering::Relaxed) {
                return list.lock().unwrap().push(*asked);
            }
            let queue = peer.channel().queue();
            // Whatever was forgotten is answered first: its tag is another request's by now.
            for late in list.lock().unwrap().drain(..) {
                assert_eq!(queue, 0);
                peer.answer(&late, Err(libc::ENOSPC));
            }
            peer.answer(asked, Ok(()));
        });
        let reports = listen(&bridge);
        let device =
            Device::create(&sim, target, DeviceOptions { queues: 1, ..options(mode) }).unwrap();
        let client = sim.client(device.info().id).unwrap();
        let _ticking = ticking(&bridge);
        let buffers = || -> Vec<_> {
            let tags = Tag::all(DEPTH).filter_map(|tag| bridge.channel(0).buffer(tag));
            tags.map(|buffer| buffer.base()).collect()
        };
        let before = buffers();
        forgets.store(true, Ordering::Relaxed);
        for _ in 0..DEPTH {
            let read = client.run(&ClientOp::Read { offset: 0, length: 4096 });
            assert_eq!(read.result, Err(libc::ETIMEDOUT));
        }
        let late = forgotten.lock().unwrap().len();
        forgets.store(false, Ordering::Relaxed);
        for _ in 0..DEPTH {
            let read = client.run(&ClientOp::Read { offset: 0, length: 4096 });
            assert_eq!(read.result, Ok(()));
        }
        drop(client);
        device.close().unwrap();
        bridge.tick();
        let count = |kind| reports.lock().unwrap().iter().filter(|one| one.kind == kind).count();
        assert_eq!(count(ReportKind::TimedOut), late);
        assert_eq!(count(ReportKind::Late), late);
        assert_eq!(mode != BufferMode::Auto, buffers() != before, "its buffer may be written to");
        sim.audit();
    }
}

/// What a read comes to that is in flight when its device is closed, and that whoever answers has
/// `answers` for once the clock has moved by so many ticks.
fn read_while_closing(timeout: Duration, answers: u32) -> Result<(), i32> {
    let sim = Sim::new(SimConfig::blocking(8));
    let bridge = bridge(timeout);
    let target = target(&bridge, &[Op::Read], &[]);
    let (asked, clock) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let (is_asked, now) = (Arc::clone(&asked), Arc::clone(&clock));
    let _answering = Answering::start(&bridge, move |peer, asked| {
        is_asked.store(true, Ordering::Relaxed);
        while now.load(Ordering::Relaxed) < answers {
            thread::yield_now();
        }
        peer.answer(asked, Ok(()));
    });
    let device = Device::create(&sim, target, options(BufferMode::Copy)).unwrap();
    let id = device.info().id;
    let result = thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let client = sim.client(id).unwrap();
            client.run(&ClientOp::Read { offset: 0, length: 4096 }).result
        });
        while !asked.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        let closing = scope.spawn(|| device.close());
        // Until the device is being closed.
        thread::sleep(Duration::from_millis(50));
        while !reading.is_finished() {
            bridge.tick();
            clock.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(1));
        }
        clock.store(u32::MAX, Ordering::Relaxed);
        closing.join().unwrap().unwrap();
        reading.join().unwrap()
    });
    assert_nothing_left(&sim, id);
    result
}

#[test]
fn closing_leaves_requests_all_of_their_time() {
    assert_eq!(read_while_closing(TICK * 3600, 100), Ok(()));
}

#[test]
fn closing_ends_requests_that_nobody_answers_in_time() {
    assert_eq!(read_while_closing(TICK * 40, u32::MAX), Err(libc::ETIMEDOUT));
}

#[test]
fn a_handler_that_is_gone_fails_requests_at_once_and_its_device_can_be_closed() {
    let sim = Sim::new(SimConfig::blocking(9));
    let bridge = bridge(Duration::from_secs(3600));
    let target = target(&bridge, &[Op::Read], &[]);
    let device = Device::create(&sim, target, options(BufferMode::Copy)).unwrap();
    let id = device.info().id;
    thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let client = sim.client(id).unwrap();
            let read = || client.run(&ClientOp::Read { offset: 0, length: 4096 }).result;
            (read(), read())
        });
        thread::sleep(Duration::from_millis(50));
        bridge.abandon();
        assert_eq!(reading.join().unwrap(), (Err(libc::EIO), Err(libc::EIO)));
    });
    assert_eq!(device.unanswered(), 2);
    device.close().unwrap();
    assert_nothing_left(&sim, id);
}

#[test]
fn what_a_handler_that_is_gone_has_not_answered_is_the_next_servers() {
    for (mode, exchange) in [
        (BufferMode::Copy, ExchangeMode::PerIo),
        (BufferMode::Copy, ExchangeMode::Batch),
        (BufferMode::Auto, ExchangeMode::PerIo),
    ] {
        let sim = Sim::new(SimConfig::blocking(10));
        let options = || DeviceOptions {
            recovery: Some(Recovery::Reissue),
            exchange: Some(exchange),
            ..options(mode)
        };
        let first = bridge(Duration::from_secs(3600));
        let target = |bridge: &Arc<Bridge>| target(bridge, &[Op::Read], &[]);
        let device = Device::create(&sim, target(&first), options()).unwrap();
        let id = device.info().id;
        let _ticking = ticking(&first);
        thread::scope(|scope| {
            let read = || {
                let client = sim.client(id).unwrap();
                client.run(&ClientOp::Read { offset: 0, length: 4096 }).result
            };
            let before = scope.spawn(read);
            thread::sleep(Duration::from_millis(50));
            first.abandon();
            let after = scope.spawn(read);
            thread::sleep(Duration::from_millis(50));
            device.leave().unwrap();
            let state = ublk_core::device::info(sim.clone(), id).unwrap().state;
            assert_eq!(state, DeviceState::Quiesced, "{mode:?} {exchange:?}");
            let second = bridge(Duration::from_secs(3600));
            let _answering = Answering::start(&second, |peer, asked| peer.answer(asked, Ok(())));
            let next = Device::recover(&sim, id, target(&second), DeviceOptions::default());
            assert_eq!((before.join().unwrap(), after.join().unwrap()), (Ok(()), Ok(())));
            next.unwrap().close().unwrap();
        });
        assert_nothing_left(&sim, id);
    }
}

#[test]
fn a_device_with_recovery_whose_handler_is_gone_can_still_be_closed() {
    let sim = Sim::new(SimConfig::blocking(11));
    let bridge = bridge(Duration::from_secs(3600));
    let recovery = Some(Recovery::Queue);
    let options = DeviceOptions { recovery, ..options(BufferMode::Copy) };
    let device = Device::create(&sim, target(&bridge, &[Op::Read], &[]), options).unwrap();
    let id = device.info().id;
    let _ticking = ticking(&bridge);
    thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let client = sim.client(id).unwrap();
            client.run(&ClientOp::Read { offset: 0, length: 4096 }).result
        });
        thread::sleep(Duration::from_millis(50));
        bridge.abandon();
        device.close().unwrap();
        assert!(reading.join().unwrap().is_err());
    });
    assert_nothing_left(&sim, id);
}
