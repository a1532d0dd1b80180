//! Notes in plans: the target hears how far a request has come, and may let it wait.

use super::{Engine, Outcome, Settled};
use crate::driver::Ring;
use crate::pass::Pass;
use crate::target::{Go, Reached, Target};
use crate::token::{Kind, Token};

impl<T: Target> Engine<T> {
    /// The plan of `tag` has come to the note that is its step number `step`.
    #[cold]
    pub(super) fn note<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: u16, step: u8) -> Settled {
        let first = usize::from(tag) * self.max_steps;
        let index = first + usize::from(step);
        let flight = &self.flights[usize::from(tag)];
        let plan = &self.steps[first..first + usize::from(flight.planned)];
        let reached = Reached { note: self.steps[index], plan };
        let go = self.target.reached(&flight.request, reached);
        let flight = &mut self.flights[usize::from(tag)];
        match go {
            Go::On => flight.started = step + 1,
            Go::Fail(errno) => flight.errno = errno.0,
            Go::Later(microseconds) => {
                pass.reserve(1)?;
                let entry = self.wait(index, microseconds);
                self.flights[usize::from(tag)].pending += 1;
                // SAFETY: the entry points to a place of `waits`, which is not written before the
                // entry has completed, and outlives the ring's last completion (see `Reactor`).
                unsafe { pass.push(entry, Token { kind: Kind::Step, tag, step }) };
                return Ok(Outcome::Running);
            }
        }
        self.settle_or_advance(pass, tag)
    }

    /// A request that was planned fails for good.
    #[cold]
    pub(super) fn tell_failure(&self, tag: u16) {
        let first = usize::from(tag) * self.max_steps;
        let flight = &self.flights[usize::from(tag)];
        let plan = &self.steps[first..first + usize::from(flight.planned)];
        self.target.failed(&flight.request, plan);
    }
}
