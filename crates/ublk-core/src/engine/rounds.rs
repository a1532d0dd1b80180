//! From one round of a request to the next: when the steps of a round have ended, the engine asks the
//! target how the request goes on.

use super::flight::{Flight, Lease};
use super::{Engine, Settled};
use crate::driver::Ring;
use crate::pass::Pass;
use crate::tag::Tag;
use crate::targets::{Ended, Errno, Next, Plan, Step, StepKind, Target, Ticket};

/// The number that stands for the round of a request which its target has ended.
const LAST: u16 = u16::MAX;

impl Flight {
    /// Notes whether the plan that lies ready asks, and with which ticket.
    #[inline]
    pub(super) fn take(&mut self, ticket: Option<Ticket>) {
        (self.asks, self.ticket) = (ticket.is_some(), ticket.map_or(0, |ticket| ticket.number));
    }

    /// Notes that the target has ended the request.
    pub(super) fn ask_no_more(&mut self) {
        (self.asks, self.round) = (false, LAST);
    }

    /// Whether the target has not ended the request yet.
    pub(super) fn may_go_on(&self) -> bool {
        self.round < LAST
    }
}

impl<T: Target> Engine<T> {
    /// Asks the target what comes after a round that has ended with `result`. No completion of the request
    /// is pending, and a buffer that could not be registered is not tried again.
    #[cold]
    pub(super) fn next_round<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        result: Result<(), Errno>,
    ) -> Settled {
        let index = tag.index();
        let Flight { request, ticket, round, .. } = self.flights[index];
        let first = index * self.max_steps;
        let mut plan = Plan::new(&mut self.steps[first..first + self.max_steps]);
        let ended = Ended { result, ticket, round };
        match self.target.next(&request, ended, &mut plan) {
            Next::Round => {
                let (steps, ticket) = (plan.len(), plan.ticket());
                let flight = &mut self.flights[index];
                flight.take(ticket);
                flight.round = (round + 1).min(LAST - 1);
                self.launch_round(pass, tag, steps)
            }
            Next::Park(microseconds) => {
                debug_assert!(result.is_ok(), "a round that has failed is not asked for again");
                let wait = Step { kind: StepKind::Wait, length: microseconds, ..Step::EMPTY };
                self.steps[first] = wait;
                self.flights[index].asks = true;
                self.launch(pass, tag, 1)
            }
            Next::Done => self.end_rounds(pass, tag, 0),
            Next::Fail(errno) => self.end_rounds(pass, tag, errno.0),
        }
    }

    /// The target has ended the request: with `errno`, or well where that is 0.
    fn end_rounds<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag, errno: i32) -> Settled {
        let flight = &mut self.flights[tag.index()];
        flight.ask_no_more();
        (flight.started, flight.errno) = (flight.planned, errno);
        self.finish(pass, tag)
    }

    /// Starts a round whose steps lie ready. A first round may not have needed the request's bytes.
    pub(super) fn launch_round<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        steps: usize,
    ) -> Settled {
        if self.direct || self.flights[tag.index()].lease != Lease::Standing {
            self.launch(pass, tag, steps)
        } else {
            self.begin_placed(pass, tag, steps)
        }
    }

    /// Tells the target that a request fails, unless the target has ended the request by itself.
    #[cold]
    pub(super) fn tell_failure(&self, tag: Tag) {
        let flight = &self.flights[tag.index()];
        if flight.may_go_on() {
            self.target.failed(&flight.request, flight.ticket);
        }
    }
}
