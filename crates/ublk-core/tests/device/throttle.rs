//! Limits of requests and bytes per second.

use ublk_core::device::{Rates, ThrottleLimits};

use super::*;

const COUNT: u64 = 64;

fn iops(rate: u64) -> Rates {
    Rates { iops: Some(rate), bytes: None }
}

/// With no burst, so that each request after the first waits.
fn all(rates: Rates) -> ThrottleLimits {
    ThrottleLimits { all: rates, burst: Duration::ZERO, ..ThrottleLimits::default() }
}

fn write(block: u64) -> ClientOp {
    ClientOp::Write { offset: block * 4096, data: vec![7; 4096], fua: false }
}

/// Submits more writes than a limit of one per second lets through within the time that `until` waits.
fn hold_back(sim: &Sim, id: u32) -> ublk_core::driver::sim::Client {
    let client = sim.client(id).unwrap();
    (0..COUNT).for_each(|block| _ = client.submit(&write(block), None));
    until("a write passes", || (client.in_flight() as u64) < COUNT);
    client
}

fn deep() -> DeviceOptions {
    DeviceOptions { depth: 128, queues: 1, ..options() }
}

#[test]
fn requests_take_the_time_that_a_limit_says_in_every_mode() {
    let _alone = alone();
    use BufferMode::{Auto, Copy, GetData, Register, UserCopy};
    let per_io = [Auto, Register, UserCopy, GetData, Copy].map(|mode| (mode, ExchangeMode::PerIo));
    let batches = [Auto, Copy].map(|mode| (mode, ExchangeMode::Batch));
    for (mode, exchange) in per_io.into_iter().chain(batches) {
        let sim = Sim::new(SimConfig::blocking(31));
        let disk = sim.file(SIZE);
        let (buffers, exchange) = (vec![mode], Some(exchange));
        let throttle = all(iops(100));
        let asked = DeviceOptions { buffers, exchange, throttle, ..deep() };
        let device = create(&sim, &disk, asked);
        let client = sim.client(device.info().id).unwrap();
        let begin = Instant::now();
        (0..11).for_each(|block| _ = client.submit(&write(block), None));
        until("all are written", || client.in_flight() == 0);
        let done = client.take();
        assert!(begin.elapsed() >= Duration::from_millis(100), "{mode:?}: {:?}", begin.elapsed());
        assert!(done.iter().all(|one| one.result == Ok(())));
        let read = client.run(&ClientOp::Read { offset: 4096, length: 4096 });
        assert_eq!((read.result, read.data), (Ok(()), vec![7; 4096]));
        drop(client);
        let id = device.info().id;
        device.close().unwrap();
        assert_nothing_left(&sim, id);
    }
}

#[test]
fn a_change_of_limits_reaches_requests_that_wait() {
    let _alone = alone();
    let sim = Sim::new(SimConfig::blocking(32));
    let disk = sim.file(SIZE);
    let device = create(&sim, &disk, DeviceOptions { throttle: all(iops(1)), ..deep() });
    let id = device.info().id;
    let client = hold_back(&sim, id);
    assert!(client.in_flight() > 0);
    device.throttle(&ThrottleLimits::default()).unwrap();
    until("all are written", || client.in_flight() == 0);
    assert!(client.take().iter().all(|one| one.result == Ok(())));
    device.throttle(&all(iops(1))).unwrap();
    drop(client);
    drop(hold_back(&sim, id));
    device.close().unwrap();
    let ended = device.throttle(&ThrottleLimits::default()).unwrap_err();
    assert_eq!(ended.code, Code::Closed);
    assert_nothing_left(&sim, id);
}

#[test]
fn a_limit_of_one_class_holds_no_other_back() {
    let _alone = alone();
    let sim = Sim::new(SimConfig::blocking(33));
    let disk = sim.file(SIZE);
    let burst = Duration::ZERO;
    let limits = ThrottleLimits { write: iops(1), burst, ..ThrottleLimits::default() };
    let device = create(&sim, &disk, DeviceOptions { throttle: limits, ..deep() });
    let client = hold_back(&sim, device.info().id);
    let other = sim.client(device.info().id).unwrap();
    for _ in 0..COUNT {
        assert_eq!(other.run(&ClientOp::Read { offset: 0, length: 4096 }).result, Ok(()));
        assert_eq!(other.run(&ClientOp::Flush).result, Ok(()));
    }
    assert!(client.in_flight() > 0, "the writes wait");
    drop((client, other));
    device.close().unwrap();
}

#[test]
fn a_device_that_closes_or_is_left_waits_for_no_limit() {
    let _alone = alone();
    for (exchange, pool) in
        [(ExchangeMode::PerIo, false), (ExchangeMode::Batch, false), (ExchangeMode::PerIo, true)]
    {
        let sim = Sim::new(SimConfig::blocking(34));
        let disk = sim.file(SIZE);
        let reactors = pool.then(|| Pool::new(&sim, PoolOptions::of(1)).unwrap());
        let recovery = Some(Recovery::Reissue);
        let (throttle, exchange) = (all(iops(1)), Some(exchange));
        let asked = DeviceOptions { exchange, recovery, throttle, ..deep() };
        let serve = |options| match &reactors {
            Some(pool) => Device::create_in(pool, &sim, file(&disk), options).unwrap(),
            None => create(&sim, &disk, options),
        };
        let device = serve(asked.clone());
        let id = device.info().id;
        let client = hold_back(&sim, id);
        device.quiesce().unwrap();
        assert!(matches!(device.wait(), End::Quiesced));
        let next = DeviceOptions { throttle: ThrottleLimits::default(), ..asked.clone() };
        let again = match &reactors {
            Some(pool) => Device::recover_in(pool, &sim, id, file(&disk), next).unwrap(),
            None => Device::recover(&sim, id, file(&disk), next).unwrap(),
        };
        until("all are written", || client.in_flight() == 0);
        assert!(client.take().iter().all(|one| one.result == Ok(())), "{exchange:?} {pool}");
        again.throttle(&all(iops(1))).unwrap();
        drop(client);
        let client = hold_back(&sim, id);
        again.close().unwrap();
        assert!(client.take().iter().all(|one| one.result == Ok(())), "{exchange:?} {pool}");
        drop((client, device));
        if let Some(pool) = reactors {
            pool.close().unwrap();
        }
        assert_nothing_left(&sim, id);
    }
}

#[test]
fn a_throttled_device_of_a_pool_holds_up_no_other() {
    let _alone = alone();
    let sim = Sim::new(SimConfig::blocking(35));
    let (one, other) = (sim.file(SIZE), sim.file(SIZE));
    let pool = Pool::new(&sim, PoolOptions::of(1)).unwrap();
    let slow = DeviceOptions { throttle: all(iops(1)), ..deep() };
    let slow = Device::create_in(&pool, &sim, file(&one), slow).unwrap();
    let fast = Device::create_in(&pool, &sim, file(&other), deep()).unwrap();
    let waiting = hold_back(&sim, slow.info().id);
    let client = sim.client(fast.info().id).unwrap();
    assert_serves(&client);
    assert!(waiting.in_flight() > 0);
    drop((waiting, client));
    slow.close().unwrap();
    fast.close().unwrap();
    pool.close().unwrap();
}

#[test]
fn limits_that_cannot_be_kept_are_refused() {
    let _alone = alone();
    let sim = Sim::new(SimConfig::blocking(36));
    let disk = sim.file(SIZE);
    for (throttle, unprivileged) in [(all(iops(0)), false), (all(iops(1)), true)] {
        let asked = DeviceOptions { throttle, unprivileged, ..deep() };
        let error = Device::create(&sim, file(&disk), asked).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument);
    }
    assert_eq!(sim.added(), 0);
    let device = create(&sim, &disk, deep());
    assert_eq!(device.throttle(&all(iops(0))).unwrap_err().code, Code::InvalidArgument);
    device.close().unwrap();
}
