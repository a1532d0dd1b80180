//! Taking a device down, whoever ended it.
//!
//! The order cannot hang: the queues serve until the kernel has aborted their commands; their
//! rings, mappings and the character device are gone before the device is deleted; nobody who
//! serves waits for the kernel (traps 30 and 31).

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

/// What is being told while a device comes up and goes down.
#[derive(Debug)]
pub(super) enum Event {
    /// Of one of its queues.
    Queue(News),
    /// `START_DEV` has answered.
    Started(Result<()>),
    /// The device shall be left to the next server.
    Leave,
}

/// What becomes of a device when those who serve it are dismissed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parting {
    /// It is stopped.
    Stop,
    /// It is taken away from reactors that do not end (`QUIESCE_DEV`), and waits for its next server.
    Quiesce,
    /// It stays as it is: it is in recovery, where the kernel takes it away from nobody.
    Stay,
}

/// How often a device is taken away from reactors that have not left it.
const PAUSE: Duration = Duration::from_millis(50);

/// Those who serve a device's queues.
#[derive(Debug, Default)]
pub(super) struct Crew {
    /// Reactors of its own; none, if the device's queues are served by a pool.
    threads: Vec<JoinHandle<()>>,
    wakers: Vec<Waker>,
    /// Queues, or what each thread has of one.
    queues: usize,
    ready: usize,
    ended: usize,
    lost: Option<Error>,
    /// The kernel takes fetches back.
    closing: bool,
    leaving: bool,
}

impl Crew {
    /// So many queues more will tell what becomes of them.
    pub(super) fn expect(&mut self, queues: usize) {
        self.queues += queues;
    }

    /// A thread for some of the queues, which the waker ends, if it does not end by itself.
    pub(super) fn hire(&mut self, thread: JoinHandle<()>, waker: Option<Waker>) {
        self.threads.push(thread);
        self.wakers.extend(waker);
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready == self.queues
    }

    /// Whether somebody takes the device from us, rather than stops it. The kernel then takes back
    /// only the fetches that it meets; the rest are those of requests that ended meanwhile.
    fn is_quiesced<D: Driver>(&self, shared: &Shared<D>) -> bool {
        !self.wakers.is_empty() && !shared.lock().asked && waits_for_a_server(shared)
    }

    fn is_gone(&self) -> bool {
        self.ended == self.queues
    }

    /// Takes note of an event; an error when a queue is lost.
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

    /// Ends all queues and waits until nothing of them is left: those with a thread of their own
    /// without the kernel's help, those of a pool by taking the device away from them, or by
    /// stopping it. What does not end, because what lies behind it does not answer, is left to
    /// itself.
    pub(super) fn dismiss<D: Driver>(
        &mut self,
        inbox: &Receiver<Event>,
        (control, id): (&Control<D>, u32),
        (parting, limit): (Parting, Duration),
    ) {
        let pooled = self.wakers.is_empty();
        if pooled && !self.is_gone() && parting == Parting::Stop {
            // A queue that is told to end meanwhile is what this is for.
            let _stopped = control.stop(id, limit);
        }
        let deadline = Instant::now() + limit;
        while !self.is_gone() {
            self.wakers.iter().for_each(Waker::quit);
            if pooled && parting == Parting::Quiesce {
                // Refused while all tags of a queue are taken by requests that wait: tried again.
                let _taken = change::take_away(control, id);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match inbox.recv_timeout(if pooled { left.min(PAUSE) } else { left }) {
                // What is lost by now has been told, or will be.
                Ok(event) => drop(self.note(event)),
                Err(_) if Instant::now() < deadline => {}
                Err(_) => return,
            }
        }
        self.join();
    }

    fn join(&mut self) {
        for thread in self.threads.drain(..) {
            // A panic was caught and sent as the queue's end.
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

/// The thread that waits for the end of a device's queues, and takes the device down then. It is
/// there before the queues are served, so that nothing that is served is left to nobody.
#[derive(Debug)]
pub(super) struct Supervisor<D: Driver> {
    charge: Sender<Charge<D>>,
}

/// A device, its crew, and where the crew's news arrives.
type Charge<D> = (Arc<Shared<D>>, Crew, Receiver<Event>);

impl<D: Driver> Supervisor<D> {
    /// Starts the thread for device `id`. The thread ends by itself when no device is handed over.
    ///
    /// # Errors
    /// What clone(2) says.
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

    /// Hands a device over that is being served.
    pub(super) fn take(self, shared: Arc<Shared<D>>, crew: Crew, inbox: Receiver<Event>) {
        // The thread waits for it.
        let _taken = self.charge.send((shared, crew, inbox));
    }
}

/// Waits for the end of all queues, then takes the device down.
fn supervise<D: Driver>(shared: &Shared<D>, mut crew: Crew, inbox: &Receiver<Event>) {
    while !crew.is_gone() && crew.lost.is_none() && !crew.leaving {
        match inbox.recv() {
            // Kept in `crew.lost`.
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
    // Who leaves the device has not left before the last request has ended.
    while crew.leaving && !crew.is_gone() {
        crew.dismiss(inbox, device, (parting, shared.options.limit));
    }
    conclude(shared, crew.lost.take());
}

/// Decides what becomes of a device that is served no more, and tells who waits.
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

/// Whether the device has outlived us, rather than been stopped.
fn waits_for_a_server<D: Driver>(shared: &Shared<D>) -> bool {
    let state = shared.control.info(shared.info.id).map(|info| info.state);
    shared.info.recovery.is_some() && state.is_ok_and(|state| state != UBLK_S_DEV_DEAD)
}

/// All queues have ended, and with them the last hold on the character device.
fn take_down<D: Driver>(shared: &Shared<D>) -> Result<()> {
    let (id, limit) = (shared.info.id, shared.options.limit);
    match shared.control.stop(id, limit) {
        Err(error) if error.code != Code::NoDevice => return Err(error),
        _ => {}
    }
    admin::delete_and_wait(&shared.control, id, limit)
}
