//! The whole state of the simulated system, behind one lock.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::RawFd;
use std::sync::{Arc, Weak};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crate::driver::TargetMemory;
use crate::driver::sim::block::layer::BlockRequest;
use crate::driver::sim::config::SimConfig;
use crate::driver::sim::rng::Rng;
use crate::driver::sim::storage::backend::Disk;
use crate::driver::sim::storage::cache::CachedFile;
use crate::driver::sim::storage::files::FileRef;
use crate::driver::sim::storage::power::Power;
use crate::driver::sim::ublk_drv::call::Call;
use crate::driver::sim::ublk_drv::device::{Device, Io};
use crate::driver::sim::ublk_drv::shared::Memory;
use crate::driver::sim::uring::ring::Uring;
use crate::driver::sim::violation::{Rule, Violation};
use crate::tag::Tag;

/// Number of faults that the model has injected, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Injected {
    /// Short reads and writes.
    pub short: u32,
    /// Backend operations that failed, drawn or requested by a test.
    pub error: u32,
    /// Backend operations answered with `EINTR` or `EAGAIN`.
    pub interrupted: u32,
    /// Requests that the driver copied in part.
    pub copied: u32,
    /// REGISTER_IO_BUF that failed.
    pub register: u32,
    /// UNREGISTER_IO_BUF that failed.
    pub unregister: u32,
    /// Automatic registrations that failed.
    pub auto_register: u32,
    /// Commits and fetches that failed.
    pub command: u32,
    /// Batches that were committed in part.
    pub partial: u32,
    /// Fetches of batches that found no buffer.
    pub no_buffers: u32,
    /// Submission queues that were full.
    pub full: u32,
}

/// A thread of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    Thread(ThreadId),
    /// The thread that a ring represents.
    Ring(usize),
}

#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) config: SimConfig,
    pub(crate) rng: Rng,
    pub(crate) devices: Vec<Device>,
    /// Commands whose senders stopped waiting after the time limit.
    pub(crate) late: Vec<Call>,
    /// The commands that wait for the driver's mutex, by the order of their arrival.
    pub(crate) driver_turns: BTreeSet<u64>,
    pub(crate) next_turn: u64,
    /// Closed rings with operations in flight.
    pub(crate) closed_rings: Vec<usize>,
    /// The index of a ring is never reused, so a stale index is detected.
    pub(crate) rings: Vec<Option<Uring>>,
    pub(crate) requests: BTreeMap<u64, BlockRequest>,
    pub(crate) next_request: u64,
    pub(crate) files: BTreeMap<RawFd, FileRef>,
    pub(crate) next_fd: RawFd,
    pub(crate) disks: Vec<Disk>,
    pub(crate) memories: Vec<Arc<Memory>>,
    /// Memory of targets for steps.
    pub(crate) target_memory: Vec<Weak<dyn TargetMemory>>,
    /// Real files with their caches; the index of a file is never reused.
    pub(crate) storages: Vec<CachedFile>,
    pub(crate) power: Power,
    /// Numbers N for which a client created a regular file `/dev/ublkbN`; the kernel creates no node there.
    pub(crate) files_in_dev: BTreeSet<u32>,
    /// No block device appears in `/dev`, and the server may not create nodes.
    pub(crate) without_nodes: bool,
    /// Records that servers keep of devices, by device number.
    pub(crate) records: BTreeMap<u32, String>,
    pub(crate) injected: Injected,
    /// io_uring_enter fails with EAGAIN.
    pub(crate) stalled: bool,
    pub(crate) violations: Vec<Violation>,
    /// Number of moves so far; constant once no move is possible.
    pub(crate) moves: u64,
    /// The start of the clock of real threads.
    pub(crate) since: Instant,
    /// The time passed in timeouts, without a running clock.
    pub(crate) slept: Duration,
    /// The current operation runs in a kernel worker, not in a task of the server.
    pub(crate) in_worker: bool,
    log: Vec<String>,
}

impl Model {
    pub(crate) fn new(config: SimConfig) -> Self {
        Self {
            rng: Rng::new(config.seed),
            config,
            devices: Vec::new(),
            late: Vec::new(),
            driver_turns: BTreeSet::new(),
            next_turn: 0,
            closed_rings: Vec::new(),
            rings: Vec::new(),
            requests: BTreeMap::new(),
            next_request: 1,
            files: BTreeMap::new(),
            // Above fs.nr_open, so that these descriptors and the kernel's never collide.
            next_fd: 1 << 30,
            disks: Vec::new(),
            memories: Vec::new(),
            target_memory: Vec::new(),
            storages: Vec::new(),
            power: Power::On,
            files_in_dev: BTreeSet::new(),
            without_nodes: false,
            records: BTreeMap::new(),
            injected: Injected::default(),
            stalled: false,
            violations: Vec::new(),
            moves: 0,
            since: Instant::now(),
            slept: Duration::ZERO,
            in_worker: false,
            log: Vec::new(),
        }
    }

    /// The task that runs work of the ring.
    pub(crate) fn current(&self, ring: usize) -> Option<Task> {
        let task = || match self.config.thread_per_ring {
            true => Task::Ring(ring),
            false => Task::Thread(thread::current().id()),
        };
        (!self.in_worker).then(task)
    }

    pub(crate) fn io(&mut self, device: usize, queue: u16, tag: Tag) -> &mut Io {
        &mut self.devices[device].queues[usize::from(queue)].ios[tag.index()]
    }

    pub(crate) fn ring(&mut self, ring: usize) -> &mut Uring {
        self.rings[ring].as_mut().expect("a ring is used only while it exists")
    }

    pub(crate) fn note(&mut self, event: impl FnOnce() -> String) {
        if self.config.trace {
            let event = event();
            self.log.push(event);
        }
    }

    pub(crate) fn violate(&mut self, rule: Rule, detail: impl Into<String>) {
        let violation = Violation { rule, detail: detail.into() };
        self.note(|| format!("VIOLATION {violation}"));
        self.violations.push(violation);
    }

    pub(crate) fn take_log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }
}
