//! A server leaves its device to the next server.

use super::*;

#[test]
fn a_device_that_somebody_else_quiesces_is_left_and_not_deleted() {
    for (mode, exchange, threads) in ways() {
        let sim = Sim::new(SimConfig::blocking(8));
        let disk = sim.file(SIZE);
        let (buffers, exchange) = (vec![mode], Some(exchange));
        let asked = DeviceOptions { buffers, exchange, threads, ..options() };
        let first = Device::create(&sim, file(&disk), asked).unwrap();
        if exchange == Some(ExchangeMode::Batch) {
            // The kernel would fail requests from then on; another program may do it all the same.
            let error = device::quiesce(sim.clone(), ID).unwrap_err();
            assert_eq!(error.code, Code::Unsupported);
            assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
            assert_eq!(state(&sim), DeviceState::Live);
            let client = sim.client(ID).unwrap();
            assert_serves(&client);
            drop(client);
            Control::new(sim.clone()).quiesce(ID, Duration::from_millis(20)).unwrap();
        } else {
            device::quiesce(sim.clone(), ID).unwrap();
        }
        assert!(matches!(first.wait(), End::Quiesced));
        first.close().unwrap();
        drop(first);
        assert_eq!(state(&sim), DeviceState::Quiesced);
        assert_eq!(device::info(sim.clone(), ID).unwrap().server_pid, None);
        device::delete(&sim, ID, false).unwrap();
        assert_rules_kept(&sim);
    }
}

fn slow(disk: &SimDisk, reads: Duration) -> Native {
    let read = u32::try_from(reads.as_micros()).unwrap();
    Native::Delay(Delay::new(Native::File(file(disk)), Delays { read, ..Delays::default() }))
}

const READ: ClientOp = ClientOp::Read { offset: 0, length: 4096 };

/// The request that does not end in time ends at last; nothing of it is lost.
#[test]
fn a_server_whose_requests_do_not_end_leaves_when_they_have() {
    for exchange in [ExchangeMode::PerIo, ExchangeMode::Batch] {
        let sim = Sim::new(SimConfig::blocking(21));
        let disk = sim.file(SIZE);
        // Threads get ready within the limit on a loaded machine, too.
        let (recovery, limit) = (Some(Recovery::Queue), Duration::from_millis(400));
        let asked = DeviceOptions { recovery, limit, exchange: Some(exchange), ..options() };
        let reads = Duration::from_millis(2500);
        let device = Device::create(&sim, slow(&disk, reads), asked).unwrap();
        let client = sim.client(ID).unwrap();
        client.submit(&READ, None);
        while device.stats().iter().all(|queue| queue.enters == 0)
            || sim.requests_in_flight(ID) == 0
        {
            thread::yield_now();
        }
        let error = device.quiesce().unwrap_err();
        assert_eq!(error.code, Code::Timeout, "{exchange:?}: {error}");
        assert_eq!(state(&sim), DeviceState::Live, "{exchange:?}: it is not said to have left");
        assert!(matches!(device.wait(), End::Quiesced), "{exchange:?}");
        device.quiesce().unwrap();
        assert_eq!(state(&sim), DeviceState::Quiesced);
        assert_eq!(client.take()[0].result, Ok(()), "{exchange:?}");
        Device::recover(&sim, ID, file(&disk), options()).unwrap().close().unwrap();
    }
}

/// Quiesces and recovers a device again and again, under a load that never pauses.
fn change_servers_under_load(asked: &DeviceOptions) {
    let sim = Sim::new(SimConfig::blocking(22));
    let disk = sim.file(SIZE);
    let reads = Duration::from_millis(2);
    let mut device = Device::create(&sim, slow(&disk, reads), asked.clone()).unwrap();
    let (over, served) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for client in 0..12_u64 {
            let (sim, over, served) = (&sim, &over, &served);
            scope.spawn(move || {
                let opened = sim.client(ID).unwrap();
                while !over.load(Ordering::Relaxed) {
                    let offset = client * 4096;
                    let op = match client % 2 {
                        0 => ClientOp::Read { offset, length: 4096 },
                        _ => ClientOp::Write { offset, data: vec![1; 4096], fua: false },
                    };
                    assert_eq!(opened.run(&op).result, Ok(()), "{asked:?}");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..6 {
            let wanted = served.load(Ordering::Relaxed) + 50;
            while served.load(Ordering::Relaxed) < wanted {
                thread::yield_now();
            }
            device.quiesce().unwrap();
            assert_eq!(state(&sim), DeviceState::Quiesced, "{asked:?}");
            let setting = sim.queue_setting(ID, "iostats");
            assert_eq!(setting.as_deref(), asked.queue.iostats.map(|_| "0"));
            device = Device::recover(&sim, ID, slow(&disk, reads), options()).unwrap();
        }
        over.store(true, Ordering::Relaxed);
    });
    device.close().unwrap();
    assert_rules_kept(&sim);
}

#[test]
fn a_device_is_left_under_steady_load() {
    let shape = DeviceOptions { queues: 1, depth: 16, ..options() };
    let per_io = Some(ExchangeMode::PerIo);
    let queue = Some(Recovery::Queue);
    change_servers_under_load(&DeviceOptions {
        exchange: per_io,
        recovery: queue,
        ..shape.clone()
    });
    change_servers_under_load(&DeviceOptions { exchange: Some(ExchangeMode::Batch), ..shape });
}

#[test]
fn a_device_whose_requests_the_kernel_does_not_count_is_left_without_a_failure() {
    let iostats = QueueSettings { iostats: Some(false), ..QueueSettings::default() };
    for depth in [1, 16] {
        let shape = DeviceOptions { queues: 1, depth, queue: iostats.clone(), ..options() };
        let exchange = Some(ExchangeMode::PerIo);
        let recovery = Some(Recovery::Queue);
        change_servers_under_load(&DeviceOptions { exchange, recovery, ..shape });
    }
}

#[test]
fn counting_that_was_turned_off_later_is_asked_for() {
    let sim = Sim::new(SimConfig::blocking(23));
    let disk = sim.file(SIZE);
    let device = Device::create(&sim, file(&disk), options()).unwrap();
    sim.set_queue(ID, "iostats", "0").unwrap();
    for result in [device.quiesce(), device::quiesce(sim.clone(), ID)] {
        let error = result.unwrap_err();
        assert_eq!(error.code, Code::Unsupported);
        assert!(error.to_string().contains("queue/iostats"), "{error}");
    }
    assert_eq!(state(&sim), DeviceState::Live);
    sim.set_queue(ID, "iostats", "1").unwrap();
    device.quiesce().unwrap();
    assert_eq!(state(&sim), DeviceState::Quiesced);
}

#[test]
fn a_close_goes_on_while_requests_end_though_the_kernel_does_not_count_them() {
    let sim = Sim::new(SimConfig::blocking(24));
    let disk = sim.file(SIZE);
    let queue = QueueSettings { iostats: Some(false), ..QueueSettings::default() };
    let limit = Duration::from_millis(150);
    let asked = DeviceOptions { queues: 1, depth: 1, limit, queue, recovery: None, ..options() };
    let device = Device::create(&sim, slow(&disk, Duration::from_millis(60)), asked).unwrap();
    let client = sim.client(ID).unwrap();
    (0..10).for_each(|_| {
        client.submit(&READ, None);
    });
    device.close().unwrap();
    let results: Vec<_> = client.take().iter().map(|done| done.result).collect();
    assert_eq!(results, [Ok(()); 10]);
}

#[test]
fn a_device_outlives_whoever_drops_it() {
    for (mode, exchange, threads) in ways() {
        let sim = Sim::new(SimConfig::blocking(12));
        let disk = sim.file(SIZE);
        let buffers = vec![mode];
        let asked = DeviceOptions { buffers, exchange: Some(exchange), threads, ..options() };
        let device = Device::create(&sim, file(&disk), asked).unwrap();
        let panicked = thread::spawn(move || {
            let _served = device;
            panic!("on purpose");
        });
        assert!(panicked.join().is_err());
        assert_eq!(state(&sim), DeviceState::Quiesced, "{mode:?} {exchange:?}");
        let next = Device::recover(&sim, ID, file(&disk), DeviceOptions::default()).unwrap();
        assert_serves(&sim.client(ID).unwrap());
        next.close().unwrap();
        assert_nothing_left(&sim, ID);
    }
}

#[test]
fn a_device_that_is_released_is_left_to_the_next_server_while_somebody_has_it_open() {
    let sim = Sim::new(SimConfig::blocking(13));
    let disk = sim.file(SIZE);
    let device = Device::create(&sim, file(&disk), options()).unwrap();
    let client = sim.client(ID).unwrap();
    device.release().unwrap();
    assert!(matches!(device.wait(), End::Quiesced));
    device.release().unwrap();
    let next = Device::recover(&sim, ID, file(&disk), DeviceOptions::default()).unwrap();
    drop(client);
    next.release().unwrap();
    assert!(matches!(next.wait(), End::Closed));
    assert_nothing_left(&sim, ID);
}

#[test]
fn a_device_without_recovery_is_not_left() {
    let sim = Sim::new(SimConfig::blocking(14));
    let disk = sim.file(SIZE);
    let device = Device::create(&sim, file(&disk), common::options()).unwrap();
    let id = device.info().id;
    assert_eq!(device.leave().unwrap_err().code, Code::InvalidArgument);
    let _client = sim.client(id).unwrap();
    device.release().unwrap();
    assert_nothing_left(&sim, id);
}
