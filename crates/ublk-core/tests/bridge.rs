//! Devices whose requests are answered beyond a bridge, with real threads on the simulated kernel.
#![expect(clippy::cast_possible_truncation, reason = "small numbers")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ublk_core::bridge::layout::KIND_STEPPED;
use ublk_core::bridge::{
    Asked, Bridge, BridgeOptions, Peer, Piece, Region, Report, ReportKind, TICK,
};
use ublk_core::control::Control;
use ublk_core::device::{BufferMode, Device, DeviceOptions, ExchangeMode};
use ublk_core::driver::sim::{Client, ClientOp, Sim, SimConfig, SimDisk, Trouble};
use ublk_core::error::Code;
use ublk_core::stats::QueueStats;
use ublk_core::target::file::File;
use ublk_core::target::handler::{Handler, HandlerOptions};
use ublk_core::target::native::Native;
use ublk_core::target::{Geometry, Op};

const SIZE: usize = 1 << 20;
const DEPTH: u16 = 8;
const READ: u8 = 0;
const WRITE: u8 = 1;

const MODES: [(BufferMode, bool); 4] = [
    (BufferMode::Auto, false),
    (BufferMode::Register, false),
    (BufferMode::Register, true),
    (BufferMode::Copy, false),
];

fn bridge(timeout: Duration) -> Arc<Bridge> {
    let options =
        BridgeOptions { queues: 2, depth: DEPTH, max_pieces: 4, timeout, grace: TICK * 2 };
    Arc::new(Bridge::unwatched(&options).unwrap())
}

fn target(bridge: &Arc<Bridge>, ops: &[Op], disks: &[SimDisk]) -> Handler {
    let geometry = Geometry { volatile_cache: true, fua: true, ..Geometry::new(SIZE as u64) };
    let backends = disks.iter().map(|disk| Native::File(File::borrowed(disk.fd(), geometry)));
    Handler::new(HandlerOptions {
        size: SIZE as u64,
        logical_block: None,
        ops: ops.to_vec(),
        fua: None,
        read_only: false,
        zones: None,
        backends: backends.collect(),
        bridge: Arc::clone(bridge),
    })
    .unwrap()
}

fn options(buffers: BufferMode) -> DeviceOptions {
    DeviceOptions {
        queues: 2,
        depth: DEPTH,
        max_io_bytes: 64 << 10,
        buffers: vec![buffers],
        limit: Duration::from_secs(20),
        ..DeviceOptions::default()
    }
}

/// Answers all queues' requests, each queue on a thread of its own, until it is dropped.
struct Answering {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Answering {
    fn start(
        bridge: &Arc<Bridge>,
        answer: impl Fn(&mut Peer, &Asked) + Send + Sync + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answer = Arc::new(answer);
        let each = bridge.channels().iter().map(|channel| {
            let (stop, answer) = (Arc::clone(&stop), Arc::clone(&answer));
            let mut peer = Peer::new(Arc::clone(channel));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    while let Some(asked) = peer.take() {
                        answer(&mut peer, &asked);
                    }
                    peer.flush();
                    peer.wait(Duration::from_millis(20));
                }
            })
        });
        let threads = each.collect();
        Self { stop, threads }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

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

fn load(region: &Region, length: u32) -> Vec<u8> {
    let bytes = (0..length as usize).map(|at| {
        // SAFETY: inside the region; the request is ours.
        unsafe { region.base().add(at).read_volatile() }
    });
    bytes.collect()
}

fn store(region: &Region, bytes: &[u8]) {
    // SAFETY: inside the region; the request is ours.
    unsafe { region.base().copy_from(bytes.as_ptr(), bytes.len()) };
}

/// A disk in memory, by copying.
fn memory_disk() -> impl Fn(&mut Peer, &Asked) + Send + Sync + 'static {
    let disk = Mutex::new(vec![0_u8; SIZE]);
    move |peer, asked| {
        let place = asked.offset as usize..asked.offset as usize + asked.length as usize;
        let buffer = peer.channel().buffer(asked.tag);
        match (asked.kind, buffer) {
            (READ, Some(buffer)) => store(&buffer, &disk.lock().unwrap()[place]),
            (WRITE, Some(buffer)) => {
                disk.lock().unwrap()[place].copy_from_slice(&load(&buffer, asked.length));
            }
            _ => {}
        }
        peer.answer(asked, Ok(()));
    }
}

fn assert_serves(client: &Client) {
    for number in 0..20_u8 {
        let offset = u64::from(number) * 8192;
        let data = vec![number + 1; 8192];
        let write = ClientOp::Write { offset, data: data.clone(), fua: number % 2 == 0 };
        assert_eq!(client.run(&write).result, Ok(()));
        let done = client.run(&ClientOp::Read { offset, length: 8192 });
        assert_eq!((done.result, done.data), (Ok(()), data));
    }
    assert_eq!(client.run(&ClientOp::Flush).result, Ok(()));
}

fn assert_nothing_left(sim: &Sim, id: u32) {
    assert_eq!(Control::new(sim.clone()).info(id).unwrap_err().code, Code::NoDevice);
    sim.audit();
    assert_eq!(sim.violations().iter().map(ToString::to_string).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn a_handler_serves_data_from_its_memory() {
    let modes = [BufferMode::Copy, BufferMode::UserCopy];
    for (exchange, mode) in [ExchangeMode::PerIo, ExchangeMode::Batch]
        .into_iter()
        .flat_map(|exchange| modes.map(|mode| (exchange, mode)))
    {
        let sim = Sim::new(SimConfig::blocking(1));
        let bridge = bridge(Duration::from_secs(60));
        let target = target(&bridge, &[Op::Read, Op::Write, Op::Flush], &[]);
        let _answering = Answering::start(&bridge, memory_disk());
        let exchange = Some(exchange);
        let options = DeviceOptions { exchange, ..options(mode) };
        let device = Device::create(&sim, target, options).unwrap();
        let id = device.info().id;
        let client = sim.client(id).unwrap();
        assert_serves(&client);
        let sum = |count: fn(&QueueStats) -> u64| device.stats().iter().map(count).sum::<u64>();
        assert_eq!(sum(|queue| queue.writes), 20);
        assert_eq!(sum(|queue| queue.flushes), 11, "ten writes with FUA are flushed by the kernel");
        drop(client);
        device.close().unwrap();
        assert_nothing_left(&sim, id);
    }
}

#[test]
fn an_errno_reaches_the_client() {
    let sim = Sim::new(SimConfig::blocking(2));
    let bridge = bridge(Duration::from_secs(60));
    let target = target(&bridge, &[Op::Read, Op::Write], &[]);
    let _answering = Answering::start(&bridge, |peer, asked| {
        let full = asked.kind == WRITE && asked.offset > 0;
        peer.answer(asked, if full { Err(libc::ENOSPC) } else { Ok(()) });
    });
    let device = Device::create(&sim, target, options(BufferMode::Copy)).unwrap();
    let client = sim.client(device.info().id).unwrap();
    let write = |offset| ClientOp::Write { offset, data: vec![0; 512], fua: false };
    assert_eq!(client.run(&write(512)).result, Err(libc::ENOSPC));
    assert_eq!(client.run(&write(0)).result, Ok(()));
}

/// Halves of each request on one disk each.
fn halves(asked: &Asked) -> [Piece; 2] {
    let half = asked.length / 2;
    let piece = |backend, at, length| Piece {
        backend,
        op: asked.kind.into(),
        at,
        length,
        offset: asked.offset + u64::from(at),
    };
    [piece(0, 0, half), piece(1, half, asked.length - half)]
}

#[test]
fn a_plan_puts_bytes_where_it_says_in_each_buffer_mode() {
    for (mode, split_register) in MODES {
        let sim = Sim::new(SimConfig::blocking(3));
        let disks = [sim.file(SIZE), sim.file(SIZE)];
        let bridge = bridge(Duration::from_secs(60));
        let target = target(&bridge, &[Op::Read, Op::Write], &disks);
        let _answering = Answering::start(&bridge, |peer, asked| peer.plan(asked, &halves(asked)));
        let options = DeviceOptions { split_register, ..options(mode) };
        let device = Device::create(&sim, target, options).unwrap();
        let id = device.info().id;
        let client = sim.client(id).unwrap();
        assert_serves(&client);
        assert_eq!(disks[0].contents()[..8192], [[1; 4096], [0; 4096]].concat());
        assert_eq!(disks[1].contents()[..8192], [[0; 4096], [1; 4096]].concat());
        assert_eq!(disks[0].durable(), disks[0].contents(), "a flush reaches the backends");
        drop(client);
        device.close().unwrap();
        assert_nothing_left(&sim, id);
    }
}

#[test]
fn steps_run_one_after_another_in_each_buffer_mode() {
    for (mode, split_register) in MODES {
        let sim = Sim::new(SimConfig::blocking(4));
        let disks = [sim.file(SIZE), sim.file(SIZE)];
        let bridge = bridge(Duration::from_secs(60));
        let target = target(&bridge, &[Op::Read, Op::Write], &disks);
        let rounds: [AtomicU64; DEPTH as usize * 2] = Default::default();
        // A mirror, one disk after the other.
        let _answering = Answering::start(&bridge, move |peer, asked| {
            let slot = usize::from(peer.channel().queue() * DEPTH + asked.tag);
            let round = if u32::from(asked.kind) == KIND_STEPPED {
                assert_eq!(asked.errno, 0);
                rounds[slot].fetch_add(1, Ordering::Relaxed) + 1
            } else {
                rounds[slot].store(u64::from(asked.kind) << 8, Ordering::Relaxed);
                u64::from(asked.kind) << 8
            };
            let (op, round) = ((round >> 8) as u32, round & 0xff);
            if round == if op == u32::from(WRITE) { 2 } else { 1 } {
                return peer.answer(asked, Ok(()));
            }
            let (length, offset) = (asked.length, asked.offset);
            peer.steps(asked, &[Piece { backend: round as u32, op, at: 0, length, offset }]);
        });
        let options = DeviceOptions { split_register, ..options(mode) };
        let device = Device::create(&sim, target, options).unwrap();
        let id = device.info().id;
        let client = sim.client(id).unwrap();
        assert_serves(&client);
        assert_eq!(disks[0].contents(), disks[1].contents());
        drop(client);
        device.close().unwrap();
        assert_nothing_left(&sim, id);
    }
}

#[test]
fn a_step_that_fails_tells_and_the_request_goes_on() {
    for (mode, split_register) in MODES {
        let sim = Sim::new(SimConfig::blocking(5));
        let disks = [sim.file(SIZE), sim.file(SIZE)];
        disks[0].set_trouble(Trouble { reads: Some(libc::EIO), ..Trouble::default() });
        let bridge = bridge(Duration::from_secs(60));
        let target = target(&bridge, &[Op::Read, Op::Write], &disks);
        let _answering = Answering::start(&bridge, |peer, asked| {
            let piece = |backend, asked: &Asked| {
                let (length, offset) = (asked.length, asked.offset);
                Piece { backend, op: READ.into(), at: 0, length, offset }
            };
            match (u32::from(asked.kind), asked.errno) {
                (KIND_STEPPED, libc::EIO) => peer.plan(asked, &[piece(1, asked)]),
                (KIND_STEPPED, errno) => peer.answer(asked, Err(errno)),
                _ => peer.steps(asked, &[piece(0, asked)]),
            }
        });
        let options = DeviceOptions { split_register, ..options(mode) };
        let device = Device::create(&sim, target, options).unwrap();
        let client = sim.client(device.info().id).unwrap();
        let read = client.run(&ClientOp::Read { offset: 0, length: 4096 });
        assert_eq!((read.result, read.data), (Ok(()), vec![0; 4096]));
        drop(client);
        device.close().unwrap();
        sim.audit();
    }
}

#[test]
fn a_plan_that_does_not_fit_fails_its_request_and_is_reported() {
    let sim = Sim::new(SimConfig::blocking(6));
    let disks = [sim.file(SIZE), sim.file(SIZE)];
    let bridge = bridge(Duration::from_secs(60));
    let target = target(&bridge, &[Op::Read], &disks);
    let _answering = Answering::start(&bridge, |peer, asked| peer.plan(asked, &halves(asked)[..1]));
    let reports = listen(&bridge);
    let device = Device::create(&sim, target, options(BufferMode::Auto)).unwrap();
    let client = sim.client(device.info().id).unwrap();
    let read = client.run(&ClientOp::Read { offset: 0, length: 4096 });
    assert_eq!(read.result, Err(libc::EIO));
    bridge.tick();
    assert!(matches!(reports.lock().unwrap()[0].kind, ReportKind::Misfit(_)));
}

fn listen(bridge: &Bridge) -> Arc<Mutex<Vec<Report>>> {
    let reports = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&reports);
    bridge.listen(Box::new(move |report| list.lock().unwrap().push(report)));
    reports
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
            let tags = (0..DEPTH).filter_map(|tag| bridge.channel(0).buffer(tag));
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

#[test]
fn closing_ends_requests_that_nobody_answers() {
    let sim = Sim::new(SimConfig::blocking(8));
    let bridge = bridge(Duration::from_secs(3600));
    let target = target(&bridge, &[Op::Read], &[]);
    let _answering = Answering::start(&bridge, |_, _| {});
    let device = Device::create(&sim, target, options(BufferMode::Copy)).unwrap();
    let id = device.info().id;
    let _ticking = ticking(&bridge);
    thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let client = sim.client(id).unwrap();
            client.run(&ClientOp::Read { offset: 0, length: 4096 }).result
        });
        thread::sleep(Duration::from_millis(50));
        device.close().unwrap();
        assert!(reading.join().unwrap().is_err());
    });
    assert_nothing_left(&sim, id);
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
    device.close().unwrap();
    assert_nothing_left(&sim, id);
}

#[test]
fn a_queue_of_a_handler_has_one_thread() {
    let sim = Sim::new(SimConfig::blocking(31));
    let bridge = bridge(Duration::from_secs(5));
    let asked = DeviceOptions { threads: Some(2), ..options(BufferMode::Auto) };
    let error = Device::create(&sim, target(&bridge, &[Op::Read], &[]), asked).unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
    assert_eq!(error.message, "threads and a handler exclude each other");
    let asked = DeviceOptions { rings_apart: true, ..options(BufferMode::Register) };
    let error = Device::create(&sim, target(&bridge, &[Op::Read], &[]), asked).unwrap_err();
    assert_eq!(error.message, "ringsApart and a handler exclude each other");
    assert_eq!(Control::new(sim).info(0).unwrap_err().code, Code::NoDevice);
}
