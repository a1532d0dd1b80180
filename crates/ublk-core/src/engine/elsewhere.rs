//! Requests of a handler, whose plans come from the peer of the bridge: such a request begins without
//! a plan, may run several plans, and ends with the peer's answer or with the plan that the peer
//! marked as the last ([`After::End`]).

use super::flight::{Flight, Lease};
use super::staging::Staging;
use super::{Engine, Outcome, Settled};
use crate::driver::Ring;
use crate::pass::Pass;
use crate::tag::Tag;
use crate::targets::{Errno, Plan, Request, Target};

/// The state of a request once the steps of a plan have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// The request ends.
    End,
    /// The request keeps the buffer and waits for the next plan or the answer.
    Hold,
}

impl<T: Target> Engine<T> {
    /// Takes in a request that the peer answers; `address` as for [`begin`](Self::begin). Returns
    /// `Held` if the reactor can ask the peer now, `Running` while the engine fetches the request's
    /// bytes.
    #[inline]
    pub(crate) fn admit<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        (request, address): (Request, u64),
    ) -> Settled {
        self.running += 1;
        self.flights[tag.index()] = Flight::new(request);
        if self.direct {
            return Ok(Outcome::Held(0));
        }
        self.staging[tag.index()] = Staging::at(address);
        if self.aids.lent.is_some() && request.op.has_data() {
            return self.bring(pass, tag);
        }
        Ok(Outcome::Held(0))
    }

    /// Places a request's bytes in the tag's lent buffer, visible to the peer: fetches the bytes of a
    /// write; the buffer of a read is stored when the read has succeeded.
    #[cold]
    fn bring<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag) -> Settled {
        let flight = &mut self.flights[tag.index()];
        let place = self.aids.lent.as_ref().map(|lent| lent.at(tag.index(), 0) as u64);
        let staged = Staging::at(place.unwrap_or_default());
        self.staging[tag.index()] = staged;
        if flight.request.op.fills() {
            flight.lease = Lease::ToStore;
            return Ok(Outcome::Held(0));
        }
        (flight.lease, flight.held) = (Lease::InMemory, true);
        self.fetch(pass, tag)
    }

    /// Records the offset of a zone append's data, in bytes; called before [`answer`](Self::answer).
    #[cold]
    pub(crate) fn landed(&self, tag: Tag, place: u64) {
        if let Some(landings) = &self.aids.landings {
            landings[tag.index()].set(place >> 9);
        }
    }

    /// Ends a request with the peer's answer. No step of the request may be in flight.
    #[inline]
    pub(crate) fn answer<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        result: Result<(), Errno>,
    ) -> Settled {
        let flight = &mut self.flights[tag.index()];
        flight.held = false;
        (flight.planned, flight.started, flight.attach_errno) = (0, 0, 0);
        flight.errno = result.err().map_or(0, |errno| errno.0);
        // The peer's answer is final: the engine does not ask the target for another round.
        flight.ask_no_more();
        self.finish(pass, tag)
    }

    /// Runs the plan that `fill` makes, then ends or holds the request as `fill` returns; `alone` as
    /// for [`begin`](Self::begin).
    ///
    /// # Errors
    /// The error of `fill`; no step has started then.
    pub(crate) fn run<R: Ring, E>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        alone: bool,
        fill: impl FnOnce(&T, &Request, &mut Plan<'_>) -> Result<After, E>,
    ) -> Result<Settled, E> {
        let first = tag.index() * self.max_steps;
        let mut plan = Plan::new(&mut self.steps[first..first + self.max_steps]);
        let request = self.flights[tag.index()].request;
        let after = fill(&self.target, &request, &mut plan)?;
        let steps = plan.len();
        let flight = &mut self.flights[tag.index()];
        let fresh = flight.lease.slot().is_none();
        (flight.held, flight.errno) = (after == After::Hold, 0);
        let placed = self.direct || flight.lease != Lease::Standing;
        if !placed || after == After::Hold || steps != 1 || !fresh {
            return Ok(self.launch_round(pass, tag, steps));
        }
        Ok(match self.express_step(pass, tag, &request, alone) {
            Some(outcome) => Ok(outcome),
            None if self.split() => self.launch(pass, tag, steps),
            None => self.start_only_step(pass, tag),
        })
    }

    /// Lists the failed steps of a plan that has ended with `errno`: the number of the step as asked for
    /// by the peer, and the errno, or `None` for a step not begun because another step failed.
    #[cold]
    pub(crate) fn failures(&self, tag: Tag, errno: i32) -> impl Iterator<Item = (u8, Option<i32>)> {
        let flight = &self.flights[tag.index()];
        let (planned, started) = (usize::from(flight.planned), usize::from(flight.started));
        let first = tag.index() * self.max_steps;
        let steps = self.steps[first..first + planned].iter();
        let progress = &self.progress[first..first + planned];
        // If no step has an errno, the request's buffer was unavailable.
        let owned = progress.iter().any(|progress| progress.errno != 0);
        steps.zip(progress).enumerate().filter_map(move |(at, (step, progress))| {
            let ended = at < started && !progress.waiting;
            match progress.errno {
                0 if ended => None,
                0 if owned => Some((step.asked, None)),
                0 => Some((step.asked, Some(errno))),
                own => Some((step.asked, Some(own))),
            }
        })
    }

    /// Reports the end of a held request's steps; the reactor decides how the request continues.
    #[cold]
    pub(super) fn hold(&mut self, tag: Tag) -> Outcome {
        let flight = &mut self.flights[tag.index()];
        flight.held = false;
        Outcome::Held(flight.errno)
    }
}
