//! Takes a device down, for every cause of the service's end.
//!
//! The order prevents a hang: the queues serve until the kernel has aborted the queues' commands; the
//! rings, the mappings and the character device are released before the device is deleted; no
//! serving thread waits for STOP_DEV or DEL_DEV (traps 30 and 31).

use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{io, mem};

use ublk_sys::UBLK_S_DEV_DEAD;

use super::supervisor::{Charge, Post};
use super::{Closing, End, Shared, admin, change, leave};
use crate::aside;
use crate::control::Control;
use crate::driver::Driver;
use crate::error::{Code, Error, Result};
use crate::reactor::{News, Waker, can_be_left};

/// An event of a device's start, service or end.
#[derive(Debug)]
pub(super) enum Event {
    /// News of a queue of the device.
    Queue(News),
    /// `START_DEV` or `END_USER_RECOVERY` has returned.
    Started(Result<()>),
    /// A caller wants to leave the device to the next server.
    Leave,
}

/// The fate of a device whose crew is dismissed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parting {
    /// The device is stopped.
    Stop,
    /// `QUIESCE_DEV` takes the device away from reactors that do not end (a pool's); the device waits
    /// for the next server.
    Quiesce,
    /// The device stays in recovery, a state in which the kernel takes a device from no reactor.
    Stay,
}

/// Interval of the attempts to take a device away from a pool's reactors.
const PAUSE: Duration = Duration::from_millis(50);

/// The threads that serve a device's queues, and the state of the queues.
#[derive(Debug, Default)]
pub(super) struct Crew {
    /// The threads of the device's own reactors; empty if a pool serves the device's queues.
    threads: Vec<JoinHandle<()>>,
    wakers: Vec<Waker>,
    /// The number of services: a service is a queue, or a thread's share or part of a queue.
    queues: usize,
    ready: usize,
    ended: usize,
    lost: Option<Error>,
    /// The kernel has aborted a fetch.
    closing: bool,
    leaving: bool,
    /// The queues have been told to end, and end when the last request has.
    dismissed: bool,
}

impl Crew {
    /// Adds `queues` services, each of which will send news.
    pub(super) fn expect(&mut self, queues: usize) {
        self.queues += queues;
    }

    /// Adds a thread that serves some of the queues. `waker` ends the thread; `None` for a thread that
    /// ends without a waker.
    pub(super) fn hire(&mut self, thread: JoinHandle<()>, waker: Option<Waker>) {
        self.threads.push(thread);
        self.wakers.extend(waker);
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready == self.queues
    }

    /// Whether the device is being taken from this server (`QUIESCE_DEV`) rather than stopped. The
    /// kernel then aborts only the fetches present at the time of `QUIESCE_DEV`, not the fetches of
    /// requests completed later.
    fn is_quiesced<D: Driver>(&self, shared: &Shared<D>) -> bool {
        self.can_be_quiesced(shared) && waits_for_a_server(shared)
    }

    /// [`is_quiesced`](Self::is_quiesced), as far as the kernel need not be asked.
    fn can_be_quiesced<D: Driver>(&self, shared: &Shared<D>) -> bool {
        !self.wakers.is_empty() && shared.info.recovery.is_some() && !shared.lock().asked
    }

    fn is_gone(&self) -> bool {
        self.ended == self.queues
    }

    /// Whether a thread must look after the device, which may block the thread.
    fn needs_a_hand(&self) -> bool {
        let begins_to_end = self.lost.is_some() || self.leaving || self.closing;
        self.is_gone() || !self.dismissed && begins_to_end
    }

    /// Records an event. Returns the error of a queue that is lost, refused by the kernel or ended by
    /// an error.
    pub(super) fn note(&mut self, event: Event) -> Result<()> {
        let lost = match event {
            Event::Queue(News::Ready) => {
                self.ready += 1;
                return Ok(());
            }
            Event::Queue(News::Closing) => {
                self.closing = true;
                return Ok(());
            }
            Event::Queue(News::Ended(result)) => {
                self.ended += 1;
                result
            }
            Event::Queue(News::Refused(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Event::Queue(News::Lost { error, .. }) => Err(error),
            Event::Started(_) => Ok(()),
            Event::Leave => {
                self.leaving = true;
                Ok(())
            }
        };
        lost.map_err(|error| {
            let error = if self.is_ready() { queue_lost(&error) } else { not_served(&error) };
            self.lost.get_or_insert(error.clone());
            error
        })
    }

    /// Ends all queues and waits until the queues are released. The wakers end the queues of own
    /// threads, without the kernel's help; the queues of a pool end because the kernel takes the device
    /// away or stops the device. After `limit`, a queue whose backing store does not answer is left
    /// running.
    pub(super) fn dismiss<D: Driver>(
        &mut self,
        inbox: &Receiver<Event>,
        (control, id): (&Control<D>, u32),
        (parting, limit): (Parting, Duration),
    ) {
        let pooled = self.wakers.is_empty();
        if pooled && !self.is_gone() && parting == Parting::Stop {
            // STOP_DEV makes the kernel end the queues; the result of STOP_DEV does not matter.
            let _stopped = control.stop(id, limit);
        }
        let deadline = Instant::now() + limit;
        while !self.is_gone() {
            self.wakers.iter().for_each(Waker::quit);
            if pooled && parting == Parting::Quiesce {
                // Fails while waiting requests occupy all tags of a queue; the loop tries again.
                let _taken = change::take_away(control, id);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match inbox.recv_timeout(if pooled { left.min(PAUSE) } else { left }) {
                // The caller has reported the loss of a queue, or reports `self.lost` later.
                Ok(event) => drop(self.note(event)),
                Err(_) if Instant::now() < deadline => {}
                Err(_) => return,
            }
        }
        self.join();
    }

    fn join(&mut self) {
        for thread in self.threads.drain(..) {
            // The thread has caught a panic and sent the panic as the queue's end.
            let _told = thread.join();
        }
    }
}

fn not_served(error: &io::Error) -> Error {
    Error::os(Code::Kernel, "a queue of the device cannot be served", "io_uring_setup", error)
        .hint("the device is not created")
}

fn queue_lost(error: &io::Error) -> Error {
    Error::os(Code::Kernel, "a queue of the device is lost", "io_uring_enter", error)
        .hint("the device is taken down; requests in flight fail")
}

/// The crew of a served device, and the crew's events.
#[derive(Debug)]
pub(super) struct Staff {
    pub(super) crew: Crew,
    pub(super) inbox: Receiver<Event>,
    /// Where the supervisor has the device.
    pub(super) post: Post,
}

/// A device that is being served.
struct Served<D: Driver> {
    shared: Arc<Shared<D>>,
    staff: Staff,
}

/// Leaves a served device to the supervisor until the end of the service begins.
pub(super) fn entrust<D: Driver>(shared: Arc<Shared<D>>, staff: Staff) {
    let post = staff.post.clone();
    post.entrust(Box::new(Served { shared, staff }));
}

impl<D: Driver> Charge for Served<D> {
    fn is_due(&mut self) -> bool {
        let Staff { crew, inbox, .. } = &mut self.staff;
        while !crew.is_gone() {
            match inbox.try_recv() {
                // `note` keeps the error in `crew.lost`.
                Ok(event) => drop(crew.note(event)),
                Err(TryRecvError::Empty) => break,
                // No thread is left that could serve a queue.
                Err(TryRecvError::Disconnected) => crew.ended = crew.queues,
            }
        }
        crew.closing &= crew.can_be_quiesced(&self.shared);
        crew.needs_a_hand()
    }

    fn hand_over(self: Box<Self>) {
        let Self { shared, staff } = *self;
        let mut closing = shared.lock();
        closing.staff = Some(staff);
        delegate(&shared, closing);
    }
}

/// Sees to a thread that looks after a device whose service ends, if no thread does: one that waits for
/// the end, one that stops the device and will wait, or one of `aside`.
pub(super) fn delegate<D: Driver>(shared: &Arc<Shared<D>>, closing: MutexGuard<'_, Closing>) {
    let Some(staff) = &closing.staff else { return };
    if closing.waiting > 0 {
        shared.ended.notify_all();
        return;
    }
    // STOP_DEV may be waiting for a queue that is lost.
    if closing.stopping && staff.crew.is_gone() {
        return;
    }
    drop(closing);
    let shared = Arc::clone(shared);
    // Refused only where the process has no thread of `aside`; `Post::open` has made one.
    let _delegated = aside::run(move || {
        let staff = shared.lock().staff.take();
        staff.into_iter().for_each(|staff| attend(&shared, staff, None));
    });
}

/// Looks after a device whose service may be ending: dismisses the crew and takes the device down,
/// unless the device waits for the next server. Returns the device to the supervisor where the service
/// goes on, and where only the end of requests is missing. The kernel takes a pool's fetches away only
/// by repeated commands: these go on until `deadline` here, and then on another thread.
pub(super) fn attend<D: Driver>(
    shared: &Arc<Shared<D>>,
    mut staff: Staff,
    deadline: Option<Instant>,
) {
    let Staff { crew, inbox, .. } = &mut staff;
    if mem::take(&mut crew.closing) && crew.is_quiesced(shared) {
        leave::end_what_has_begun(shared);
        crew.leaving = true;
    }
    if !crew.is_gone() && crew.lost.is_none() && !crew.leaving {
        return entrust(Arc::clone(shared), staff);
    }
    let leaves = !shared.lock().asked && can_be_left(shared.info.flags);
    let parting = if leaves { Parting::Quiesce } else { Parting::Stop };
    let (device, limit) = ((&shared.control, shared.info.id), shared.options.limit);
    crew.dismiss(inbox, device, (parting, limit));
    crew.dismissed = true;
    // A device counts as left only when the last request has ended, even after `limit`.
    while crew.leaving && !crew.is_gone() {
        if !crew.wakers.is_empty() {
            return entrust(Arc::clone(shared), staff);
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            let shared = Arc::clone(shared);
            // Refused only where the process has no thread of `aside`.
            return drop(aside::run(move || attend(&shared, staff, None)));
        }
        crew.dismiss(inbox, device, (parting, limit));
    }
    conclude(shared, crew.lost.take());
}

/// Decides the end of a device that is no longer served, and wakes the threads that wait for the end.
fn conclude<D: Driver>(shared: &Shared<D>, lost: Option<Error>) {
    let waits = waits_for_a_server(shared);
    let closing = shared.lock();
    if !closing.asked && waits {
        return shared.end(closing, &lost.map_or(End::Quiesced, End::Failed));
    }
    drop(closing);
    let taken_down = take_down(shared);
    let closing = shared.lock();
    let end = match (lost, taken_down) {
        (Some(error), _) | (None, Err(error)) => End::Failed(error),
        (None, Ok(())) if closing.asked => End::Closed,
        (None, Ok(())) => End::Stopped,
    };
    shared.end(closing, &end);
}

/// Whether the device has recovery and has not been stopped, so that the next server can take over.
fn waits_for_a_server<D: Driver>(shared: &Shared<D>) -> bool {
    let state = || shared.control.info(shared.info.id).map(|info| info.state);
    shared.info.recovery.is_some() && state().is_ok_and(|state| state != UBLK_S_DEV_DEAD)
}

/// Stops and deletes a device whose queues have ended and have released the character device.
fn take_down<D: Driver>(shared: &Shared<D>) -> Result<()> {
    let (id, limit) = (shared.info.id, shared.options.limit);
    match shared.control.stop(id, limit) {
        Err(error) if error.code != Code::NoDevice => return Err(error),
        _ => {}
    }
    admin::delete_and_wait(&shared.control, id, limit)
}
