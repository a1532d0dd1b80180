//! What a running request waits for, for a report.

use super::Engine;
use super::flight::Way;
use crate::tag::Tag;
use crate::targets::{Remap, Step, StepKind, Target};

impl<T: Target> Engine<T> {
    /// The step that the request of `tag` waits for; none while the request's buffer is being registered
    /// or copied. Of several steps in flight, the first that has not ended.
    pub(crate) fn awaited_step(&self, tag: Tag) -> Option<Step> {
        let flight = &self.flights[tag.index()];
        let first = tag.index() * self.max_steps;
        if flight.way != Way::Plan {
            let remap = self.target.remap(&flight.request);
            let Remap::To { file, offset } = remap else { return Some(self.steps[first]) };
            let reads = flight.request.op.fills();
            let kind = if reads { StepKind::Read } else { StepKind::Write { dsync: false } };
            let length = flight.request.length;
            return Some(Step { kind, file, offset, length, ..Step::EMPTY });
        }
        if flight.pending == 0 || flight.started == 0 || flight.detaching {
            return None;
        }
        let started = first..first + usize::from(flight.started);
        let last = self.steps[started.end - 1];
        let unfinished = |&index: &usize| {
            let step = &self.steps[index];
            step.stage == last.stage && !self.progress[index].ended
        };
        Some(started.into_iter().find(unfinished).map_or(last, |index| self.steps[index]))
    }
}
