//! The whole state of the simulated system, behind one lock.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::RawFd;
use std::sync::{Arc, Weak};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use super::backend::Disk;
use super::block::BlockRequest;
use super::cache::CachedFile;
use super::call::Call;
use super::config::SimConfig;
use super::device::{Device, Io};
use super::files::FileRef;
use super::power::Power;
use super::ring::Uring;
use super::rng::Rng;
use super::shared::Memory;
use super::violation::{Rule, Violation};
use crate::memory::Region;

/// Number of faults that the model has injected, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Injected {
    /// Short reads and writes.
    pub short: u32,
    /// Backend operations that failed, drawn or requested by a test.
    pub error: u32,
    /// Backend operations answered with `EINTR` or `EAGAIN`.
    pub interrupted: u32,
    /// Requests of which the driver copied only a part.
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
pub(super) enum Task {
    Thread(ThreadId),
    /// The thread that a ring represents.
    Ring(usize),
}

#[derive(Debug)]
pub(super) struct Model {
    pub(super) config: SimConfig,
    pub(super) rng: Rng,
    pub(super) devices: Vec<Device>,
    /// Commands whose senders stopped waiting after the time limit.
    pub(super) late: Vec<Call>,
    /// The commands that wait for the driver's mutex, by the order of their arrival.
    pub(super) driver_turns: BTreeSet<u64>,
    pub(super) next_turn: u64,
    /// Closed rings with operations in flight.
    pub(super) closed_rings: Vec<usize>,
    /// The index of a ring is never reused, so a stale index is detected.
    pub(super) rings: Vec<Option<Uring>>,
    pub(super) requests: BTreeMap<u64, BlockRequest>,
    pub(super) next_request: u64,
    pub(super) files: BTreeMap<RawFd, FileRef>,
    pub(super) next_fd: RawFd,
    pub(super) disks: Vec<Disk>,
    pub(super) memories: Vec<Arc<Memory>>,
    /// Memory of targets that their steps use.
    pub(super) target_memory: Vec<Weak<Region>>,
    /// Real files with their caches; the index of a file is never reused.
    pub(super) storages: Vec<CachedFile>,
    pub(super) power: Power,
    /// Numbers N for which a client created a regular file `/dev/ublkbN`; the kernel creates no node there.
    pub(super) files_in_dev: BTreeSet<u32>,
    /// No block device appears in `/dev`, and the server may not create nodes.
    pub(super) without_nodes: bool,
    /// Records that servers keep of devices, by device number.
    pub(super) records: BTreeMap<u32, String>,
    pub(super) injected: Injected,
    /// io_uring_enter fails with EAGAIN.
    pub(super) stalled: bool,
    pub(super) violations: Vec<Violation>,
    /// Number of moves so far; constant once no move is possible.
    pub(super) moves: u64,
    /// The beginning of the time that real threads have.
    pub(super) since: Instant,
    /// The time that passed in timeouts where no clock runs.
    pub(super) slept: Duration,
    /// The current operation runs in a kernel worker, not in a task of the server.
    pub(super) in_worker: bool,
    log: Vec<String>,
}

impl Model {
    pub(super) fn new(config: SimConfig) -> Self {
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
    pub(super) fn current(&self, ring: usize) -> Option<Task> {
        let task = || match self.config.thread_per_ring {
            true => Task::Ring(ring),
            false => Task::Thread(thread::current().id()),
        };
        (!self.in_worker).then(task)
    }

    pub(super) fn io(&mut self, device: usize, queue: u16, tag: u16) -> &mut Io {
        &mut self.devices[device].queues[usize::from(queue)].ios[usize::from(tag)]
    }

    pub(super) fn ring(&mut self, ring: usize) -> &mut Uring {
        self.rings[ring].as_mut().expect("a ring is used only while it exists")
    }

    pub(super) fn note(&mut self, event: impl FnOnce() -> String) {
        if self.config.trace {
            let event = event();
            self.log.push(event);
        }
    }

    pub(super) fn violate(&mut self, rule: Rule, detail: impl Into<String>) {
        let violation = Violation { rule, detail: detail.into() };
        self.note(|| format!("VIOLATION {violation}"));
        self.violations.push(violation);
    }

    pub(super) fn take_log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }
}
