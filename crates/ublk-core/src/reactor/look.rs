//! A look at requests of a reactor's queues: what each of them waits for.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use super::Reactor;
use super::queue::Queue;
use crate::driver::Driver;
use crate::stats::Counters;
use crate::tag::Tag;
use crate::targets::{Request, Step, Target};

/// A question to a reactor, which is a sign of life when answered.
#[derive(Debug)]
pub struct Look {
    /// The tags asked for, of each queue by the queue's counters. The reactor may serve none of the queues.
    pub(crate) parts: Arc<Vec<(Arc<Counters>, Vec<Tag>)>>,
    /// The number of the reactor for whoever asks.
    pub(crate) reactor: usize,
    /// Gets the answer.
    pub(crate) told: Sender<Looked>,
}

/// The answer of a reactor.
#[derive(Debug)]
pub(crate) struct Looked {
    pub(crate) reactor: usize,
    /// The requests, each with the index of the part and the tag.
    pub(crate) found: Vec<(usize, Tag, Found)>,
}

/// A request in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// The request; meaningless while the request waits for the limits of the device.
    pub(crate) request: Request,
    pub(crate) awaits: Awaits,
}

/// What a request in flight waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaits {
    /// The limits of the device ([`Device::throttle`](crate::device::Device::throttle)).
    Limits,
    /// The answer of the handler.
    Handler,
    /// A step of the target.
    Step(Step),
    /// The request's buffer: its registration, or a copy.
    Buffer,
}

impl<D: Driver, T: Target> Reactor<D, T> {
    /// Answers a question.
    #[cold]
    pub(super) fn look(&self, look: &Look) {
        let mut found = Vec::new();
        for (part, (counters, tags)) in look.parts.iter().enumerate() {
            let mut seats = self.seats.iter().flatten();
            let Some(seat) = seats.find(|seat| Arc::ptr_eq(&seat.counters, counters)) else {
                continue;
            };
            found.extend(tags.iter().map(|&tag| (part, tag, seat.queue.found(tag))));
        }
        // Whoever asked may have gone.
        let _unheard = look.told.send(Looked { reactor: look.reactor, found });
    }
}

impl<T: Target> Queue<T> {
    fn found(&self, tag: Tag) -> Found {
        let asked = self.asking.as_ref().is_some_and(|asking| asking.port.is_asked(tag));
        let awaits = if self.gate.holds(tag) {
            Awaits::Limits
        } else if asked {
            Awaits::Handler
        } else {
            self.engine.awaited_step(tag).map_or(Awaits::Buffer, Awaits::Step)
        };
        Found { request: self.engine.request(tag), awaits }
    }
}
