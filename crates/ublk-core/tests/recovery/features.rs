//! Features of devices and kernels beside recovery.

use super::*;

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

/// A target with which another process's command takes the mutex of the device before END_USER_RECOVERY.
#[derive(Debug)]
struct Locking {
    file: File,
    sim: Sim,
}

impl Target for Locking {
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
        self.file.plan(request, plan)
    }

    /// Asked after the last command that takes the mutex before END_USER_RECOVERY.
    fn throttles_writes(&self) -> bool {
        self.sim.lock_device(ID, true);
        true
    }
}

#[test]
fn an_end_of_recovery_that_is_late_counts_when_the_device_is_served() {
    let sim = Sim::new(SimConfig::blocking(27));
    let disk = sim.file(SIZE);
    Device::create(&sim, file(&disk), options()).unwrap().quiesce().unwrap();
    let device = thread::scope(|scope| {
        scope.spawn(|| {
            while sim.unanswered() == 0 {
                thread::yield_now();
            }
            sim.lock_device(ID, false);
        });
        let target = Locking { file: file(&disk), sim: sim.clone() };
        // Threads get ready within the limit on a loaded machine, too.
        let limit = Duration::from_millis(400);
        Device::recover(&sim, ID, target, DeviceOptions { limit, ..options() }).unwrap()
    });
    assert_eq!(state(&sim), DeviceState::Live);
    assert_serves(&sim.client(ID).unwrap());
    device.close().unwrap();
    assert_nothing_left(&sim, ID);
}

#[test]
fn a_device_is_written_down_before_it_starts() {
    let sim = Sim::new(SimConfig::blocking(28));
    let disk = sim.file(SIZE);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let look = {
        let (sim, seen) = (sim.clone(), Arc::clone(&seen));
        BeforeStart::new(move |info| {
            let written = sim.record(ID).unwrap().is_some();
            seen.lock().unwrap().push((info.id, info.state, info.size, written));
            assert_eq!(state(&sim), DeviceState::Dead);
        })
    };
    let asked = DeviceOptions { before_start: Some(look), ..options() };
    let device = Device::create(&sim, file(&disk), asked).unwrap();
    device.close().unwrap();
    let expected = (ID, DeviceState::Dead, Some(SIZE as u64), true);
    assert_eq!(*seen.lock().unwrap(), [expected]);
    assert_nothing_left(&sim, ID);
}
