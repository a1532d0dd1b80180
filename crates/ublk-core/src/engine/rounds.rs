//! From one round of a request to the next: what its target wants when its steps have ended.

use super::flight::{Flight, Lease};
use super::{Engine, Outcome, Settled};
use crate::driver::Ring;
use crate::pass::Pass;
use crate::target::{Ended, Errno, Next, Plan, Step, StepKind, Target};

/// The round of a request whose target is asked nothing more.
const LAST: u16 = u16::MAX;

impl Flight {
    /// A plan of the target's lies ready, which asks if it has a ticket.
    #[inline]
    pub(super) fn take(&mut self, ticket: Option<u64>) {
        (self.asks, self.ticket) = (ticket.is_some(), ticket.unwrap_or(0));
    }

    /// Its target is asked nothing more: it ends with the errno that it has, or well.
    pub(super) fn ask_no_more(&mut self) {
        (self.asks, self.round) = (false, LAST);
    }

    /// Whether its target may know how to go on after a failure.
    pub(super) fn may_go_on(&self) -> bool {
        self.round < LAST
    }
}

impl<T: Target> Engine<T> {
    /// A round has ended so, nothing is pending, and a buffer that failed is given up.
    #[cold]
    pub(super) fn next_round<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: u16,
        result: Result<(), Errno>,
    ) -> Settled {
        let index = usize::from(tag);
        let Flight { request, ticket, round, .. } = self.flights[index];
        let first = index * self.max_steps;
        let mut plan = Plan::new(&mut self.steps[first..first + self.max_steps]);
        let ended = Ended { result, ticket, round };
        match self.target.next(&request, ended, &mut plan) {
            Next::Round => {
                let (steps, ticket) = (plan.len(), plan.ticket());
                let flight = &mut self.flights[index];
                flight.take(ticket);
                // The last number of a round says that there is none.
                flight.round = (round + 1).min(LAST - 1);
                self.launch_round(pass, tag, steps)
            }
            Next::Park(microseconds) => {
                debug_assert!(result.is_ok(), "a round that has failed is not asked for again");
                let wait = Step { kind: StepKind::Wait, length: microseconds, ..Step::EMPTY };
                self.steps[first] = wait;
                self.flights[index].take(Some(ticket));
                self.launch(pass, tag, 1)
            }
            Next::Done => {
                let flight = &mut self.flights[index];
                flight.ask_no_more();
                (flight.started, flight.errno) = (flight.planned, 0);
                self.finish(pass, tag)
            }
            Next::Fail(errno) => {
                let flight = &mut self.flights[index];
                flight.ask_no_more();
                flight.errno = errno.0;
                self.finish(pass, tag)
            }
        }
    }

    /// Starts a round whose steps lie ready. The request's bytes may not have been needed before.
    fn launch_round<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: u16, steps: usize) -> Settled {
        if self.direct || self.flights[usize::from(tag)].lease != Lease::Standing {
            return self.launch(pass, tag, steps);
        }
        let address = self.staging[usize::from(tag)].address() as u64;
        self.begin_placed(pass, tag, steps, address)
    }

    /// A request that was planned fails, and nothing more is planned for it.
    #[cold]
    pub(super) fn tell_failure(&self, tag: u16) {
        let Flight { request, ticket, .. } = &self.flights[usize::from(tag)];
        self.target.failed(request, *ticket);
    }

    /// A request fails for good, with the errno that it has.
    #[cold]
    pub(super) fn fail_for_good<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: u16) -> Outcome {
        let errno = Errno(self.flights[usize::from(tag)].errno);
        Outcome::Commit(self.fail(pass, tag, errno))
    }
}
