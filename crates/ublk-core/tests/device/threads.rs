//! Devices whose requests are spread over threads.

use ublk_core::control::Control;
use ublk_core::targets::file::File;
use ublk_core::targets::{Errno, Geometry, Plan, Request, Target};

use super::*;

#[test]
fn threads_share_the_tags_of_all_queues() {
    let _alone = alone();
    use BufferMode::{Auto, Copy, GetData, Register, UserCopy};
    let modes = [Auto, Register, UserCopy, GetData, Copy];
    let shapes = [(1, 4, 2), (2, 3, 4), (2, 1, 16)];
    for (mode, (queues, depth, threads)) in
        modes.into_iter().flat_map(|mode| shapes.map(|shape| (mode, shape)))
    {
        let sim = Sim::new(SimConfig::blocking(21));
        let disk = sim.file(SIZE);
        let threads = Some(threads);
        let shape = DeviceOptions { queues, depth, threads, buffers: vec![mode], ..options() };
        let device = create(&sim, &disk, shape);
        let id = device.info().id;
        let client = sim.client(id).unwrap();
        let mut watch = device.watch(64);
        let write = |number: u8| ClientOp::Write {
            offset: u64::from(number) * 4096,
            data: vec![number + 1; 4096],
            fua: false,
        };
        for number in 0..32 {
            client.submit(&write(number), None);
        }
        until("all threads answer", || client.in_flight() == 0);
        assert!(client.take().iter().all(|done| done.result == Ok(())));
        for number in 0..32_u8 {
            let read = ClientOp::Read { offset: u64::from(number) * 4096, length: 4096 };
            assert_eq!(client.run(&read).data, vec![number + 1; 4096], "{mode}");
        }
        let mut seen = 0;
        assert_eq!(
            watch.take(|queue, one| seen += u32::from(queue < queues && one.tag.number() < depth)),
            0
        );
        assert_eq!(seen, 64);
        let stats = device.stats();
        assert_eq!(stats.len(), usize::from(queues));
        let sum = |of: fn(&QueueStats) -> u64| stats.iter().map(of).sum::<u64>();
        assert_eq!((sum(|queue| queue.writes), sum(|queue| queue.reads)), (32, 32));
        drop((client, watch));
        device.close().unwrap();
        assert_nothing_left(&sim, id);
    }
}

#[test]
fn threads_that_cannot_be_are_refused_before_the_kernel_is_asked() {
    let _alone = alone();
    let batch = Some(ExchangeMode::Batch);
    for (options, said) in [
        (
            DeviceOptions { threads: Some(0), ..options() },
            "threads is 0; it must be from 1 to 1024",
        ),
        (
            DeviceOptions { threads: Some(2), exchange: batch, ..options() },
            "threads and exchange 'batch' exclude each other",
        ),
        (
            DeviceOptions { rings_apart: true, buffers: vec![BufferMode::Copy], ..options() },
            "ringsApart and buffers 'copy' exclude each other",
        ),
    ] {
        let sim = Sim::new(SimConfig::blocking(23));
        let disk = sim.file(SIZE);
        let error = Device::create(&sim, file(&disk), options).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (Code::InvalidArgument, said));
    }
    let sim = Sim::new(SimConfig { kernel: Kernel::linux_6_12(), ..SimConfig::blocking(24) });
    let disk = sim.file(SIZE);
    let spread = DeviceOptions { threads: Some(2), ..options() };
    let error = Device::create(&sim, file(&disk), spread).unwrap_err();
    assert_eq!(error.code, Code::Unsupported);
    let apart = DeviceOptions { rings_apart: true, ..options() };
    assert_eq!(Device::create(&sim, file(&disk), apart).unwrap_err().code, Code::Unsupported);
    let together = DeviceOptions { threads: Some(1), exchange: None, ..options() };
    create(&sim, &disk, together).close().unwrap();
}

#[test]
fn one_thread_fetches_and_another_does_the_io() {
    let _alone = alone();
    let ways =
        [(ExchangeMode::PerIo, None), (ExchangeMode::PerIo, Some(3)), (ExchangeMode::Batch, None)];
    for ((exchange, threads), split_register) in
        ways.into_iter().flat_map(|way| [false, true].map(|split| (way, split)))
    {
        let sim = Sim::new(SimConfig::blocking(25));
        let disk = sim.file(SIZE);
        let exchange = Some(exchange);
        let shape =
            DeviceOptions { exchange, threads, split_register, rings_apart: true, ..options() };
        let device = create(&sim, &disk, shape);
        let id = device.info().id;
        assert_eq!(device.buffers().mode, BufferMode::Register);
        let client = sim.client(id).unwrap();
        let mut watch = device.watch(64);
        for number in 0..20_u8 {
            let offset = u64::from(number) * 4096;
            let write = ClientOp::Write { offset, data: vec![number + 1; 4096], fua: false };
            assert_eq!(client.run(&write).result, Ok(()));
            let read = ClientOp::Read { offset, length: 4096 };
            assert_eq!(client.run(&read).data, vec![number + 1; 4096]);
        }
        disk.set_trouble(Trouble { reads: Some(libc::ENOSPC), ..Trouble::default() });
        let read = ClientOp::Read { offset: 0, length: 4096 };
        assert_eq!(client.run(&read).result, Err(libc::ENOSPC));
        let mut told = 0;
        assert_eq!(watch.take(|queue, _| told += usize::from(queue < 2)), 0);
        let stats = device.stats();
        let sum = |of: fn(&QueueStats) -> u64| stats.iter().map(of).sum::<u64>();
        assert_eq!((sum(|queue| queue.writes), sum(|queue| queue.reads), told), (20, 20, 41));
        assert_eq!(sum(|queue| queue.errors), 1);
        drop((client, watch));
        device.close().unwrap();
        assert_nothing_left(&sim, id);
    }
}

#[test]
fn a_thread_that_does_the_io_and_dies_takes_the_device_along() {
    #[derive(Debug)]
    struct Mortal(File);
    impl Target for Mortal {
        fn geometry(&self) -> &Geometry {
            self.0.geometry()
        }
        fn files(&self) -> &[i32] {
            self.0.files()
        }
        fn max_steps(&self) -> usize {
            self.0.max_steps()
        }
        fn plan(&self, _: &Request, _: &mut Plan<'_>) -> Result<(), Errno> {
            panic!("killed")
        }
    }
    let _alone = alone();
    let sim = Sim::new(SimConfig::blocking(26));
    let disk = sim.file(SIZE);
    let asked = DeviceOptions { rings_apart: true, ..options() };
    let device = Device::create(&sim, Mortal(file(&disk)), asked).unwrap();
    let id = device.info().id;
    let client = sim.client(id).unwrap();
    assert_eq!(client.run(&ClientOp::Flush).result, Err(libc::EIO));
    drop(client);
    let control = Control::new(sim.clone());
    until("the device is deleted", || control.info(id).is_err());
    assert!(matches!(device.wait(), End::Failed(_)));
    drop(device);
    assert_nothing_left(&sim, id);
}
