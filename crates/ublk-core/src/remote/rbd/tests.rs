//! Devices on RBD images, on the simulated kernel, with a librbd of this process.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::{Rbd, RbdImage, RbdOptions};
use crate::control::Control;
use crate::device::{BufferMode, Device, DeviceOptions};
use crate::driver::sim::{Client, ClientOp, Sim, SimConfig};
use crate::error::{Code, Error};
use crate::targets::{OnRemote, Presentation, Target, rbd};

mod fake;

use fake::{API, Did, Fake, Manners, lock};

fn image(cluster: &str) -> RbdImage {
    let (name, pool) = ("vm".into(), "rbd".into());
    RbdImage { name, pool, cluster: Some(cluster.into()), ..RbdImage::default() }
}

fn open(cluster: &str) -> Result<OnRemote, Error> {
    let rbd = Rbd::open_with(&API, image(cluster), RbdOptions::default())?;
    rbd::serve(rbd, Presentation::default())
}

fn create(sim: &Sim, target: OnRemote, queues: u16) -> (Device<Sim>, Client) {
    let options = DeviceOptions {
        queues,
        depth: 8,
        max_io_bytes: 64 << 10,
        limit: Duration::from_secs(20),
        ..DeviceOptions::default()
    };
    let device = Device::create(sim, target, options).unwrap();
    let client = sim.client(device.info().id).unwrap();
    (device, client)
}

/// Closes the device: the image is closed by then.
fn end(sim: &Sim, fake: &Fake, device: Device<Sim>, client: Client) {
    drop(client);
    device.close().unwrap();
    let id = device.info().id;
    drop(device);
    assert_eq!(fake.handles.load(Ordering::SeqCst), 0);
    assert_eq!(Control::new(sim.clone()).info(id).unwrap_err().code, Code::NoDevice);
    sim.audit();
    assert_eq!(sim.violations().iter().map(ToString::to_string).collect::<Vec<_>>(), [""; 0]);
}

fn read(client: &Client, offset: u64, length: u32) -> Result<Vec<u8>, i32> {
    let done = client.run(&ClientOp::Read { offset, length });
    done.result.map(|()| done.data)
}

fn write(client: &Client, offset: u64, data: Vec<u8>, fua: bool) -> Result<(), i32> {
    client.run(&ClientOp::Write { offset, data, fua }).result
}

#[test]
fn librbd_carries_out_every_operation() {
    let fake = Fake::new("operations", Manners::default());
    let sim = Sim::new(SimConfig::blocking(1));
    let (device, client) = create(&sim, open("operations").unwrap(), 1);
    assert_eq!(device.buffers().mode, BufferMode::Copy);
    assert_eq!(write(&client, 0, vec![1; 8192], false), Ok(()));
    assert_eq!(read(&client, 0, 8192), Ok(vec![1; 8192]));
    let zeroes = |no_unmap| ClientOp::WriteZeroes { offset: 4096, length: 4096, no_unmap };
    assert_eq!(client.run(&zeroes(true)).result, Ok(()));
    assert_eq!(client.run(&zeroes(false)).result, Ok(()));
    assert_eq!(client.run(&ClientOp::Discard { offset: 8192, length: 4096 }).result, Ok(()));
    assert_eq!(client.run(&ClientOp::Flush).result, Ok(()));
    assert_eq!(write(&client, 0, vec![7; 512], true), Ok(()), "a write and a flush");
    use Did::{Discard, Flush, Read, Write, Zeroes};
    assert_eq!(*lock(&fake.log), [Write, Read, Zeroes(1), Zeroes(0), Discard, Flush, Write, Flush]);
    assert_eq!(lock(&fake.disk)[..512], [7; 512]);
    assert_eq!(lock(&fake.disk)[4096..8192], [0; 4096]);
    end(&sim, &fake, device, client);
}

#[test]
fn operations_end_in_any_order_on_any_queue() {
    for seed in 0..8 {
        let name = format!("order {seed}");
        let fake = Fake::new(&name, Manners { seed, ..Manners::default() });
        let sim = Sim::new(SimConfig::blocking(seed));
        let (device, client) = create(&sim, open(&name).unwrap(), 2);
        let place = |number: usize| number as u64 * (32 << 10);
        let data = |number: usize| vec![u8::try_from(number).unwrap(); 32 << 10];
        let run = |ops: Vec<ClientOp>| {
            let transfers = client.begin(&ops, false);
            let mut ends = vec![None; ops.len()];
            client.finish(transfers, |ended| {
                ended.into_iter().for_each(|(at, end)| ends[at] = Some(end));
            });
            ends
        };
        let writes = (0..32).map(|number| {
            let (offset, data) = (place(number), data(number));
            ClientOp::Write { offset, data, fua: number % 3 == 0 }
        });
        assert!(run(writes.collect()).iter().all(|end| matches!(end, Some(Ok(_)))));
        let reads =
            (0..32).map(|number| ClientOp::Read { offset: place(number), length: 32 << 10 });
        for (number, end) in run(reads.collect()).into_iter().enumerate() {
            assert!(end.unwrap().unwrap() == data(number), "seed {seed}: {number}");
        }
        end(&sim, &fake, device, client);
    }
}

#[test]
fn errors_of_the_cluster_are_errors_of_requests() {
    let fake = Fake::new("errors", Manners::default());
    let sim = Sim::new(SimConfig::blocking(2));
    let (device, client) = create(&sim, open("errors").unwrap(), 1);
    fake.fail(Did::Write, -i64::from(libc::ENOSPC));
    assert_eq!(write(&client, 0, vec![1; 512], false), Err(libc::ENOSPC));
    fake.fail(Did::Read, 512);
    assert_eq!(read(&client, 0, 1024), Err(libc::EIO), "an image that has become shorter");
    lock(&fake.refusals).push_back(-libc::ENOSPC);
    assert_eq!(read(&client, 0, 1024), Err(libc::ENOSPC), "librbd does not even begin");
    assert_eq!(read(&client, 0, 1024), Ok(vec![0xee; 1024]));
    end(&sim, &fake, device, client);
}

#[test]
fn after_a_failed_flush_no_flush_succeeds() {
    let fake = Fake::new("flush", Manners::default());
    let sim = Sim::new(SimConfig::blocking(3));
    let (device, client) = create(&sim, open("flush").unwrap(), 1);
    assert_eq!(client.run(&ClientOp::Flush).result, Ok(()));
    fake.fail(Did::Flush, -i64::from(libc::ESHUTDOWN));
    // The write itself succeeds.
    assert!(write(&client, 0, vec![1; 512], true).is_err());
    assert_eq!(client.run(&ClientOp::Flush).result, Err(libc::EIO));
    assert_eq!(write(&client, 0, vec![1; 512], true), Err(libc::EIO));
    assert_eq!(write(&client, 0, vec![1; 512], false), Ok(()));
    end(&sim, &fake, device, client);
}

#[test]
fn facts_of_the_image_become_the_device() {
    let size = (1 << 20) + 100;
    let fake = Fake::new("facts", Manners { size, ..Manners::default() });
    let target = open("facts").unwrap();
    let geometry = *target.geometry();
    assert_eq!(geometry.validate(), Ok(()));
    assert_eq!((geometry.size, geometry.logical_block, geometry.io_opt), (1 << 20, 512, 4 << 20));
    assert_eq!(geometry.chunk, 0, "any layer may lie above");
    assert_eq!(geometry.discard.unwrap().granularity, 65_536);
    assert!(geometry.volatile_cache && geometry.fua && !geometry.read_only);
    let layout = "rbd of cluster F, pool 7, namespace '', image 100d";
    assert_eq!(target.layout().as_deref(), Some(layout));
    assert_eq!(target.check_size(1 << 20).map_err(|error| error.code), Ok(()));
    let error = target.check_size(2 << 20).unwrap_err();
    assert_eq!((error.code, error.hint.is_some()), (Code::BadBackend, true));
    fake.size.store(2 << 20, Ordering::SeqCst);
    assert!(target.check_size(2 << 20).is_ok(), "the image has been enlarged");

    let stripe = (64 << 10, 3);
    Fake::new("stripes", Manners { stripe, granularity: "0", ..Manners::default() });
    let geometry = *open("stripes").unwrap().geometry();
    assert_eq!((geometry.io_opt, geometry.discard.unwrap().granularity), (4 << 20, 512));

    Fake::new("tiny", Manners { size: 100, ..Manners::default() });
    assert!(open("tiny").unwrap_err().message.ends_with("holds 100 bytes, less than a block"));
}

#[test]
fn limits_of_the_configuration_stay_unless_others_are_asked_for() {
    let seconds = |name: &str, own_limit, asked: Option<u64>| {
        let fake = Fake::new(name, Manners { own_limit, ..Manners::default() });
        let request_timeout = asked.map(Duration::from_secs);
        let connect_timeout = Duration::from_secs(30);
        let options = RbdOptions { request_timeout, connect_timeout, ..RbdOptions::default() };
        drop(Rbd::open_with(&API, image(name), options).unwrap());
        assert_eq!(fake.handles.load(Ordering::SeqCst), 0);
        let settings = lock(&fake.settings);
        assert_eq!(settings["client_mount_timeout"], "30");
        assert_eq!(
            (settings["user"].as_str(), settings["locked"].as_str()),
            ("client.admin", "yes")
        );
        settings.get("rados_osd_op_timeout").cloned()
    };
    assert_eq!(seconds("limit 1", "0", None).as_deref(), Some("300"));
    assert_eq!(seconds("limit 2", "45", None), None);
    assert_eq!(seconds("limit 3", "45", Some(9)).as_deref(), Some("9"));
}

#[test]
fn an_osd_that_is_back_is_noticed_soon_unless_the_configuration_says_otherwise() {
    let settings = |name: &str, objecter_timeout| {
        let fake = Fake::new(name, Manners { objecter_timeout, ..Manners::default() });
        drop(Rbd::open_with(&API, image(name), RbdOptions::default()).unwrap());
        let settings = lock(&fake.settings);
        ["objecter_tick_interval", "objecter_timeout"].map(|name| settings.get(name).cloned())
    };
    assert_eq!(settings("notice 1", "10.000000"), [Some("1".into()), Some("2".into())]);
    assert_eq!(settings("notice 2", "30"), [Some("1".into()), None]);
}

#[test]
fn only_writers_of_images_with_the_feature_take_the_lock() {
    let locks = |name: &str, features, options| {
        let fake = Fake::new(name, Manners { features, ..Manners::default() });
        drop(Rbd::open_with(&API, image(name), options).unwrap());
        lock(&fake.settings).contains_key("locked")
    };
    let default = RbdOptions::default();
    assert!(locks("lock 1", 4, default));
    assert!(!locks("lock 2", 1, default));
    assert!(!locks("lock 3", 4, RbdOptions { lock: false, ..default }));
    assert!(!locks("lock 4", 4, RbdOptions { read_only: true, ..default }));
}

#[test]
fn what_is_missing_is_named_and_nothing_stays_open() {
    type Change = fn(&mut Manners);
    let cases: [(Change, Code, &str); 10] = [
        (
            |m| m.conf = -2,
            Code::NoBackend,
            "Ceph's configuration /etc/ceph/wrong 0.conf cannot be read",
        ),
        (|m| m.connect = -110, Code::Timeout, "the monitors of the cluster do not answer"),
        (|m| m.connect = -13, Code::Permission, "the cluster refuses client.admin"),
        (|m| m.connect = -2, Code::NoBackend, "no key of client.admin was found"),
        (|m| m.pool = -2, Code::NoBackend, "the cluster has no pool 'rbd'"),
        (|m| m.image = -2, Code::NoBackend, "rbd has no image 'vm'"),
        (|m| m.image = -1, Code::Permission, "client.admin may not open the image"),
        (|m| m.lock = -30, Code::Busy, "another client holds the exclusive lock"),
        (|m| m.lock = -5, Code::BadBackend, "no exclusive lock"),
        (|m| m.lock = -110, Code::Timeout, "OSDs do not answer"),
    ];
    for (number, (change, code, words)) in cases.into_iter().enumerate() {
        let name = format!("wrong {number}");
        let mut manners = Manners::default();
        change(&mut manners);
        let fake = Fake::new(&name, manners);
        let error = open(&name).unwrap_err();
        assert_eq!(error.code, code, "{error}");
        assert!(error.message.starts_with("cannot open rbd:rbd/vm: "), "{error}");
        assert!(error.message.contains(words), "{error}");
        assert_eq!(fake.handles.load(Ordering::SeqCst), 0, "{words}");
    }
    for (number, image_result, words) in
        [(0, 0, "the image has no snapshot 'monday'"), (1, -2, "rbd has no image 'vm'")]
    {
        let name = format!("snapshot {number}");
        let manners = Manners { image: image_result, snapshot: -2, ..Manners::default() };
        let fake = Fake::new(&name, manners);
        let image = RbdImage { snapshot: Some("monday".into()), ..image(&name) };
        let error = Rbd::open_with(&API, image, RbdOptions::default()).unwrap_err();
        assert!(error.message.contains(words), "{error}");
        assert_eq!(fake.handles.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn an_image_that_opens_too_late_is_closed() {
    let fake = Fake::new("late", Manners::default());
    let options =
        RbdOptions { connect_timeout: Duration::from_millis(50), ..RbdOptions::default() };
    let held = lock(&fake.gate);
    let error = Rbd::open_with(&API, image("late"), options).unwrap_err();
    assert_eq!(error.code, Code::Timeout);
    assert!(error.message.contains("OSDs do not answer, within 50 ms"), "{error}");
    assert!(fake.handles.load(Ordering::SeqCst) > 0, "a thread is still at work");
    drop(held);
    let deadline = Instant::now() + Duration::from_secs(20);
    while fake.handles.load(Ordering::SeqCst) > 0 {
        assert!(Instant::now() < deadline, "the image stays open");
        thread::yield_now();
    }
    assert_eq!(Arc::strong_count(&fake), 2, "here, and in the list");
}
