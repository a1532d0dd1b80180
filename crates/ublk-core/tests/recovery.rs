//! Devices that outlive their server, with real threads, on the simulated kernel.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use ublk_core::control::Control;
use ublk_core::device::{
    self, BufferMode, Device, DeviceOptions, DeviceState, End, ExchangeMode, QueueSettings,
    Recovery, StopCheck,
};
use ublk_core::driver::Driver;
use ublk_core::driver::sim::{ClientOp, Kernel, Sim, SimConfig, SimDisk};
use ublk_core::error::{Code, Error};
use ublk_core::target::delay::{Delay, Delays};
use ublk_core::target::file::{File, Promised};
use ublk_core::target::linear::Linear;
use ublk_core::target::native::Native;
use ublk_core::target::null::Null;
use ublk_core::target::striped::Striped;
use ublk_core::target::{Errno, Geometry, Plan, Request, Target};
use ublk_sys::{
    UBLK_F_SHMEM_ZC, UBLK_F_USER_RECOVERY, UBLK_F_USER_RECOVERY_REISSUE, ublksrv_ctrl_dev_info,
};

use common::{SIZE, assert_nothing_left, assert_rules_kept, assert_serves, file};

mod common;

const ID: u32 = 3;

fn options() -> DeviceOptions {
    DeviceOptions { id: Some(ID), recovery: Some(Recovery::Reissue), ..common::options() }
}

/// Every way to talk to a device that the model has, and how many threads share its tags, if any.
fn ways() -> impl Iterator<Item = (BufferMode, ExchangeMode, Option<u16>)> {
    use ExchangeMode::{Batch, PerIo};
    let modes = [BufferMode::Auto, BufferMode::Register, BufferMode::Copy];
    let exchanges = [(PerIo, None), (PerIo, Some(3)), (Batch, None)];
    modes.into_iter().flat_map(move |mode| exchanges.map(|(exchange, of)| (mode, exchange, of)))
}

fn state(sim: &Sim) -> DeviceState {
    device::info(sim.clone(), ID).unwrap().state
}

/// A target whose thread dies of a request when it is told to: as near to a kill as one process
/// can come.
#[derive(Debug)]
struct Mortal {
    file: File,
    dies: Arc<AtomicBool>,
}

impl Target for Mortal {
    fn geometry(&self) -> &Geometry {
        self.file.geometry()
    }

    fn files(&self) -> &[i32] {
        self.file.files()
    }

    fn max_steps(&self) -> usize {
        self.file.max_steps()
    }

    fn plan(&self, request: &Request, plan: &mut Plan<'_>) -> Result<(), Errno> {
        assert!(!self.dies.load(Ordering::Relaxed), "killed");
        self.file.plan(request, plan)
    }

    fn check_size(&self, size: u64) -> ublk_core::error::Result<()> {
        self.file.check_size(size)
    }
}

#[test]
fn a_server_that_dies_under_load_is_replaced_and_no_request_fails() {
    for (mode, exchange, threads) in ways() {
        let sim = Sim::new(SimConfig::blocking(7));
        let disk = sim.file(SIZE);
        let (buffers, dealt) = (vec![mode], DeviceOptions { threads, ..options() });
        let asked = DeviceOptions { buffers, exchange: Some(exchange), ..dealt.clone() };
        let dies = Arc::new(AtomicBool::new(false));
        let mortal = Mortal { file: file(&disk), dies: Arc::clone(&dies) };
        let first = Device::create(&sim, mortal, asked).unwrap();
        let written = AtomicU64::new(0);
        let (over, done) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            for client in 0..3_u64 {
                let (sim, written, over, done) = (&sim, &written, &over, &done);
                scope.spawn(move || {
                    let opened = sim.client(ID).unwrap();
                    for round in 0.. {
                        let offset = (client * 64 + round % 64) * 4096;
                        let data = vec![u8::try_from(round % 251).unwrap(); 4096];
                        let write = ClientOp::Write { offset, data: data.clone(), fua: false };
                        assert_eq!(opened.run(&write).result, Ok(()));
                        let read = opened.run(&ClientOp::Read { offset, length: 4096 });
                        assert_eq!(read.result, Ok(()));
                        assert!(read.data == data, "what was written is read");
                        written.fetch_add(1, Ordering::Relaxed);
                        if over.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                });
            }
            let wait_for = |count| {
                while written.load(Ordering::Relaxed) < count {
                    thread::yield_now();
                }
            };
            wait_for(20);
            dies.store(true, Ordering::Relaxed);
            assert!(matches!(first.wait(), End::Failed(_)), "{mode:?} {exchange:?} {threads:?}");
            assert_eq!(state(&sim), DeviceState::Quiesced);
            let rings_apart = mode == BufferMode::Register;
            let dealt = DeviceOptions { rings_apart, ..dealt };
            let second = Device::recover(&sim, ID, file(&disk), dealt).unwrap();
            assert_eq!((second.buffers().mode, second.exchange()), (mode, exchange));
            assert_eq!((second.info().queues, second.info().depth), (2, 8));
            wait_for(written.load(Ordering::Relaxed) + 20);
            second.quiesce().unwrap();
            assert!(matches!(second.wait(), End::Quiesced));
            let third = Device::recover(&sim, ID, file(&disk), options()).unwrap();
            wait_for(written.load(Ordering::Relaxed) + 20);
            over.store(true, Ordering::Relaxed);
            while done.load(Ordering::Relaxed) < 3 {
                thread::yield_now();
            }
            third.close().unwrap();
        });
        drop(first);
        assert_nothing_left(&sim, ID);
    }
}

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
        let (recovery, limit) = (Some(Recovery::Queue), Duration::from_millis(20));
        let asked = DeviceOptions { recovery, limit, exchange: Some(exchange), ..options() };
        let reads = Duration::from_millis(400);
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
fn a_file_in_place_of_the_block_device_is_no_device() {
    let sim = Sim::new(SimConfig::blocking(25));
    let disk = sim.file(SIZE);
    sim.put_file_in_place_of(ID, true);
    let error = Device::create(&sim, file(&disk), options()).unwrap_err();
    assert!(error.message.contains("/dev/ublkb3 is a plain file"), "{error}");
    assert_nothing_left(&sim, ID);
    sim.put_file_in_place_of(ID, false);
    Device::create(&sim, file(&disk), options()).unwrap().quiesce().unwrap();
    sim.put_file_in_place_of(ID, true);
    let error = Device::recover(&sim, ID, file(&disk), options()).unwrap_err();
    assert!(error.message.contains("/dev/ublkb3 is a plain file"), "{error}");
    assert_ne!(state(&sim), DeviceState::Live, "nobody is told that it is served");
    sim.put_file_in_place_of(ID, false);
    Device::recover(&sim, ID, file(&disk), options()).unwrap().close().unwrap();
    assert_nothing_left(&sim, ID);
}

#[test]
fn where_nothing_makes_nodes_a_device_is_refused_at_once() {
    let sim = Sim::new(SimConfig::blocking(26));
    let disk = sim.file(SIZE);
    sim.make_no_nodes();
    let error = Device::create(&sim, file(&disk), options()).unwrap_err();
    assert_eq!((error.code, error.errno), (Code::Kernel, Some(libc::EPERM)), "and no time-out");
    assert!(error.message.contains("/dev/ublkb3 is missing"), "{error}");
    assert_nothing_left(&sim, ID);
}

/// An old kernel holds the mutex of the device while START_DEV reads the disk (trap 65). With `reissue` the
/// read waits for the next server, and START_DEV for the read; each command ends at its time limit.
#[test]
fn a_server_that_dies_while_an_old_kernel_starts_its_device_holds_up_no_command() {
    for recovery in [Recovery::Queue, Recovery::Reissue] {
        let kernel = Kernel::linux_6_12();
        let sim = Sim::new(SimConfig { kernel, partition_scan: true, ..SimConfig::blocking(22) });
        let disk = sim.file(SIZE);
        let mortal = Mortal { file: file(&disk), dies: Arc::new(AtomicBool::new(true)) };
        let limit = Duration::from_millis(300);
        let asked = DeviceOptions { recovery: Some(recovery), limit, queues: 1, ..options() };
        let error = Device::create(&sim, mortal, asked).unwrap_err();
        assert!(error.message.starts_with("a queue of the device is lost"), "{error}");
        if recovery == Recovery::Queue {
            assert_nothing_left(&sim, ID);
            continue;
        }
        assert_eq!(state(&sim), DeviceState::Live);
        let control = Control::new(sim.clone());
        let ended = [
            control.stop(ID, limit),
            control.delete(ID, limit),
            control.params_within(ID, limit).map(drop),
            Device::recover(&sim, ID, file(&disk), DeviceOptions { limit, ..options() }).map(drop),
        ];
        for (at, ended) in ended.into_iter().enumerate() {
            let error = ended.unwrap_err();
            assert_eq!(error.code, Code::Timeout, "{at}: {error}");
        }
        assert_eq!(state(&sim), DeviceState::Live);
    }
}

#[test]
fn the_new_server_may_wait_for_the_old_one() {
    let sim = Sim::new(SimConfig::blocking(9));
    let disk = sim.file(SIZE);
    let first = Device::create(&sim, file(&disk), options()).unwrap();
    thread::scope(|scope| {
        let second = scope.spawn(|| Device::recover(&sim, ID, file(&disk), options()));
        thread::sleep(Duration::from_millis(20));
        first.quiesce().unwrap();
        second.join().unwrap().unwrap().close().unwrap();
    });
    assert_rules_kept(&sim);
}

#[test]
fn what_cannot_be_recovered_is_refused_and_what_can_waits_on() {
    let sim = Sim::new(SimConfig::blocking(10));
    let disk = sim.file(SIZE);
    let brief = DeviceOptions { limit: Duration::from_millis(50), ..options() };
    let code = |result: Result<Device<Sim>, ublk_core::error::Error>| result.unwrap_err().code;
    assert_eq!(code(Device::recover(&sim, ID, file(&disk), options())), Code::NoDevice);

    let mortal = DeviceOptions { recovery: None, ..options() };
    let device = Device::create(&sim, file(&disk), mortal).unwrap();
    let refused = Device::recover(&sim, ID, file(&disk), options());
    assert_eq!(code(refused), Code::InvalidArgument);
    assert_eq!(device.quiesce().unwrap_err().code, Code::InvalidArgument);
    device.close().unwrap();

    let device = Device::create(&sim, file(&disk), options()).unwrap();
    let error = Device::recover(&sim, ID, file(&disk), brief.clone()).unwrap_err();
    assert_eq!(error.code, Code::Busy);
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    device.quiesce().unwrap();
    let other = File::borrowed(disk.fd(), Geometry::new(SIZE as u64 / 2));
    let error = Device::recover(&sim, ID, other, brief).unwrap_err();
    assert_eq!(error.code, Code::BadBackend);
    assert!(error.to_string().contains("size was 1048576 and is 524288"), "{error}");
    Device::recover(&sim, ID, file(&disk), options()).unwrap().close().unwrap();
    assert_rules_kept(&sim);
}

fn on(disk: &SimDisk, size: usize) -> Native {
    Native::File(File::borrowed(disk.fd(), Geometry::new(size as u64)))
}

/// The kernel keeps the width of a stripe, and nothing of what else is here.
#[test]
fn a_device_whose_bytes_would_lie_elsewhere_is_not_recovered() {
    let sim = Sim::new(SimConfig::blocking(18));
    let disks: Vec<SimDisk> = (0..4).map(|_| sim.file(SIZE)).collect();
    let striped = |chunk, order: &[usize]| {
        let targets = order.iter().map(|&at| on(&disks[at], SIZE)).collect();
        Native::Striped(Striped::new(targets, chunk).unwrap())
    };
    let linear = |sizes: &[usize]| {
        let targets = sizes.iter().zip(&disks).map(|(&size, disk)| on(disk, size)).collect();
        Native::Linear(Linear::new(targets).unwrap())
    };
    type Case<'a> = (Native, Vec<(Native, &'a str)>, Native);
    let cases: [Case<'_>; 3] = [
        (
            striped(4096, &[0, 1, 2, 3]),
            vec![
                (striped(8192, &[0, 1, 2, 3]), "chunk was 16384 and is 32768"),
                // As wide, so that the kernel sees no difference.
                (striped(8192, &[0, 1]), "its layout was striped(chunks of 4096"),
                (striped(4096, &[1, 0, 2, 3]), "its file 0 was file 1"),
                (linear(&[SIZE; 4]), "chunk was 16384 and is 0"),
            ],
            striped(4096, &[0, 1, 2, 3]),
        ),
        (
            linear(&[SIZE / 2, SIZE]),
            vec![
                (linear(&[SIZE, SIZE / 2]), "file at 524288) and is linear(file at 0, file at"),
                (linear(&[SIZE / 4, SIZE, SIZE]), "its layout was linear"),
                (on(&disks[3], 2 * SIZE), "its layout was linear"),
            ],
            // What only makes the last one longer changes no place.
            linear(&[SIZE / 2, SIZE * 2]),
        ),
        (
            on(&disks[0], SIZE),
            vec![(Native::Null(Null::new(SIZE as u64)), "its layout was file and is null")],
            // It has moved, and grown.
            on(&disks[1], SIZE * 2),
        ),
    ];
    for (first, others, same) in cases {
        let size = first.geometry().size;
        Device::create(&sim, first, options()).unwrap().quiesce().unwrap();
        for (other, said) in others {
            let error = Device::recover(&sim, ID, other, options()).unwrap_err();
            assert_eq!(error.code, Code::BadBackend, "{error}");
            assert!(error.message.contains(said), "{error}");
        }
        let again = Device::recover(&sim, ID, same, options()).unwrap();
        assert_eq!(again.info().size, Some(size), "the device keeps its size");
        again.close().unwrap();
        assert_eq!(sim.record(ID).unwrap(), None);
    }
    assert_nothing_left(&sim, ID);
}

#[test]
fn what_a_later_version_has_written_down_is_neither_trusted_nor_removed() {
    let sim = Sim::new(SimConfig::blocking(19));
    let disk = sim.file(SIZE);
    Device::create(&sim, file(&disk), options()).unwrap().quiesce().unwrap();
    let ours = sim.record(ID).unwrap().unwrap();
    sim.keep_record(ID, "ublk layout 2\n").unwrap();
    let error = Device::recover(&sim, ID, file(&disk), options()).unwrap_err();
    assert_eq!(error.code, Code::BadBackend);
    assert!(error.to_string().contains("a later version"), "{error}");
    device::delete(&sim, ID, false).unwrap();
    assert!(sim.record(ID).unwrap().is_some());

    // One that another device has left is nobody's.
    sim.keep_record(ID, &ours).unwrap();
    let plain = DeviceOptions { recovery: None, ..options() };
    drop(Device::create(&sim, file(&disk), plain).unwrap());
    assert_eq!(sim.record(ID).unwrap(), None, "the number was this device's");
    Device::create(&sim, file(&disk), options()).unwrap().quiesce().unwrap();
    sim.forget_record(ID);
    let again = Device::recover(&sim, ID, file(&disk), options()).unwrap();
    assert!(sim.record(ID).unwrap().is_some(), "a device without a record has one from then on");
    again.close().unwrap();
}

/// A server that was killed keeps its files until its last I/O has ended.
#[test]
fn what_the_old_server_still_has_is_waited_for() {
    let sim = Sim::new(SimConfig::blocking(20));
    let disk = sim.file(SIZE);
    let busy = || Error::new(Code::Busy, "cannot lock the image");
    let first = Device::create(&sim, file(&disk), options()).unwrap();
    let tries = AtomicU64::new(0);
    thread::scope(|scope| {
        let second = scope.spawn(|| {
            let open = |promised: Promised| {
                assert_eq!(promised.logical_block, 512);
                // Twice while the old server is there, or has gone.
                match tries.fetch_add(1, Ordering::Relaxed) {
                    0..3 => Err(busy()),
                    _ => Ok(file(&disk)),
                }
            };
            Device::recover_opening(&sim, ID, open, options())
        });
        while tries.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        first.quiesce().unwrap();
        second.join().unwrap().unwrap().quiesce().unwrap();
    });
    assert_eq!(tries.load(Ordering::Relaxed), 4);

    let brief = DeviceOptions { limit: Duration::from_millis(50), ..options() };
    let never = |_| Err::<File, _>(busy());
    let error = Device::recover_opening(&sim, ID, never, brief.clone()).unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (Code::Busy, "cannot lock the image"));
    let missing = |_| Err::<File, _>(Error::new(Code::NoBackend, "cannot open the image"));
    let error = Device::recover_opening(&sim, ID, missing, options()).unwrap_err();
    assert_eq!(error.code, Code::NoBackend, "there is nothing to wait for");
    assert_eq!(state(&sim), DeviceState::Quiesced, "it waits on");
    Device::recover(&sim, ID, file(&disk), options()).unwrap().close().unwrap();
    assert_nothing_left(&sim, ID);
}

/// We make no such device, but another program may.
#[test]
fn a_device_that_shares_memory_is_not_recovered() {
    let sim = Sim::new(SimConfig::blocking(17));
    let disk = sim.file(SIZE);
    let flags = UBLK_F_USER_RECOVERY | UBLK_F_USER_RECOVERY_REISSUE | UBLK_F_SHMEM_ZC;
    let wanted = ublksrv_ctrl_dev_info {
        nr_hw_queues: 1,
        queue_depth: 8,
        max_io_buf_bytes: 64 << 10,
        dev_id: ID,
        flags,
        ..Default::default()
    };
    let added = Control::new(sim.clone()).add(&wanted).unwrap();
    assert_eq!(added.flags & flags, flags);
    let error = Device::recover(&sim, ID, file(&disk), options()).unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
    assert!(error.message.contains("it shares memory"), "{error}");
    assert_eq!(state(&sim), DeviceState::Dead, "nothing was asked of the driver");
    device::delete(&sim, ID, false).unwrap();
    assert_nothing_left(&sim, ID);
}

#[test]
fn a_kernel_that_lacks_a_kind_of_recovery_says_so_before_anything_is_added() {
    let kernel = Kernel::linux_6_12();
    let sim = Sim::new(SimConfig { kernel, ..SimConfig::blocking(11) });
    let disk = sim.file(SIZE);
    let fail = DeviceOptions { recovery: Some(Recovery::Fail), ..options() };
    let error = Device::create(&sim, file(&disk), fail).unwrap_err();
    assert_eq!(error.code, Code::Unsupported);
    assert!(error.to_string().contains("6.13"), "{error}");
    let device = Device::create(&sim, file(&disk), options()).unwrap();
    assert_eq!(device.info().recovery, Some(Recovery::Reissue));
    let error = device.resize(4096).unwrap_err();
    assert_eq!(error.code, Code::Unsupported);
    assert!(error.to_string().contains("create it anew"), "{error}");
    assert_eq!(device.quiesce().unwrap_err().code, Code::Unsupported);
    assert_eq!(device::info(sim.clone(), ID).unwrap().state, DeviceState::Live);
    device.close().unwrap();
    let queue = DeviceOptions { recovery: Some(Recovery::Queue), ..options() };
    let device = Device::create(&sim, file(&disk), queue).unwrap();
    assert_eq!(device.quiesce().unwrap_err().code, Code::Unsupported);
}

#[test]
fn a_device_changes_its_size_while_it_is_used() {
    let sim = Sim::new(SimConfig::blocking(12));
    let disk = sim.file(SIZE);
    let device = Device::create(&sim, file(&disk), options()).unwrap();
    let client = sim.client(ID).unwrap();
    let beyond = ClientOp::Read { offset: SIZE as u64, length: 4096 };
    assert!(client.run(&beyond).result.is_err());
    disk.resize(SIZE * 2);
    assert_eq!(device.resize(SIZE as u64 * 2).unwrap().size, Some(SIZE as u64 * 2));
    assert_eq!(client.run(&beyond).result, Ok(()));
    for size in [0, 511, 513] {
        let error = device.resize(size).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument, "{size}");
    }
    let from_outside = |size, force| device::resize(sim.clone(), ID, size as u64, force);
    let error = from_outside(SIZE * 3, false).unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
    assert!(error.to_string().contains("--force"), "{error}");
    assert_eq!(from_outside(SIZE * 3, true).unwrap().size, Some(SIZE as u64 * 3));
    assert_eq!(from_outside(SIZE * 2, false).unwrap().size, Some(SIZE as u64 * 2));
    device.quiesce().unwrap();
    assert_eq!(from_outside(4096, false).unwrap_err().code, Code::Closed);
    assert_eq!(device::resize(sim.clone(), 9, 4096, false).unwrap_err().code, Code::NoDevice);
    let error = Device::recover(&sim, ID, file(&disk), options()).unwrap_err();
    assert_eq!(error.code, Code::BadBackend, "the target is of the old size");
}

#[test]
fn a_device_that_somebody_has_open_is_stopped_by_force_only() {
    for (kernel, how) in
        [(Kernel::linux_7_3(), StopCheck::Openers), (Kernel::linux_6_12(), StopCheck::Holders)]
    {
        let sim = Sim::new(SimConfig { kernel, ..SimConfig::blocking(13) });
        let disk = sim.file(SIZE);
        let create = || Device::create(&sim, file(&disk), options()).unwrap();
        let device = create();
        let client = sim.client(ID).unwrap();
        let error = device::stop(&sim, ID, false).unwrap_err();
        assert_eq!(error.code, Code::Busy);
        assert!(error.to_string().contains("--force"), "{error}");
        assert_eq!(client.run(&ClientOp::Flush).result, Ok(()), "still there");
        assert_eq!(device::stop(&sim, ID, true).unwrap(), StopCheck::Nothing);
        assert!(matches!(device.wait(), End::Stopped));
        drop(client);
        let device = create();
        assert_eq!(device::stop(&sim, ID, false).unwrap(), how);
        assert!(matches!(device.wait(), End::Stopped));
        assert_eq!(device::stop(&sim, ID, false).unwrap_err().code, Code::NoDevice);
    }
}

#[test]
fn a_user_who_is_not_root_serves_a_device_that_copies() {
    let kernel = Kernel { root: false, ..Kernel::linux_7_3() };
    let sim = Sim::new(SimConfig { kernel, ..SimConfig::blocking(14) });
    let disk = sim.file(SIZE);
    let plain = DeviceOptions { recovery: None, ..options() };
    let error = Device::create(&sim, file(&disk), plain.clone()).unwrap_err();
    assert_eq!(error.code, Code::Permission);
    let asked = DeviceOptions { unprivileged: true, ..plain };
    let device = Device::create(&sim, file(&disk), asked.clone()).unwrap();
    assert_eq!(device.buffers().mode, BufferMode::Copy);
    assert_eq!((device.info().owner_uid, device.info().owner_gid), (1000, 1000));
    let client = sim.client(ID).unwrap();
    assert_serves(&client);
    drop(client);
    device.close().unwrap();
    assert_eq!(device::info(sim.clone(), ID).unwrap_err().code, Code::NoDevice);
    let both = DeviceOptions { recovery: Some(Recovery::Queue), ..asked };
    let error = Device::create(&sim, file(&disk), both).unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
    assert!(error.to_string().contains("unprivileged and recovery"), "{error}");
}

#[test]
fn the_oldest_kernels_are_served_with_bare_numbers() {
    let kernel = Kernel::linux_6_1();
    let sim = Sim::new(SimConfig { kernel, ..SimConfig::blocking(15) });
    let disk = sim.file(SIZE);
    let plain = DeviceOptions { recovery: None, ..options() };
    let device = Device::create(&sim, file(&disk), plain).unwrap();
    let client = sim.client(ID).unwrap();
    assert_serves(&client);
    assert_eq!(disk.contents()[..8192], [1; 8192]);
    drop(client);
    device.close().unwrap();
    assert_rules_kept(&sim);
}

#[test]
fn descriptors_lie_as_far_apart_as_was_asked_for() {
    let sim = Sim::new(SimConfig::blocking(16));
    let disk = sim.file(SIZE);
    for size in [24, 64, 256] {
        let asked = DeviceOptions { io_desc_size: Some(size), ..options() };
        let device = Device::create(&sim, file(&disk), asked).unwrap();
        let client = sim.client(ID).unwrap();
        let written = Mutex::new(0);
        thread::scope(|scope| {
            for at in 0..8_u8 {
                let (client, written) = (&client, &written);
                scope.spawn(move || {
                    let data = vec![at; 4096];
                    let write = ClientOp::Write { offset: u64::from(at) * 4096, data, fua: false };
                    assert_eq!(client.run(&write).result, Ok(()));
                    *written.lock().unwrap() += 1;
                });
            }
        });
        let contents = disk.contents();
        assert!((0..8).all(|at| contents[at * 4096] == u8::try_from(at).unwrap()));
        drop(client);
        device.close().unwrap();
    }
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
