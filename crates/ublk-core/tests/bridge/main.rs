//! Devices whose requests are answered beyond a bridge, with real threads on the simulated kernel.
#![expect(clippy::cast_possible_truncation, reason = "small numbers")]

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ublk_core::bridge::{Asked, Bridge, BridgeOptions, Peer, Region, Report, ReportKind};
use ublk_core::control::Control;
use ublk_core::device::{BufferMode, Device, DeviceOptions, ExchangeMode};
use ublk_core::driver::sim::{Client, ClientOp, Sim, SimConfig, SimDisk};
use ublk_core::error::Code;
use ublk_core::stats::QueueStats;
use ublk_core::targets::Op;
use ublk_core::targets::handler::{Handler, HandlerOptions};
use ublk_core::targets::native::Native;

use common::{SIZE, assert_nothing_left, assert_serves, file};

mod backends;
#[path = "../common/mod.rs"]
mod common;
mod ends;

const DEPTH: u16 = 8;
const READ: u8 = 0;
const WRITE: u8 = 1;

fn bridge(timeout: Duration) -> Arc<Bridge> {
    let options = BridgeOptions { queues: 2, depth: DEPTH, max_pieces: 4, timeout };
    Arc::new(Bridge::unwatched(&options).unwrap())
}

fn target(bridge: &Arc<Bridge>, ops: &[Op], disks: &[SimDisk]) -> Handler {
    handler(bridge, ops, disks.iter().map(|disk| Native::File(file(disk))).collect())
}

fn handler(bridge: &Arc<Bridge>, ops: &[Op], backends: Vec<Native>) -> Handler {
    Handler::new(HandlerOptions {
        size: SIZE as u64,
        logical_block: None,
        ops: ops.to_vec(),
        fua: None,
        read_only: false,
        zones: None,
        backends,
        bridge: Arc::clone(bridge),
    })
    .unwrap()
}

fn options(buffers: BufferMode) -> DeviceOptions {
    DeviceOptions { depth: DEPTH, buffers: vec![buffers], ..common::options() }
}

/// Serves a device while its client does `work`, and leaves nothing of it but what it has counted.
fn serve(
    sim: &Sim,
    target: Handler,
    options: DeviceOptions,
    work: impl FnOnce(&Client),
) -> Vec<QueueStats> {
    let device = Device::create(sim, target, options).unwrap();
    let id = device.info().id;
    let client = sim.client(id).unwrap();
    work(&client);
    drop(client);
    device.close().unwrap();
    assert_nothing_left(sim, id);
    device.stats()
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

/// Waits for ten seconds at most.
fn wait_until(is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() && begin.elapsed() < Duration::from_secs(10) {
        thread::yield_now();
    }
}

fn listen(bridge: &Bridge) -> Arc<Mutex<Vec<Report>>> {
    let reports = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&reports);
    bridge.listen(Box::new(move |report| list.lock().unwrap().push(report)));
    reports
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
        let stats = serve(&sim, target, options, assert_serves);
        let sum = |count: fn(&QueueStats) -> u64| stats.iter().map(count).sum::<u64>();
        assert_eq!(sum(|queue| queue.writes), 20);
        assert_eq!(sum(|queue| queue.flushes), 11, "ten writes with FUA are flushed by the kernel");
    }
}

#[test]
fn a_lone_answer_is_committed_past_the_reactor_which_counts_it_all_the_same() {
    let sim = Sim::new(SimConfig::blocking(1));
    let bridge = bridge(Duration::from_secs(60));
    let target = target(&bridge, &[Op::Read, Op::Write], &[]);
    let disk = memory_disk();
    let _answering = Answering::start(&bridge, move |peer, asked| {
        disk(peer, asked);
        // A reactor that is awake finds the answer before it sleeps, at the price of another call.
        wait_until(|| peer.channel().reactor_seems_asleep());
        peer.flush_past();
    });
    let device = Device::create(&sim, target, options(BufferMode::Copy)).unwrap();
    let client = sim.client(device.info().id).unwrap();
    let before: u64 = device.stats().iter().map(|queue| queue.enters).sum();
    for _ in 0..100 {
        assert_eq!(client.run(&ClientOp::Read { offset: 0, length: 512 }).result, Ok(()));
    }
    let stats = device.stats();
    assert_eq!(stats.iter().map(|queue| queue.reads).sum::<u64>(), 100);
    // One to hear of each request. A reactor that is woken for the answer needs two.
    let enters = stats.iter().map(|queue| queue.enters).sum::<u64>() - before;
    assert!(enters < 150, "{enters} calls of the kernel for 100 requests");
}

#[test]
fn an_errno_reaches_the_client_unless_it_would_mislead() {
    // By way of the reactor, and past it.
    for flush in [Peer::flush_to_reactor, Peer::flush_past] {
        let sim = Sim::new(SimConfig::blocking(2));
        let bridge = bridge(Duration::from_secs(60));
        let target = target(&bridge, &[Op::Read, Op::Write], &[]);
        let _answering = Answering::start(&bridge, move |peer, asked| {
            let result = match asked.offset {
                512 => Err(libc::ENOSPC),
                // To a client it would be a request to try again (trap 48).
                1024 => Err(libc::EAGAIN),
                _ => Ok(()),
            };
            peer.answer(asked, result);
            flush(peer);
        });
        let write = |offset| ClientOp::Write { offset, data: vec![0; 512], fua: false };
        let stats = serve(&sim, target, options(BufferMode::Copy), |client| {
            assert_eq!(client.run(&write(512)).result, Err(libc::ENOSPC));
            assert_eq!(client.run(&write(1024)).result, Err(libc::EIO));
            assert_eq!(client.run(&write(0)).result, Ok(()));
        });
        assert_eq!(stats.iter().map(|queue| queue.errors).sum::<u64>(), 2);
    }
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
