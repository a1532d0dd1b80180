//! Requests whose plans come from elsewhere, piece by piece: they begin with none, may have
//! several, and end when they are told to.

use super::flight::{Flight, Lease};
use super::staging::Staging;
use super::{Engine, Outcome, Settled};
use crate::driver::Ring;
use crate::pass::Pass;
use crate::target::{Errno, Plan, Request, Target};

/// What to do once a plan's steps have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// The request ends.
    End,
    /// The request waits for what comes next, and keeps its buffer.
    Hold,
}

impl<T: Target> Engine<T> {
    /// Takes a request in that is answered elsewhere; `address` as for [`begin`](Self::begin).
    /// `Held` when it can be asked for, `Running` while its bytes are fetched.
    #[inline]
    pub(crate) fn admit<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: u16,
        (request, address): (Request, u64),
    ) -> Settled {
        self.running += 1;
        self.flights[usize::from(tag)] = Flight::new(request);
        if self.direct {
            return Ok(Outcome::Held(0));
        }
        self.staging[usize::from(tag)] = Staging::at(address);
        if self.aids.lent.is_some() && request.op.has_data() {
            return self.bring(pass, tag);
        }
        Ok(Outcome::Held(0))
    }

    /// The bytes of a request are to be where somebody else sees them.
    #[cold]
    fn bring<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: u16) -> Settled {
        let flight = &mut self.flights[usize::from(tag)];
        let place = self.aids.lent.as_ref().map(|lent| lent.at(tag, 0) as u64);
        let staged = Staging::at(place.unwrap_or_default());
        self.staging[usize::from(tag)] = staged;
        if flight.request.op.fills() {
            flight.lease = Lease::ToStore;
            return Ok(Outcome::Held(0));
        }
        (flight.lease, flight.held) = (Lease::InMemory, true);
        self.fetch(pass, tag)
    }

    /// Says where a zone append has gone, in bytes, before it is [answered](Self::answer).
    #[cold]
    pub(crate) fn landed(&self, tag: u16, place: u64) {
        if let Some(landings) = &self.aids.landings {
            landings[usize::from(tag)].set(place >> 9);
        }
    }

    /// The request has been answered, and none of its steps is in flight.
    #[inline]
    pub(crate) fn answer<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: u16,
        result: Result<(), Errno>,
    ) -> Settled {
        let flight = &mut self.flights[usize::from(tag)];
        flight.held = false;
        (flight.planned, flight.started, flight.attach_errno) = (0, 0, 0);
        flight.errno = result.err().map_or(0, |errno| errno.0);
        // Elsewhere is where another way would have been known.
        flight.ask_no_more();
        self.finish(pass, tag)
    }

    /// Runs what `fill` puts into a plan, then does what `fill` returns; `alone` as for
    /// [`begin`](Self::begin).
    ///
    /// # Errors
    /// What `fill` says; nothing has happened then.
    pub(crate) fn run<R: Ring, E>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: u16,
        alone: bool,
        fill: impl FnOnce(&T, &Request, &mut Plan<'_>) -> Result<After, E>,
    ) -> Result<Settled, E> {
        let first = usize::from(tag) * self.max_steps;
        let mut plan = Plan::new(&mut self.steps[first..first + self.max_steps]);
        let request = self.flights[usize::from(tag)].request;
        let after = fill(&self.target, &request, &mut plan)?;
        let steps = plan.len();
        let flight = &mut self.flights[usize::from(tag)];
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

    /// Which of the steps that were asked for have failed, now that they have ended with `errno`,
    /// and of what: an errno of their own, or none where they have not begun because of another's.
    #[cold]
    pub(crate) fn failures(&self, tag: u16, errno: i32) -> impl Iterator<Item = (u8, Option<i32>)> {
        let flight = &self.flights[usize::from(tag)];
        let (planned, started) = (usize::from(flight.planned), usize::from(flight.started));
        let first = usize::from(tag) * self.max_steps;
        let steps = self.steps[first..first + planned].iter();
        let progress = &self.progress[first..first + planned];
        // Otherwise it is the request's buffer that was not to be had.
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

    /// The steps of a request that goes on have ended.
    #[cold]
    pub(super) fn hold(&mut self, tag: u16) -> Outcome {
        let flight = &mut self.flights[usize::from(tag)];
        flight.held = false;
        Outcome::Held(flight.errno)
    }
}
