//! Takes a device down, for every cause of the service's end.
//!
//! The order prevents a hang: the queues serve until the kernel has aborted the queues' commands; the
//! rings, the mappings and the character device are released before the device is deleted; no
//! serving thread waits for STOP_DEV or DEL_DEV (traps 30 and 31).

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{io, mem};

use ublk_sys::UBLK_S_DEV_DEAD;

use super::{End, Shared, admin, change, leave};
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
        !self.wakers.is_empty() && !shared.lock().asked && waits_for_a_server(shared)
    }

    fn is_gone(&self) -> bool {
        self.ended == self.queues
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

/// The thread that waits for the end of a device's queues and then takes the device down. The thread
/// starts before the queues are served, so a served device always has a supervisor.
#[derive(Debug)]
pub(super) struct Supervisor<D: Driver> {
    charge: Sender<Charge<D>>,
}

/// A device, the device's crew, and the receiver of the crew's events.
type Charge<D> = (Arc<Shared<D>>, Crew, Receiver<Event>);

impl<D: Driver> Supervisor<D> {
    /// Starts the thread for device `id`. The thread ends when the supervisor is dropped without a
    /// call of [`take`](Self::take).
    ///
    /// # Errors
    /// The error of clone(2).
    pub(super) fn new(id: u32) -> Result<Self> {
        let (charge, handed_over) = channel::<Charge<D>>();
        let spawned = thread::Builder::new().name(format!("ublk{id}")).spawn(move || {
            if let Ok((shared, crew, inbox)) = handed_over.recv() {
                supervise::<D>(&shared, crew, &inbox);
            }
        });
        spawned.map_err(|error| Error::no_thread(&error))?;
        Ok(Self { charge })
    }

    /// Hands a served device over to the thread.
    pub(super) fn take(self, shared: Arc<Shared<D>>, crew: Crew, inbox: Receiver<Event>) {
        // Cannot fail: the thread waits to receive the device.
        let _taken = self.charge.send((shared, crew, inbox));
    }
}

/// Waits until all queues have ended, a queue is lost, or the device is left to the next server; then
/// dismisses the crew and takes the device down, unless the device waits for the next server.
fn supervise<D: Driver>(shared: &Shared<D>, mut crew: Crew, inbox: &Receiver<Event>) {
    while !crew.is_gone() && crew.lost.is_none() && !crew.leaving {
        match inbox.recv() {
            // `note` keeps the error in `crew.lost`.
            Ok(event) => drop(crew.note(event)),
            Err(_) => break,
        }
        if mem::take(&mut crew.closing) && crew.is_quiesced(shared) {
            leave::end_what_has_begun(shared);
            crew.leaving = true;
        }
    }
    let leaves = !shared.lock().asked && can_be_left(shared.info.flags);
    let parting = if leaves { Parting::Quiesce } else { Parting::Stop };
    let device = (&shared.control, shared.info.id);
    crew.dismiss(inbox, device, (parting, shared.options.limit));
    // A device counts as left only when the last request has ended, even after `limit`.
    while crew.leaving && !crew.is_gone() {
        crew.dismiss(inbox, device, (parting, shared.options.limit));
    }
    conclude(shared, crew.lost.take());
}

/// Decides the end of a device that is no longer served, and wakes the threads that wait for the end.
fn conclude<D: Driver>(shared: &Shared<D>, lost: Option<Error>) {
    let waits = waits_for_a_server(shared);
    let mut closing = shared.lock();
    if !closing.asked && waits {
        closing.end = Some(lost.map_or(End::Quiesced, End::Failed));
        shared.ended.notify_all();
        return;
    }
    drop(closing);
    let taken_down = take_down(shared);
    closing = shared.lock();
    closing.end = Some(match (lost, taken_down) {
        (Some(error), _) | (None, Err(error)) => End::Failed(error),
        (None, Ok(())) if closing.asked => End::Closed,
        (None, Ok(())) => End::Stopped,
    });
    shared.ended.notify_all();
}

/// Whether the device has recovery and has not been stopped, so that the next server can take over.
fn waits_for_a_server<D: Driver>(shared: &Shared<D>) -> bool {
    let state = shared.control.info(shared.info.id).map(|info| info.state);
    shared.info.recovery.is_some() && state.is_ok_and(|state| state != UBLK_S_DEV_DEAD)
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
