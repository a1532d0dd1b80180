//! Reactors that many devices share.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::options::validate_spin;
use super::serve::{self, Place};
use crate::driver::{Driver, RingSize};
use crate::error::{Code, Error, Result};
use crate::reactor::{Capacity, Listener, MAX_SLOTS, Mailbox, News, Service};
use crate::target::Target;

/// Files of a reactor: three or more per queue.
const FILES: u32 = 1 << 12;

/// What [`Pool::new`] is asked for.
#[derive(Clone, Copy, Debug)]
pub struct PoolOptions {
    /// Reactors, each with a thread of its own, from 1 to 1024.
    pub reactors: u16,
    /// How long each looks for work before it sleeps, at most a second; 0: not at all. See
    /// [`DeviceOptions::spin`](super::DeviceOptions::spin).
    pub spin: Duration,
}

/// Reactors that serve the queues of many devices: what an idle device costs is then a supervisor
/// that sleeps and the memory of its tags. Its threads end when it is [closed](Self::close), or with
/// the last clone of the pool and the last of its devices.
///
/// A reactor takes as many queues as its tables hold: 16,384 tags with zero copy, and as many
/// files as the process may have open, up to 4,096. Queues that share a reactor share its CPU, and
/// its fate if the kernel breaks its ring.
#[derive(Debug)]
pub struct Pool<T> {
    reactors: Arc<[Member<T>]>,
}

#[derive(Debug)]
struct Member<T> {
    mailbox: Mailbox<T>,
    queues: Arc<AtomicUsize>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<T: Target> Pool<T> {
    /// Starts the reactors.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`]; what io_uring_setup(2) says.
    pub fn new<D: Driver>(driver: &D, options: PoolOptions) -> Result<Self> {
        if !(1..=1024).contains(&options.reactors) {
            let message = format!("reactors is {}; it must be from 1 to 1024", options.reactors);
            return Err(Error::new(Code::InvalidArgument, message));
        }
        validate_spin(options.spin)?;
        let members = (0..options.reactors).map(|number| Member::new(driver, number, options.spin));
        Ok(Self { reactors: members.collect::<Result<_>>()? })
    }

    /// Ends the reactors, whatever clones there are, and waits until their threads are gone. A pool
    /// that has been closed has ended: doing so again does nothing, and devices cannot be created.
    ///
    /// # Errors
    /// [`Code::Busy`] while it serves a device; it goes on then.
    pub fn close(&self) -> Result<()> {
        let queues: usize =
            self.reactors.iter().map(|one| one.queues.load(Ordering::Acquire)).sum();
        if queues > 0 {
            let message = format!("the pool still serves {queues} queues");
            return Err(Error::new(Code::Busy, message).hint("close its devices first"));
        }
        self.reactors.iter().for_each(|one| one.mailbox.waker().quit());
        let threads = self
            .reactors
            .iter()
            .map(|one| one.thread.lock().unwrap_or_else(PoisonError::into_inner).take());
        for thread in threads.flatten() {
            // A reactor hands its panics to its devices.
            let _ended = thread.join();
        }
        Ok(())
    }

    /// Gives a queue, or a share of one, to the reactor that has the fewest.
    pub(super) fn assign(&self, mut service: Service<T>) {
        let load = |member: &&Member<T>| member.queues.load(Ordering::Relaxed);
        let Some(member) = self.reactors.iter().min_by_key(load) else { return };
        member.queues.fetch_add(1, Ordering::Relaxed);
        let (queues, reactors) = (Arc::clone(&member.queues), Arc::clone(&self.reactors));
        let mut maker = std::mem::take(&mut service.listener);
        service.listener = Listener::new(move |news| {
            // The pool lives as long as its last queue.
            let _kept = &reactors;
            if matches!(news, News::Ended(_)) {
                // Release: whoever closes the pool sees what the queue left behind.
                queues.fetch_sub(1, Ordering::Release);
            }
            maker.hear(news);
        });
        member.mailbox.send(service);
    }
}

impl<T> Clone for Pool<T> {
    fn clone(&self) -> Self {
        Self { reactors: Arc::clone(&self.reactors) }
    }
}

impl<T: Target> Member<T> {
    fn new<D: Driver>(driver: &D, number: u16, spin: Duration) -> Result<Self> {
        let cannot =
            |error| Error::os(Code::Kernel, "cannot start a reactor", "io_uring_setup", &error);
        let mailbox = Mailbox::new().map_err(cannot)?;
        let (told, outcome) = channel();
        let place = Place { name: format!("ublk-pool{number}"), affinity: None };
        let theirs = mailbox.clone();
        let thread = serve::spawn(driver.clone(), place, theirs, capacity(spin), move |result| {
            // The maker waits for it.
            let _heard = told.send(result);
        })
        .map_err(cannot)?;
        let gone = |_| std::io::Error::other("its thread is gone");
        outcome.recv().map_err(gone).and_then(|result| result).map_err(cannot)?;
        Ok(Self { mailbox, queues: Arc::default(), thread: Mutex::new(Some(thread)) })
    }
}

impl<T> Drop for Member<T> {
    fn drop(&mut self) {
        self.mailbox.waker().quit();
    }
}

fn capacity(spin: Duration) -> Capacity {
    Capacity {
        // What is in flight beyond that, the kernel keeps.
        ring: RingSize { submissions: 1024, completions: 1 << 14, tells_of_work: !spin.is_zero() },
        files: FILES.min(may_open()),
        slots: MAX_SLOTS,
        spin,
    }
}

/// The kernel lets no file table be larger than a process's descriptors.
fn may_open() -> u32 {
    // SAFETY: fills a struct of ours.
    let limit = unsafe {
        let mut limit = std::mem::zeroed::<libc::rlimit>();
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur
    };
    u32::try_from(limit).unwrap_or(FILES).max(1)
}
