//! One io_uring: its state in the model, and the handle that a reactor has.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::RawFd;
use std::thread::{self, ThreadId};
use std::time::Duration;

use io_uring::squeue;

use crate::driver::sim::slab::Slab;
use crate::driver::sim::storage::files::FileRef;
use crate::driver::sim::uring::buffers::{Node, Slot};
use crate::driver::sim::uring::kbuf::BufferGroup;
use crate::driver::sim::uring::sqe::Sqe;
use crate::driver::sim::violation::Rule;
use crate::driver::sim::{Sim, Waiting};
use crate::driver::{Completion, Ring, RingSize};

/// The kernel's limit of a buffer table.
const MAX_TABLE: u32 = 1 << 14;
/// What the memory of a buffer ring is aligned to.
const PAGE: usize = 4096;

/// An operation that was submitted and has not completed: `struct io_kiocb`.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) sqe: Sqe,
    /// The rest of its chain.
    pub(crate) next: Option<usize>,
    pub(crate) file: Option<FileRef>,
    pub(crate) node: Option<usize>,
    /// When a timeout ends, by `Model::now`.
    pub(crate) deadline: Option<Duration>,
    pub(crate) result: i32,
    pub(crate) flags: u32,
    /// REQ_F_FAIL.
    pub(crate) failed: bool,
    /// REQ_F_HARDLINK, which a chain that cannot be submitted loses.
    pub(crate) hardlink: bool,
    /// REQ_F_CQE_SKIP.
    pub(crate) skip: bool,
    /// REQ_F_SKIP_LINK_CQES.
    pub(crate) skip_links: bool,
    /// A cancellation was answered `EALREADY`, and no timeout of the ring has ended since.
    pub(crate) cancelled_in_vain: bool,
    /// Issued from a worker and not by the submitter.
    pub(crate) force_async: bool,
}

/// What a ring's thread does when it waits: task work.
#[derive(Debug)]
pub(crate) enum Work {
    /// A block request goes to the server.
    Dispatch(u64),
    /// The requests that a device's driver has put back are started again.
    Kick(usize),
    /// What waits in a queue's fifo goes to the server.
    Events(usize, u16),
    /// The next operation of a chain is issued.
    Issue(usize),
    /// A ublk command that a worker met is issued by the ring's thread.
    Command(usize, usize),
    /// The rest of a broken chain completes.
    FailChain(usize),
    /// A pending command completes with this result.
    Complete(usize, i32),
}

#[derive(Debug)]
pub(crate) struct Uring {
    /// Whose it is; absent where anybody may use it.
    pub(crate) task: Option<ThreadId>,
    pub(crate) size: RingSize,
    pub(crate) sq: Vec<Sqe>,
    pub(crate) cq: VecDeque<Completion>,
    pub(crate) fixed_files: Option<Vec<Option<FileRef>>>,
    pub(crate) table: Vec<Slot>,
    pub(crate) nodes: Slab<Node>,
    pub(crate) groups: BTreeMap<u16, BufferGroup>,
    pub(crate) ops: Slab<Operation>,
    pub(crate) work: VecDeque<Work>,
    /// Backend operations under way.
    pub(crate) in_flight: Vec<usize>,
    /// Operations that a worker will issue.
    pub(crate) workers: Vec<usize>,
    /// Operations that wait for a descriptor or for a time.
    pub(crate) waits: Vec<usize>,
    /// Completed, not yet told.
    pub(crate) completed: Vec<usize>,
    /// Its thread waits, and has found nothing to do.
    pub(crate) asleep: bool,
}

impl Uring {
    pub(crate) fn new(size: RingSize) -> Self {
        Self {
            task: Some(thread::current().id()),
            size,
            sq: Vec::new(),
            cq: VecDeque::new(),
            fixed_files: None,
            table: Vec::new(),
            nodes: Slab::default(),
            groups: BTreeMap::new(),
            ops: Slab::default(),
            work: VecDeque::new(),
            in_flight: Vec::new(),
            workers: Vec::new(),
            waits: Vec::new(),
            completed: Vec::new(),
            asleep: false,
        }
    }

    /// Nothing moves before somebody asks for something.
    pub(crate) fn is_quiet(&self) -> bool {
        self.asleep && self.work.is_empty() && self.in_flight.is_empty() && self.workers.is_empty()
    }

    /// io_cqring_wait: more than the queue holds is not waited for.
    pub(crate) fn has_completions(&self, count: u32) -> bool {
        self.cq.len() >= count.min(self.size.completions) as usize
    }
}

/// A reactor's io_uring in the model.
#[derive(Debug)]
pub struct SimRing {
    sim: Sim,
    ring: usize,
}

impl SimRing {
    pub(crate) fn new(sim: Sim, size: RingSize) -> io::Result<Self> {
        let possible = |entries: u32| entries.is_power_of_two() && entries <= 1 << 16;
        if !possible(size.submissions) || !possible(size.completions) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(Self::of(sim, Uring::new(size)))
    }

    /// One for single commands of any thread: nobody sleeps in it.
    pub(crate) fn common(sim: Sim) -> Self {
        let size = RingSize { submissions: 1, completions: 2, tells_of_work: false };
        Self::of(sim, Uring { task: None, asleep: true, ..Uring::new(size) })
    }

    fn of(sim: Sim, uring: Uring) -> Self {
        let mut model = sim.lock();
        model.rings.push(Some(uring));
        let ring = model.rings.len() - 1;
        drop(model);
        Self { sim, ring }
    }

    /// Whether all that was pushed has been taken: io_uring_enter does not wait otherwise.
    fn enter(&mut self) -> io::Result<bool> {
        let mut model = self.sim.lock();
        let owner = model.ring(self.ring).task;
        if owner.is_some_and(|owner| owner != thread::current().id()) {
            model.violate(Rule::Thread, format!("ring {} is entered by another thread", self.ring));
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        if model.stalled {
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
        model.submit(self.ring);
        let all = model.ring(self.ring).sq.is_empty();
        drop(model);
        self.sim.wake();
        Ok(all)
    }
}

impl Ring for SimRing {
    fn register_files_sparse(&mut self, count: u32) -> io::Result<()> {
        let mut model = self.sim.lock();
        let files = &mut model.ring(self.ring).fixed_files;
        if files.is_some() {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        if count == 0 {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        *files = Some((0..count).map(|_| None).collect());
        Ok(())
    }

    fn update_files(&mut self, first: u32, fds: &[RawFd]) -> io::Result<()> {
        let mut model = self.sim.lock();
        for (place, &fd) in (first as usize..).zip(fds) {
            let file = if fd < 0 { None } else { Some(model.open_file(fd)?) };
            let Some(files) = &mut model.ring(self.ring).fixed_files else {
                return Err(io::Error::from_raw_os_error(libc::ENXIO));
            };
            let Some(place) = files.get_mut(place) else {
                return Err(io::Error::from_raw_os_error(libc::EINVAL));
            };
            let before = std::mem::replace(place, file.clone());
            file.iter().for_each(|file| model.hold(file));
            before.iter().for_each(|file| model.put_file(file));
        }
        drop(model);
        self.sim.wake();
        Ok(())
    }

    fn register_buffers_sparse(&mut self, count: u32) -> io::Result<()> {
        let mut model = self.sim.lock();
        let uring = model.ring(self.ring);
        if !uring.table.is_empty() {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        if count == 0 || count > MAX_TABLE {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        uring.table = vec![Slot::default(); count as usize];
        Ok(())
    }

    unsafe fn register_buffer_ring(
        &mut self,
        ring: *mut u8,
        entries: u16,
        group: u16,
    ) -> io::Result<()> {
        let mut model = self.sim.lock();
        let groups = &mut model.ring(self.ring).groups;
        if !entries.is_power_of_two() || !ring.addr().is_multiple_of(PAGE) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let Entry::Vacant(place) = groups.entry(group) else {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        };
        // SAFETY: passed on to our caller.
        place.insert(unsafe { BufferGroup::new(ring, entries) });
        Ok(())
    }

    fn unregister_buffer_ring(&mut self, group: u16) -> io::Result<()> {
        match self.sim.lock().ring(self.ring).groups.remove(&group) {
            Some(_) => Ok(()),
            None => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        }
    }

    fn space(&mut self) -> usize {
        let mut model = self.sim.lock();
        if model.stalled {
            return 0;
        }
        let full = model.config.faults.full;
        let queued = model.ring(self.ring).sq.len();
        if queued > 0 && model.rng.chance(full) {
            model.injected.full += 1;
            return 0;
        }
        model.ring(self.ring).size.submissions as usize - queued
    }

    unsafe fn push(&mut self, entry: &squeue::Entry) {
        let mut model = self.sim.lock();
        let uring = model.ring(self.ring);
        if uring.sq.len() == uring.size.submissions as usize {
            model.violate(Rule::NoSpace, format!("ring {}", self.ring));
            return;
        }
        uring.sq.push(Sqe::new(entry));
    }

    fn submit(&mut self) -> io::Result<()> {
        while !self.enter()? {}
        Ok(())
    }

    fn has_queued(&mut self) -> bool {
        !self.sim.lock().ring(self.ring).sq.is_empty()
    }

    fn submit_and_wait(&mut self, count: u32) -> io::Result<()> {
        if !self.enter()? {
            return Ok(());
        }
        match self.sim.waiting() {
            Waiting::Stepping => self.sim.lock().step_until_idle(self.ring, count),
            Waiting::Blocking => self.sim.block_on(self.ring, count),
        }
        self.sim.wake();
        Ok(())
    }

    fn poll(&mut self) -> io::Result<()> {
        self.enter()?;
        self.sim.lock().run_task_work(self.ring);
        self.sim.wake();
        Ok(())
    }

    /// The model gives nothing to look for: whoever spins goes on to wait.
    fn has_work(&mut self) -> bool {
        false
    }

    fn ready(&mut self) -> usize {
        self.sim.lock().ring(self.ring).cq.len()
    }

    fn pop(&mut self) -> Option<Completion> {
        self.sim.lock().ring(self.ring).cq.pop_front()
    }

    fn capacity(&self, file: RawFd) -> Option<u64> {
        self.sim.lock().capacity(file)
    }
}

impl Drop for SimRing {
    fn drop(&mut self) {
        self.sim.lock().exit_ring(self.ring);
        self.sim.wake();
    }
}
