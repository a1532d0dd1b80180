//! Who serves what of a device: a thread for each queue, threads that the tags of all queues are
//! dealt out to, or the reactors of a pool.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use ublk_sys::{ublksrv_ctrl_dev_info, ublksrv_io_desc};

use super::affinity;
use super::create::Launch;
use super::memory::Memory;
use super::options::{BufferMode, DeviceOptions};
use super::pool::Pool;
use super::serve::{self, Place};
use super::supervise::{Crew, Event};
use crate::driver::{Driver, OpenFile};
use crate::error::{Code, Error, Result};
use crate::reactor::{Listener, Mailbox, QueueConfig, Service, Share, Transfer};
use crate::stats::{Counters, Tally};
use crate::target::Target;

/// What one thread has of one queue.
pub(super) struct Duty {
    queue: u16,
    share: Share,
    counters: Arc<Counters>,
}

/// What each thread has to do: all of a queue, or, of so many threads, its share of each.
pub(super) fn shifts(info: &ublksrv_ctrl_dev_info, threads: Option<u16>) -> Vec<Vec<Duty>> {
    let queues = 0..info.nr_hw_queues;
    let duty = |queue, share| Duty { queue, share, counters: Arc::default() };
    let Some(threads) = threads else {
        return queues.map(|queue| vec![duty(queue, Share::WHOLE)]).collect();
    };
    let shares = |thread| {
        let of = |queue| Share::of(thread, threads, queue, info.queue_depth);
        queues.clone().filter_map(|queue| Some(duty(queue, of(queue)?))).collect()
    };
    (0..threads).map(shares).filter(|duties: &Vec<_>| !duties.is_empty()).collect()
}

/// The counters of all that there is to do.
pub(super) fn tally(shifts: &[Vec<Duty>]) -> Tally {
    shifts.iter().flatten().map(|duty| (duty.queue, Arc::clone(&duty.counters))).collect()
}

impl<D: Driver> Launch<'_, D> {
    /// Finds a reactor for each shift: one of its own, or for each duty one of the pool.
    pub(super) fn staff<T: Target>(
        &self,
        options: &DeviceOptions,
        memory: Option<&Memory>,
        (target, shifts): (&Arc<T>, Vec<Vec<Duty>>),
        events: &Sender<Event>,
        pool: Option<&Pool<T>>,
        crew: &mut Crew,
    ) -> Result<()> {
        let char_device = open_char(self.driver, self.info.dev_id, options.limit)?;
        let zeros = self.driver.open_zeros().map_err(|error| {
            Error::os(Code::Kernel, "cannot open the source of zeros /dev/zero", "open", &error)
        })?;
        let service = |duty: &Duty| {
            let events = events.clone();
            Service {
                char_device: char_device.clone(),
                zeros: zeros.clone(),
                config: self.config(options, duty),
                target: Arc::clone(target),
                shared: memory.map(Memory::map),
                counters: Arc::clone(&duty.counters),
                listener: Listener::new(move |news| {
                    // Nobody listens when the device was given up.
                    let _unheard = events.send(Event::Queue(news));
                }),
            }
        };
        for (number, duties) in shifts.iter().enumerate() {
            let services = duties.iter().map(service);
            if let Some(pool) = pool {
                services.for_each(|service| pool.assign(service));
                crew.borrow(duties.len());
                continue;
            }
            let place = self.place(options, number, duties);
            let cannot =
                |error| Error::os(Code::Kernel, "cannot start a queue's thread", "clone", &error);
            let mailbox = Mailbox::new().map_err(cannot)?;
            let waker = mailbox.waker().clone();
            let thread = serve::spawn_for(self.driver.clone(), place, mailbox, services.collect())
                .map_err(cannot)?;
            crew.hire(thread, waker, duties.len());
        }
        Ok(())
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
        }
    }

    /// Threads that have something of every queue belong to no queue's CPUs.
    fn place(&self, options: &DeviceOptions, number: usize, duties: &[Duty]) -> Place {
        let id = self.info.dev_id;
        let queue = duties.first().map(|duty| duty.queue).filter(|_| options.threads.is_none());
        let pinned = queue.filter(|_| options.pin);
        let affinity = match &options.affinity {
            Some(cpus) => Some(affinity::mask(cpus)),
            None => pinned.and_then(|queue| self.control.queue_affinity(id, queue).ok()),
        };
        let name = match queue {
            Some(queue) => format!("ublk{id}q{queue}"),
            None => format!("ublk{id}t{number}"),
        };
        Place { name, affinity }
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
