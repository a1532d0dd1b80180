//! What a reactor has lent when it could not serve a queue.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use io_uring::squeue::Entry;
use ublk_sys::{
    UBLK_F_AUTO_BUF_REG, UBLK_F_SUPPORT_ZERO_COPY, ublksrv_ctrl_cmd, ublksrv_ctrl_dev_info,
};

use super::*;
use crate::bridge::{Bridge, BridgeOptions};
use crate::control::Control;
use crate::driver::sim::{Sim, SimConfig, SimRing};
use crate::driver::{ControlAnswer, Descriptors, MemoryMap, OpenFile, RingSize};
use crate::target::Op;
use crate::target::handler::{Handler, HandlerOptions};
use crate::target::null::Null;

const DEPTH: u16 = 4;
const SIZE: u64 = 1 << 20;

/// The simulated driver, whose rings take nothing while they are told so.
#[derive(Clone)]
struct Stubborn {
    sim: Sim,
    refuses: Arc<AtomicBool>,
}

struct StubbornRing {
    ring: SimRing,
    refuses: Arc<AtomicBool>,
}

impl Stubborn {
    fn new() -> Self {
        Self { sim: Sim::new(SimConfig::stepping(1)), refuses: Arc::default() }
    }

    /// Another queue of a new device, and who hears of it.
    fn service<T: Target>(&self, target: T, rotate_slots: bool) -> (Service<T>, Receiver<bool>) {
        let wanted = ublksrv_ctrl_dev_info {
            nr_hw_queues: 1,
            queue_depth: DEPTH,
            max_io_buf_bytes: 4096,
            dev_id: u32::MAX,
            flags: UBLK_F_AUTO_BUF_REG | UBLK_F_SUPPORT_ZERO_COPY,
            ..Default::default()
        };
        let info = Control::new(self.sim.clone()).add(&wanted).unwrap();
        let (told, heard) = channel();
        let service = Service {
            char_device: self.sim.open_char(info.dev_id).unwrap(),
            zeros: self.sim.open_zeros().unwrap(),
            config: QueueConfig {
                spin: Duration::ZERO,
                queue: 0,
                depth: DEPTH,
                share: Share::WHOLE,
                transfer: Transfer::Auto,
                exchange: ExchangeMode::PerIo,
                max_io_bytes: 4096,
                descriptor_size: usize::from(info.io_desc_size),
                features: info.flags,
                rotate_slots,
            },
            part: Part::Whole,
            target: Arc::new(target),
            shared: None,
            counters: Arc::default(),
            listener: Listener::new(move |news| {
                let _unheard = told.send(matches!(news, News::Ready));
            }),
        };
        (service, heard)
    }
}

/// Whether the queue gets served.
fn is_served<D: Driver, T: Target>(
    reactor: &mut Reactor<D, T>,
    (service, heard): (Service<T>, Receiver<bool>),
) -> bool {
    reactor.serve(service).unwrap();
    heard.try_recv().unwrap()
}

fn capacity(files: u32, slots: u16) -> Capacity {
    let ring = RingSize { submissions: 64, completions: 128, tells_of_work: false };
    Capacity { ring, files, slots, spin: Duration::ZERO }
}

fn null() -> Null {
    Null::new(SIZE)
}

fn handler() -> Handler {
    let time = Duration::from_secs(1);
    let options =
        BridgeOptions { queues: 1, depth: DEPTH, max_pieces: 1, timeout: time, grace: time };
    Handler::new(HandlerOptions {
        size: SIZE,
        logical_block: None,
        ops: vec![Op::Read],
        fua: None,
        read_only: false,
        zones: None,
        backends: Vec::new(),
        bridge: Arc::new(Bridge::unwatched(&options).unwrap()),
    })
    .unwrap()
}

#[test]
fn a_queue_that_finds_no_slots_keeps_no_places() {
    let driver = Stubborn::new();
    let mut reactor = Reactor::new(&driver, capacity(2, DEPTH), Mailbox::new().unwrap()).unwrap();
    assert!(!is_served(&mut reactor, driver.service(null(), true)));
    assert!(is_served(&mut reactor, driver.service(null(), false)));
}

#[test]
fn a_queue_that_finds_too_few_slots_keeps_none() {
    let driver = Stubborn::new();
    let mut reactor =
        Reactor::new(&driver, capacity(4, DEPTH * 2 - 1), Mailbox::new().unwrap()).unwrap();
    assert!(!is_served(&mut reactor, driver.service(null(), true)));
    assert!(is_served(&mut reactor, driver.service(null(), false)));
}

#[test]
fn a_queue_whose_descriptors_cannot_be_mapped_keeps_nothing() {
    let driver = Stubborn::new();
    let mut reactor = Reactor::new(&driver, capacity(2, DEPTH), Mailbox::new().unwrap()).unwrap();
    let (mut service, heard) = driver.service(null(), false);
    service.config.descriptor_size = 8;
    assert!(!is_served(&mut reactor, (service, heard)));
    assert!(is_served(&mut reactor, driver.service(null(), false)));
}

#[test]
fn a_queue_that_nobody_can_be_asked_for_keeps_no_places_and_the_bell_is_hung_again() {
    let driver = Stubborn::new();
    let mut reactor = Reactor::new(&driver, capacity(2, DEPTH), Mailbox::new().unwrap()).unwrap();
    driver.refuses.store(true, Ordering::Relaxed);
    assert!(!is_served(&mut reactor, driver.service(handler(), false)));
    assert!(reactor.bell.is_none());
    driver.refuses.store(false, Ordering::Relaxed);
    assert!(is_served(&mut reactor, driver.service(handler(), false)));
}

impl Driver for Stubborn {
    type Ring = StubbornRing;

    fn control(
        &self,
        operation: u32,
        command: ublksrv_ctrl_cmd,
        buffer: Option<Box<[u8]>>,
        limit: Duration,
    ) -> io::Result<ControlAnswer> {
        self.sim.control(operation, command, buffer, limit)
    }
    fn open_char(&self, id: u32) -> io::Result<OpenFile> {
        self.sim.open_char(id)
    }
    fn map_descriptors(
        &self,
        char_device: &OpenFile,
        queue: u16,
        depth: u16,
        stride: usize,
    ) -> io::Result<Descriptors> {
        self.sim.map_descriptors(char_device, queue, depth, stride)
    }
    fn open_zeros(&self) -> io::Result<OpenFile> {
        self.sim.open_zeros()
    }
    fn map_memory(&self, fd: RawFd, writable: bool) -> io::Result<MemoryMap> {
        self.sim.map_memory(fd, writable)
    }
    fn block_device_is_ready(&self, id: u32) -> bool {
        self.sim.block_device_is_ready(id)
    }
    fn set_queue(&self, id: u32, name: &str, value: &str) -> io::Result<()> {
        self.sim.set_queue(id, name, value)
    }
    fn requests_in_flight(&self, id: u32) -> u32 {
        self.sim.requests_in_flight(id)
    }
    fn block_device_is_held(&self, id: u32) -> bool {
        self.sim.block_device_is_held(id)
    }
    fn ring(&self, entries: RingSize) -> io::Result<StubbornRing> {
        Ok(StubbornRing { ring: self.sim.ring(entries)?, refuses: Arc::clone(&self.refuses) })
    }
}

impl Ring for StubbornRing {
    fn register_files_sparse(&mut self, count: u32) -> io::Result<()> {
        self.ring.register_files_sparse(count)
    }
    fn update_files(&mut self, first: u32, fds: &[RawFd]) -> io::Result<()> {
        self.ring.update_files(first, fds)
    }
    fn unregister_files(&mut self) -> io::Result<()> {
        self.ring.unregister_files()
    }
    fn register_buffers_sparse(&mut self, count: u32) -> io::Result<()> {
        self.ring.register_buffers_sparse(count)
    }
    unsafe fn register_buffer_ring(&mut self, ring: *mut u8, n: u16, group: u16) -> io::Result<()> {
        // SAFETY: passed on to our caller.
        unsafe { self.ring.register_buffer_ring(ring, n, group) }
    }
    fn unregister_buffer_ring(&mut self, group: u16) -> io::Result<()> {
        self.ring.unregister_buffer_ring(group)
    }
    fn space(&mut self) -> usize {
        if self.refuses.load(Ordering::Relaxed) { 0 } else { self.ring.space() }
    }
    unsafe fn push(&mut self, entry: &Entry) {
        // SAFETY: passed on to our caller.
        unsafe { self.ring.push(entry) }
    }
    fn submit(&mut self) -> io::Result<()> {
        match self.refuses.load(Ordering::Relaxed) {
            true => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
            false => self.ring.submit(),
        }
    }
    fn submit_and_wait(&mut self, count: u32) -> io::Result<()> {
        self.ring.submit_and_wait(count)
    }
    fn poll(&mut self) -> io::Result<()> {
        self.ring.poll()
    }
    fn has_work(&mut self) -> bool {
        self.ring.has_work()
    }
    fn ready(&mut self) -> usize {
        self.ring.ready()
    }
    fn pop(&mut self) -> Option<Completion> {
        self.ring.pop()
    }
}
