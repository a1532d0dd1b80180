//! The watchdog of a device: requests that do not end, and reactors that do not answer.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use std::{fmt, fs};

use super::Device;
use crate::driver::Driver;
pub use crate::reactor::Awaits;
use crate::reactor::{Look, Looked, Mailbox, WeakMailbox};
use crate::stats::{Guard, Old};
use crate::targets::{REMOTE, Request, Target};

/// Something of a device that has stood still for [`DeviceOptions::watchdog`](super::DeviceOptions::watchdog).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stall {
    /// A request has not ended.
    Request {
        /// The number of the queue.
        queue: u16,
        /// The request.
        request: Request,
        /// How long the request has certainly been in flight.
        age: Duration,
        /// What the request waits for.
        awaits: Awaits,
        /// The file or the remote of an awaited step, where the process can tell the name.
        file: Option<PathBuf>,
    },
    /// A reactor has not answered for so long: its thread hangs in a system call, or gets no CPU.
    Reactor {
        /// The name of the reactor's thread, or a description of a pool's reactor.
        name: String,
        /// How long the reactor has not answered.
        age: Duration,
    },
}

impl<D: Driver> Device<D> {
    /// Looks at the requests in flight and at the reactors, and reports each stall once. Blocks for no
    /// reactor: a look reports what reactors have answered since the look before. Callers look at even
    /// intervals, shorter than [`DeviceOptions::watchdog`](super::DeviceOptions::watchdog); a stall is
    /// reported at most three intervals late and never early. Empty without that option, and after the
    /// end of the device.
    pub fn stalls(&self) -> Vec<Stall> {
        let mut stalls = self.shared.stalls.lock().unwrap_or_else(PoisonError::into_inner);
        stalls.as_mut().map(Stalls::look).unwrap_or_default()
    }
}

/// What the watchdog knows between two looks.
pub(super) struct Stalls {
    after: Duration,
    guard: Guard,
    reactors: Vec<Watched>,
    answers: (Sender<Looked>, Receiver<Looked>),
    /// The requests that the reactors have been asked for, by the index of the question's part.
    asked: Vec<(usize, Vec<Old>)>,
    name: Box<dyn Fn(u16) -> Option<PathBuf> + Send>,
}

/// A reactor, and the question that the reactor has not answered.
struct Watched {
    name: String,
    ask: Box<dyn Fn(Look) -> bool + Send>,
    since: Option<Instant>,
    reported: bool,
}

impl Stalls {
    /// The watchdog of a device whose requests `guard` stamps and `reactors` serve.
    pub(super) fn new<T: Target>(
        guard: Guard,
        after: Duration,
        target: &Arc<T>,
        reactors: &[(String, Mailbox<T>)],
    ) -> Self {
        let target = Arc::downgrade(target);
        let name = move |file: u16| {
            let target = target.upgrade()?;
            let remote = target.remotes().get(usize::from(file & !REMOTE));
            if let Some(remote) = remote.filter(|_| file & REMOTE != 0) {
                return Some(remote.name().into());
            }
            let fd = *target.files().get(usize::from(file))?;
            fs::read_link(format!("/proc/self/fd/{fd}")).ok()
        };
        let reactors = reactors
            .iter()
            .map(|(name, mailbox)| Watched::new(name, mailbox.downgrade()))
            .collect();
        let (answers, asked) = (channel(), Vec::new());
        Self { after, guard, reactors, answers, asked, name: Box::new(name) }
    }

    fn look(&mut self) -> Vec<Stall> {
        let mut stalls = Vec::new();
        while let Ok(looked) = self.answers.1.try_recv() {
            self.reactors[looked.reactor].since = None;
            self.reactors[looked.reactor].reported = false;
            stalls.extend(self.heard(&looked));
        }
        let old = self.guard.look(self.after);
        self.ask(old);
        for reactor in &mut self.reactors {
            let age = reactor.since.map(|since| since.elapsed());
            if let Some(age) = age.filter(|&age| age >= self.after && !reactor.reported) {
                reactor.reported = true;
                stalls.push(Stall::Reactor { name: reactor.name.clone(), age });
            }
        }
        stalls
    }

    /// The requests that a reactor has described, as far as the requests have not ended meanwhile.
    fn heard(&mut self, looked: &Looked) -> Vec<Stall> {
        let mut stalls = Vec::new();
        for &(part, tag, found) in &looked.found {
            let asked = self.asked.get(part);
            let old = asked.and_then(|(_, asked)| asked.iter().find(|old| old.tag == tag));
            let Some(&old) = old else { continue };
            if found.awaits == Awaits::Limits {
                self.guard.excuse(old);
                continue;
            }
            let Some(age) = self.guard.report(old) else { continue };
            let file = match found.awaits {
                Awaits::Step(step) if step.on_file() => (self.name)(step.file),
                _ => None,
            };
            let (queue, request) = (self.guard.queue(old.part), found.request);
            stalls.push(Stall::Request { queue, request, age, awaits: found.awaits, file });
        }
        stalls
    }

    /// Asks each reactor for a sign of life, and for the requests.
    fn ask(&mut self, old: Vec<Old>) {
        // While a reactor owes an answer, the question of that answer stays.
        if self.reactors.iter().all(|reactor| reactor.since.is_none()) {
            self.asked.clear();
            for one in old {
                match self.asked.iter_mut().find(|(part, _)| *part == one.part) {
                    Some((_, all)) => all.push(one),
                    None => self.asked.push((one.part, vec![one])),
                }
            }
        }
        let part = |(part, old): &(usize, Vec<Old>)| {
            let tags = old.iter().map(|old| old.tag).collect();
            (Arc::clone(self.guard.counters(*part)), tags)
        };
        let parts: Arc<Vec<_>> = Arc::new(self.asked.iter().map(part).collect());
        let now = Instant::now();
        for (number, reactor) in self.reactors.iter_mut().enumerate() {
            let (parts, told) = (Arc::clone(&parts), self.answers.0.clone());
            let look = Look { parts, reactor: number, told };
            if reactor.since.is_none() && (reactor.ask)(look) {
                reactor.since = Some(now);
            }
        }
    }
}

impl Watched {
    fn new<T: Target>(name: &str, mailbox: WeakMailbox<T>) -> Self {
        let ask = move |look| match mailbox.upgrade() {
            Some(mailbox) if mailbox.is_open() => {
                mailbox.ask(look);
                true
            }
            // The reactor has ended.
            _ => false,
        };
        Self { name: name.to_owned(), ask: Box::new(ask), since: None, reported: false }
    }
}

impl fmt::Debug for Stalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stalls").field("after", &self.after).finish_non_exhaustive()
    }
}
