//! The threads of a device: one for each queue, several with a share of all tags each, or the reactors of a
//! pool.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use ublk_sys::{UBLK_F_AUTO_BUF_REG, UBLK_F_BATCH_IO, ublksrv_ctrl_dev_info, ublksrv_io_desc};

use super::abilities::recovers;
use super::affinity;
use super::change;
use super::create::{Begin, Launch};
use super::memory::Memory;
use super::options::{BufferMode, DeviceOptions};
use super::pool::{Berth, Pool};
use super::serve::{self, Place};
use super::supervise::{Crew, Event};
use super::supervisor::Events;
use crate::driver::{Driver, OpenFile};
use crate::error::{Code, Error, Result};
use crate::reactor::{
    Listener, Mailbox, News, Part, QueueConfig, Service, Share, Transfer, apart, can_be_left,
    places,
};
use crate::stats::{Counters, Tally};
use crate::targets::Target;

/// A thread's part of a queue.
#[derive(Debug)]
pub(super) struct Duty {
    queue: u16,
    share: Share,
    part: Part,
    counters: Arc<Counters>,
}

/// The work of a thread.
#[derive(Debug)]
pub(super) struct Shift {
    /// The suffix of the thread's name, unique in the device.
    name: String,
    /// The queue; absent for a thread of several queues.
    queue: Option<u16>,
    duties: Vec<Duty>,
    /// The thread ends with the fronts of its queues.
    behind: bool,
}

impl Duty {
    fn new(queue: u16, share: Share, part: Part) -> Self {
        Self { queue, share, part, counters: Arc::default() }
    }
}

/// The work of each thread of a device: a queue, or a share of all queues; with rings apart, two threads
/// for each of these.
pub(super) fn shifts(info: &ublksrv_ctrl_dev_info, options: &DeviceOptions) -> Vec<Shift> {
    let depth = info.queue_depth;
    let queues = 0..info.nr_hw_queues;
    let duty = |(queue, share)| Duty::new(queue, share, Part::Whole);
    let one = |queue| Shift {
        name: format!("q{queue}"),
        queue: Some(queue),
        duties: vec![duty((queue, Share::WHOLE))],
        behind: false,
    };
    let shares = |thread, threads| {
        let share = move |queue| Some((queue, Share::of(thread, threads, queue, depth)?));
        let duties = queues.clone().filter_map(share).map(duty).collect();
        Shift { name: format!("t{thread}"), queue: None, duties, behind: false }
    };
    let whole: Vec<_> = match options.threads {
        None => queues.clone().map(one).collect(),
        Some(threads) => (0..threads).map(|thread| shares(thread, threads)).collect(),
    };
    let busy = whole.into_iter().filter(|shift| !shift.duties.is_empty());
    if options.rings_apart {
        busy.flat_map(|one| one.apart(depth)).collect()
    } else {
        busy.collect()
    }
}

impl Shift {
    /// The same for two threads.
    fn apart(self, depth: u16) -> [Self; 2] {
        let ends = |duty: &Duty| {
            let (front, back) = apart(depth);
            let part = |part| Duty::new(duty.queue, duty.share, part);
            (part(Part::Front(front)), part(Part::Back(back)))
        };
        let (fronts, backs) = self.duties.iter().map(ends).unzip();
        let name = format!("{}b", self.name);
        let back = Self { name, queue: self.queue, duties: backs, behind: true };
        [Self { duties: fronts, ..self }, back]
    }
}

/// Makes sure that a pool can take in a device that is to be created or recovered.
///
/// # Errors
/// [`Code::Resources`](crate::error::Code::Resources) when the pool is full.
pub(super) fn check_room<T: Target>(
    pool: &Pool<T>,
    info: &ublksrv_ctrl_dev_info,
    target: &T,
    options: &DeviceOptions,
) -> Result<()> {
    let duties: usize = shifts(info, options).iter().map(|shift| shift.duties.len()).sum();
    let registers = info.flags & UBLK_F_AUTO_BUF_REG != 0;
    let share =
        options.threads.map_or(info.queue_depth, |threads| info.queue_depth.div_ceil(threads));
    let turns = if options.rotate_slots { 2 } else { 1 };
    let slots = if registers { u32::from(share) * turns } else { 0 };
    let each = Berth { files: places(target), slots };
    let (count, berth) = match go_together(info) {
        true => (1, (1..duties).fold(each, |all, _| all.and(each))),
        false => (duties, each),
    };
    pool.check(count, berth, info.queue_depth)
}

/// Whether one reactor of a pool serves all queues.
fn go_together(info: &ublksrv_ctrl_dev_info) -> bool {
    info.flags & UBLK_F_BATCH_IO != 0
}

/// The names of the threads of a device of this number; those of a pool are unknown.
pub(super) fn names(id: u32, shifts: &[Shift]) -> Vec<String> {
    shifts.iter().map(|shift| format!("ublk{id}{}", shift.name)).collect()
}

/// The counters of all duties.
pub(super) fn tally(shifts: &[Shift]) -> Tally {
    let duties = shifts.iter().flat_map(|shift| &shift.duties);
    duties.map(|duty| (duty.queue, Arc::clone(&duty.counters))).collect()
}

impl<D: Driver> Launch<'_, D> {
    /// Finds a reactor for each shift: a new one, or one of the pool for each duty. Returns the mailboxes
    /// of the reactors.
    pub(super) fn staff<T: Target>(
        &self,
        options: &DeviceOptions,
        memory: Option<&Memory>,
        (target, shifts): (&Arc<T>, Vec<Shift>),
        events: &Events,
        pool: Option<&Pool<T>>,
        crew: &mut Crew,
    ) -> Result<Vec<Mailbox<T>>> {
        let char_device = open_char(self.driver, self.info.dev_id, options.limit)?;
        let zeros = self.driver.open_zeros().map_err(|error| {
            Error::os(Code::Kernel, "cannot open the source of zeros /dev/zero", "open", &error)
        })?;
        let leaves = pool.is_some() && can_be_left(self.info.flags);
        let service = |duty: Duty| {
            let events = events.clone();
            let left = leaves.then(|| (self.control.clone(), self.info.dev_id));
            Service {
                char_device: char_device.clone(),
                zeros: zeros.clone(),
                config: self.config(options, &duty),
                part: duty.part,
                target: Arc::clone(target),
                throttle: Arc::clone(self.throttle),
                shared: memory.map(Memory::map),
                counters: duty.counters,
                listener: Listener::new(move |news| {
                    if let (News::Lost { taken, .. }, Some((control, id))) = (&news, &left) {
                        // The supervisor repeats a command that the kernel refuses.
                        taken.store(change::take_away(control, *id).is_ok(), Ordering::Relaxed);
                    }
                    // Nobody listens when the device was given up.
                    let _unheard = events.send(Event::Queue(news));
                }),
            }
        };
        let (mut lent, mut mailboxes) = (Vec::new(), Vec::new());
        for shift in shifts {
            let place = self.place(options, &shift);
            let (count, behind) = (shift.duties.len(), shift.behind);
            let services = shift.duties.into_iter().map(service);
            if pool.is_some() {
                lent.extend(services);
                continue;
            }
            let cannot = |call| {
                move |error| Error::os(Code::Kernel, "cannot start a queue's thread", call, &error)
            };
            let mailbox = Mailbox::new().map_err(cannot("eventfd"))?;
            mailboxes.push(mailbox.clone());
            let waker = (!behind).then(|| mailbox.waker().clone());
            // Each service reports its end, also where the thread cannot be made.
            crew.expect(count);
            let thread = serve::spawn_for(self.driver.clone(), place, mailbox, services.collect())
                .map_err(cannot("clone"))?;
            crew.hire(thread, waker);
        }
        pool.map_or(Ok(mailboxes), |pool| self.lend(pool, lent, crew))
    }

    /// Spreads queues over the reactors of a pool. All queues of a batch device go to one reactor: when that
    /// reactor is lost, no other has the device open, and the kernel ends all requests of the device.
    fn lend<T: Target>(
        &self,
        pool: &Pool<T>,
        mut queues: Vec<Service<T>>,
        crew: &mut Crew,
    ) -> Result<Vec<Mailbox<T>>> {
        let mut mailboxes = Vec::new();
        while !queues.is_empty() {
            let together = if go_together(self.info) { queues.len() } else { 1 };
            let rest = queues.split_off(together);
            crew.expect(together);
            mailboxes.push(pool.assign(queues)?);
            queues = rest;
        }
        Ok(mailboxes)
    }

    /// Whether requests may end unseen by the reactors. A server that leaves a device waits for the requests
    /// in flight by the kernel's count, or, where the count is turned off, by the count of the reactors.
    pub(super) fn links(&self, options: &DeviceOptions) -> bool {
        let counted = match self.begin {
            Begin::Start => options.queue.iostats != Some(false),
            Begin::Recover => self.driver.counts_requests(self.info.dev_id),
        };
        counted || !recovers(self.info.flags)
    }

    fn config(&self, options: &DeviceOptions, duty: &Duty) -> QueueConfig {
        let Self { info, modes: (buffers, exchange), .. } = *self;
        QueueConfig {
            queue: duty.queue,
            depth: info.queue_depth,
            share: duty.share,
            transfer: transfer(buffers.mode, options.split_register),
            exchange,
            max_io_bytes: info.max_io_buf_bytes,
            spin: options.spin,
            descriptor_size: descriptor_size(info),
            features: info.flags,
            rotate_slots: options.rotate_slots,
            links: self.links(options),
        }
    }

    /// A thread with a share of every queue is bound to the CPUs of no queue.
    fn place(&self, options: &DeviceOptions, shift: &Shift) -> Place {
        let id = self.info.dev_id;
        let pinned = shift.queue.filter(|_| options.pin);
        let affinity = match &options.affinity {
            Some(cpus) => Some(affinity::mask(cpus)),
            None => pinned.and_then(|queue| self.control.queue_affinity(id, queue).ok()),
        };
        Place { name: format!("ublk{id}{}", shift.name), affinity }
    }
}

fn transfer(mode: BufferMode, split: bool) -> Transfer {
    match mode {
        BufferMode::Auto => Transfer::Auto,
        BufferMode::Register => Transfer::Register { split },
        BufferMode::UserCopy => Transfer::UserCopy,
        BufferMode::GetData => Transfer::GetData,
        BufferMode::Copy | BufferMode::Shared => Transfer::Copy,
    }
}

/// Kernels before 7.3 report no size.
fn descriptor_size(info: &ublksrv_ctrl_dev_info) -> usize {
    usize::from(info.io_desc_size).max(size_of::<ublksrv_io_desc>())
}

/// udev may still be making the node, or be looking at it (traps 24 and 42).
fn open_char<D: Driver>(driver: &D, id: u32, limit: Duration) -> Result<OpenFile> {
    let deadline = Instant::now() + limit;
    loop {
        match driver.open_char(id) {
            Ok(file) => return Ok(file),
            Err(error) if Instant::now() >= deadline || !passes(&error) => {
                let tried = format!("cannot open /dev/ublkc{id}");
                return Err(Error::os(Code::Kernel, tried, "open", &error)
                    .hint("is /dev a devtmpfs, and may this user open the node?"));
            }
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn passes(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENOENT | libc::EACCES))
}
