//! Devices whose queues share the reactors of a pool.

use super::*;

#[test]
fn devices_share_the_reactors_of_a_pool_and_leave_nothing_in_them() {
    let _alone = alone();
    let sim = Sim::new(SimConfig::blocking(8));
    let disks: Vec<_> = (0..6).map(|_| sim.file(SIZE)).collect();
    settle();
    let before = open_descriptors();
    let pool = Pool::new(&sim, PoolOptions::of(2)).unwrap();
    for exchange in [ExchangeMode::PerIo, ExchangeMode::Batch] {
        for round in 0..20_u8 {
            let options = DeviceOptions { exchange: Some(exchange), ..options() };
            let devices: Vec<_> = disks
                .iter()
                .map(|disk| Device::create_in(&pool, &sim, file(disk), options.clone()).unwrap())
                .collect();
            for (device, disk) in devices.iter().zip(&disks) {
                let client = sim.client(device.info().id).unwrap();
                let data = vec![round + 1; 4096];
                let write = ClientOp::Write { offset: 0, data: data.clone(), fua: false };
                assert_eq!(client.run(&write).result, Ok(()));
                assert_eq!(disk.contents()[..4096], data);
            }
            assert_eq!(pool.close().unwrap_err().code, Code::Busy);
            for device in &devices {
                device.close().unwrap();
                assert_nothing_left(&sim, device.info().id);
            }
        }
    }
    pool.close().unwrap();
    assert_eq!(open_descriptors(), before + 2, "nothing is left but the mailboxes");
    pool.close().unwrap();
    assert!(Device::create_in(&pool, &sim, file(&disks[0]), options()).is_err());
    drop(pool);
    settle();
    assert_eq!(open_descriptors(), before);
}

#[test]
fn a_pool_that_is_full_refuses_the_next_device_and_serves_the_others_on() {
    let _alone = alone();
    let sim = Sim::new(SimConfig::blocking(9));
    let disk = sim.file(SIZE);
    let pool = Pool::new(&sim, PoolOptions::of(1)).unwrap();
    let large = DeviceOptions { depth: 4096, queues: 1, ..options() };
    let mut devices = Vec::new();
    let refused = loop {
        match Device::create_in(&pool, &sim, file(&disk), large.clone()) {
            Ok(device) => devices.push(device),
            Err(error) => break error,
        }
        assert!(devices.len() <= 4, "more slots than a table has");
    };
    assert_eq!(refused.code, Code::Resources, "{refused}");
    assert_eq!(devices.len(), 4);
    for device in &devices {
        let client = sim.client(device.info().id).unwrap();
        assert_eq!(client.run(&ClientOp::Read { offset: 0, length: 512 }).result, Ok(()));
    }
}

#[test]
fn a_full_pool_adds_reactors_up_to_its_bound() {
    let _alone = alone();
    let sim = Sim::new(SimConfig::blocking(9));
    let disk = sim.file(SIZE);
    let pool = Pool::new(&sim, PoolOptions { max_reactors: 3, ..PoolOptions::of(1) }).unwrap();
    let large = DeviceOptions { depth: 4096, queues: 4, ..options() };
    let create = || Device::create_in(&pool, &sim, file(&disk), large.clone());
    let mut devices = Vec::new();
    for reactors in 1..=3 {
        devices.push(create().unwrap());
        assert_eq!(pool.reactors(), reactors);
    }
    assert_eq!(create().unwrap_err().code, Code::Resources);
    for device in &devices {
        assert_serves(&sim.client(device.info().id).unwrap());
    }
    devices.remove(0).close().unwrap();
    devices.push(create().unwrap());
    assert_eq!(pool.reactors(), 3, "the place that became free is taken");
    drop(devices);
    pool.close().unwrap();
    assert_eq!(create().unwrap_err().code, Code::Closed);
}

#[test]
fn a_closed_pool_adds_no_reactor() {
    let _alone = alone();
    let sim = Sim::new(SimConfig::blocking(9));
    let disk = sim.file(SIZE);
    let pool = Pool::new(&sim, PoolOptions { max_reactors: 3, ..PoolOptions::of(1) }).unwrap();
    pool.close().unwrap();
    let refused = Device::create_in(&pool, &sim, file(&disk), options()).unwrap_err();
    assert_eq!((refused.code, pool.reactors()), (Code::Closed, 0));
}

#[test]
fn the_queues_of_a_device_may_need_another_reactor_and_one_that_needs_more_touches_nothing() {
    let _alone = alone();
    let sim = Sim::new(SimConfig::blocking(9));
    let disk = sim.file(SIZE);
    let pool = Pool::new(&sim, PoolOptions { max_reactors: 2, ..PoolOptions::of(1) }).unwrap();
    let of = |queues| DeviceOptions { depth: 4096, queues, ..options() };
    let refused = Device::create_in(&pool, &sim, file(&disk), of(9)).unwrap_err();
    assert_eq!((refused.code, pool.reactors()), (Code::Resources, 1));
    let first = Device::create_in(&pool, &sim, file(&disk), of(2)).unwrap();
    assert_eq!(pool.reactors(), 1);
    let second = Device::create_in(&pool, &sim, file(&disk), of(4)).unwrap();
    assert_eq!(pool.reactors(), 2);
    for device in [first, second] {
        assert_serves(&sim.client(device.info().id).unwrap());
    }
}

#[test]
fn the_bound_of_a_pool_is_no_smaller_than_its_beginning() {
    let sim = Sim::new(SimConfig::blocking(9));
    for max_reactors in [0, 1, 1025] {
        let options = PoolOptions { max_reactors, ..PoolOptions::of(2) };
        let refused = Pool::<ublk_core::targets::file::File>::new(&sim, options).unwrap_err();
        assert_eq!(refused.code, Code::InvalidArgument);
    }
}

#[test]
fn a_pool_takes_in_the_shares_of_a_queue() {
    let _alone = alone();
    let sim = Sim::new(SimConfig::blocking(22));
    let pool = Pool::new(&sim, PoolOptions::of(2)).unwrap();
    let disk = sim.file(SIZE);
    let shape = DeviceOptions { queues: 1, threads: Some(3), ..options() };
    let device = Device::create_in(&pool, &sim, file(&disk), shape).unwrap();
    let id = device.info().id;
    let client = sim.client(id).unwrap();
    for number in 0..20_u8 {
        let write = ClientOp::Write { offset: 0, data: vec![number; 4096], fua: false };
        assert_eq!(client.run(&write).result, Ok(()));
        assert_eq!(client.run(&ClientOp::Read { offset: 0, length: 1024 }).data, [number; 1024]);
    }
    drop(client);
    device.close().unwrap();
    assert_nothing_left(&sim, id);
}

#[test]
fn a_device_of_a_pool_is_left_under_a_load_that_takes_all_tags_and_no_request_fails() {
    let _alone = alone();
    let sim = Sim::new(SimConfig::blocking(8));
    let disk = sim.file(SIZE);
    let pool = Pool::new(&sim, PoolOptions::of(2)).unwrap();
    let recovery = Some(Recovery::Queue);
    let shape = DeviceOptions { id: Some(3), depth: 8, recovery, ..options() };
    let device = Device::create_in(&pool, &sim, file(&disk), shape.clone()).unwrap();
    let client = sim.client(3).unwrap();
    let read = ClientOp::Read { offset: 0, length: 4096 };
    for queue in 0..2 {
        for _ in 0..256 {
            client.submit(&read, Some(queue));
        }
    }
    device.quiesce().unwrap();
    let next = Device::recover_in(&pool, &sim, 3, file(&disk), shape).unwrap();
    until("all requests are answered", || client.in_flight() == 0);
    assert!(client.take().iter().all(|done| done.result == Ok(())));
    drop(client);
    next.close().unwrap();
    assert_nothing_left(&sim, 3);
}

#[test]
fn a_recovery_behind_a_file_in_place_of_the_device_is_refused_before_anything_is_touched() {
    let _alone = alone();
    let sim = Sim::new(SimConfig::blocking(8));
    let disk = sim.file(SIZE);
    let pool = Pool::new(&sim, PoolOptions::of(2)).unwrap();
    let recovery = Some(Recovery::Reissue);
    let shape = DeviceOptions { id: Some(3), recovery, ..options() };
    create(&sim, &disk, shape.clone()).quiesce().unwrap();
    let client = sim.client(3).unwrap();
    client.submit(&ClientOp::Read { offset: 0, length: 4096 }, Some(0));
    sim.put_file_in_place_of(3, true);
    for pool in [Some(&pool), None] {
        let recover = || match pool {
            Some(pool) => Device::recover_in(pool, &sim, 3, file(&disk), shape.clone()),
            None => Device::recover(&sim, 3, file(&disk), shape.clone()),
        };
        let before = sim.trace();
        assert!(recover().unwrap_err().message.contains("in place of the block device"));
        assert_eq!(sim.trace(), before);
        assert_eq!(device::info(sim.clone(), 3).unwrap().state, DeviceState::Quiesced);
    }
    assert_eq!(client.in_flight(), 1);
    sim.put_file_in_place_of(3, false);
    let next = Device::recover_in(&pool, &sim, 3, file(&disk), shape).unwrap();
    until("the request is answered", || client.in_flight() == 0);
    drop(client);
    next.close().unwrap();
    assert_nothing_left(&sim, 3);
}
