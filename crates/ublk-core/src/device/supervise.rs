//! Taking a device down, whoever ended it.
//!
//! The order cannot hang: the queues serve until the kernel has aborted their commands; their
//! rings, mappings and the character device are gone before the device is deleted; nobody who
//! serves waits for the kernel (traps 30 and 31).

use std::io;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::serve::Event;
use super::{End, Shared, admin};
use crate::driver::Driver;
use crate::error::{Code, Error, Result};
use crate::reactor::Waker;

/// The threads that serve a device's queues.
#[derive(Debug, Default)]
pub(super) struct Crew {
    threads: Vec<JoinHandle<()>>,
    wakers: Vec<Waker>,
    ended: usize,
    lost: Option<Error>,
}

impl Crew {
    pub(super) fn add(&mut self, thread: JoinHandle<()>) {
        self.threads.push(thread);
    }

    pub(super) fn is_ready(&self) -> bool {
        self.wakers.len() == self.threads.len()
    }

    /// Takes note of an event; an error when a queue is lost.
    pub(super) fn note(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Ready(waker) => self.wakers.push(waker),
            Event::Started(_) => {}
            Event::Ended(result) => {
                self.ended += 1;
                if let Err(error) = result {
                    let error = queue_lost(&error);
                    self.lost.get_or_insert(error.clone());
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Ends all queues without the kernel's help and waits for their threads. A thread that does
    /// not end, because what lies behind it does not answer, is left to itself.
    pub(super) fn dismiss(&mut self, inbox: &Receiver<Event>, limit: Duration) {
        let deadline = Instant::now() + limit;
        while self.ended < self.threads.len() {
            self.wakers.iter().for_each(Waker::quit);
            let left = deadline.saturating_duration_since(Instant::now());
            match inbox.recv_timeout(left) {
                // What is lost by now has been told, or will be.
                Ok(event) => drop(self.note(event)),
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

fn queue_lost(error: &io::Error) -> Error {
    Error::os(Code::Kernel, "a queue of the device is lost", "io_uring_enter", error)
        .hint("the device is taken down; requests in flight fail")
}

/// Waits on a thread of its own for the end of all queues, then takes the device down.
pub(super) fn supervise<D: Driver>(
    shared: Arc<Shared<D>>,
    mut crew: Crew,
    inbox: Receiver<Event>,
) -> Result<()> {
    let name = format!("ublk{}", shared.info.id);
    let spawned = thread::Builder::new().name(name).spawn(move || {
        while crew.ended < crew.threads.len() && crew.lost.is_none() {
            match inbox.recv() {
                // Kept in `crew.lost`.
                Ok(event) => drop(crew.note(event)),
                Err(_) => break,
            }
        }
        crew.dismiss(&inbox, shared.options.limit);
        let taken_down = take_down(&shared);
        let mut closing = shared.lock();
        closing.end = Some(match (crew.lost.take(), taken_down) {
            (Some(error), _) | (None, Err(error)) => End::Failed(error),
            (None, Ok(())) if closing.asked => End::Closed,
            (None, Ok(())) => End::Stopped,
        });
        shared.ended.notify_all();
    });
    let failed = |error| Error::os(Code::Kernel, "cannot start a thread", "clone", &error);
    spawned.map(drop).map_err(failed)
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
