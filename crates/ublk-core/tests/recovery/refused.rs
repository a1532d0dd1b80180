//! Devices that cannot be recovered, and bytes that would lie elsewhere.

use super::*;

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

#[test]
fn a_next_server_is_checked_while_the_last_one_serves() {
    let sim = Sim::new(SimConfig::blocking(10));
    let disk = sim.file(SIZE);
    let device = Device::create(&sim, file(&disk), options()).unwrap();
    assert!(Device::check_recovery(&sim, ID, |_| Ok(file(&disk)), &options()).unwrap());
    let half = |_| Ok(File::borrowed(disk.fd(), Geometry::new(SIZE as u64 / 2)));
    let refused = Device::check_recovery(&sim, ID, half, &options());
    assert_eq!(refused.unwrap_err().code, Code::BadBackend);
    let taken = |_| Err::<File, _>(Error::new(Code::Busy, "the old server has the file"));
    assert!(!Device::check_recovery(&sim, ID, taken, &options()).unwrap());
    assert_eq!(state(&sim), DeviceState::Live);
    device.close().unwrap();
    assert_rules_kept(&sim);
}

#[test]
fn a_device_that_was_stopped_is_refused_at_once() {
    let sim = Sim::new(SimConfig::blocking(10));
    let disk = sim.file(SIZE);
    let device = Device::create(&sim, file(&disk), options()).unwrap();
    device.quiesce().unwrap();
    Control::new(sim.clone()).stop(ID, Duration::from_secs(20)).unwrap();
    let asked = DeviceOptions { limit: Duration::from_secs(60), ..options() };
    let error = Device::recover(&sim, ID, file(&disk), asked).unwrap_err();
    assert_eq!((error.code, state(&sim)), (Code::Closed, DeviceState::Dead));
    assert!(error.message.contains("was stopped"), "{error}");
}

fn on(disk: &SimDisk, size: usize) -> Native {
    Native::File(File::borrowed(disk.fd(), Geometry::new(size as u64)))
}

/// The kernel keeps the width of a stripe, and nothing else of these layouts.
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
                // A stripe of the same width, so that the kernel sees no difference.
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
            // A longer last file changes no place.
            linear(&[SIZE / 2, SIZE * 2]),
        ),
        (
            on(&disks[0], SIZE),
            vec![(Native::Null(Null::new(SIZE as u64)), "its layout was file and is null")],
            // The second file has moved, and grown.
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

    // The layout of another device, which that device has left behind, belongs to no device.
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

/// A killed server keeps the files until the server's last I/O has ended.
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
                // Two tries while the old server lives, or after the end of the old server.
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

/// This package makes no such device, but another program may.
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
