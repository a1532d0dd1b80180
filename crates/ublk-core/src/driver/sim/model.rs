//! The whole state of the simulated system, behind one lock.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::thread::{self, ThreadId};

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

/// What the model has done to the server so far, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Injected {
    /// Short reads and writes.
    pub short: u32,
    /// Backend operations that failed, by chance or because a test wanted it.
    pub error: u32,
    /// Backend operations answered with `EINTR` or `EAGAIN`.
    pub interrupted: u32,
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
    /// The one that the ring stands for.
    Ring(usize),
}

#[derive(Debug)]
pub(super) struct Model {
    pub(super) config: SimConfig,
    pub(super) rng: Rng,
    pub(super) devices: Vec<Device>,
    /// Commands whose senders have given up.
    pub(super) late: Vec<Call>,
    /// Rings that are closed and have not ended.
    pub(super) orphans: Vec<usize>,
    /// Rings keep their place for ever, so that a stale reference finds nothing.
    pub(super) rings: Vec<Option<Uring>>,
    pub(super) requests: BTreeMap<u64, BlockRequest>,
    pub(super) next_request: u64,
    pub(super) files: BTreeMap<RawFd, FileRef>,
    pub(super) next_fd: RawFd,
    pub(super) disks: Vec<Disk>,
    pub(super) memories: Vec<Arc<Memory>>,
    /// Real files, each with its cache; they keep their place for ever.
    pub(super) storages: Vec<CachedFile>,
    pub(super) power: Power,
    /// Of which `/dev/ublkbN` is a file that a client has made, over which the kernel makes no node.
    pub(super) files_in_dev: BTreeSet<u32>,
    /// Nothing makes block devices appear in `/dev`, and the server may not.
    pub(super) without_nodes: bool,
    /// What servers have written down about devices, by their number.
    pub(super) records: BTreeMap<u32, String>,
    pub(super) injected: Injected,
    /// Rings take nothing.
    pub(super) stalled: bool,
    pub(super) violations: Vec<Violation>,
    /// How much has happened; it stands still when nothing can move.
    pub(super) moves: u64,
    /// What runs is the kernel's own worker, and nobody's task.
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
            orphans: Vec::new(),
            rings: Vec::new(),
            requests: BTreeMap::new(),
            next_request: 1,
            files: BTreeMap::new(),
            // Above what the kernel hands out (fs.nr_open), so that they never mix up.
            next_fd: 1 << 30,
            disks: Vec::new(),
            memories: Vec::new(),
            storages: Vec::new(),
            power: Power::On,
            files_in_dev: BTreeSet::new(),
            without_nodes: false,
            records: BTreeMap::new(),
            injected: Injected::default(),
            stalled: false,
            violations: Vec::new(),
            moves: 0,
            in_worker: false,
            log: Vec::new(),
        }
    }

    /// Who runs, when it is for the ring's thread.
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
