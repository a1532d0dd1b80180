//! Starting steps and taking their results.

use std::io;

use super::entries::Bytes;
use super::flight::{Lease, Progress, Way};
use super::verdict::{Verdict, judge};
use super::{Engine, Outcome, Settled, entries};
use crate::buffers::Buffers;
use crate::driver::Ring;
use crate::pass::Pass;
use crate::tag::Tag;
use crate::targets::Target;
use crate::token::{Kind, Token};

impl<T: Target> Engine<T> {
    /// A single step, between registration and unregistration where the server registers the buffer.
    #[inline(always)]
    pub(super) fn start_only_step<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag) -> Settled {
        pass.reserve(3)?;
        let first = tag.index() * self.max_steps;
        self.progress[first] = Progress::default();
        let ours = self.registers(tag) && self.steps[first].uses_buffer();
        let flight = &mut self.flights[tag.index()];
        (flight.planned, flight.started) = (1, 1);
        if ours && !self.attach(pass, tag) {
            self.flights[tag.index()].errno = libc::ENOBUFS;
            return self.finish(pass, tag);
        }
        self.push_step(pass, tag, 0);
        if ours {
            self.detach(pass, tag);
        }
        Ok(Outcome::Running)
    }

    #[inline(always)]
    pub(super) fn push_step<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag, step: u8) {
        let index = tag.index() * self.max_steps + usize::from(step);
        let flight = &mut self.flights[tag.index()];
        let bytes = match (&self.buffers, flight.lease) {
            (_, Lease::Empty(slot) | Lease::Attached(slot)) => Bytes::Slot(slot),
            (_, Lease::InMemory | Lease::ToStore) => {
                Bytes::Memory(self.staging[tag.index()].address())
            }
            (Buffers::Copy(pool), _) => Bytes::Memory(pool.at(tag.index(), 0)),
            (Buffers::Auto { slots }, _) => Bytes::Slot(slots[tag.index()].get()),
            // No step of this plan uses the buffer.
            _ => Bytes::Slot(0),
        };
        let (planned, progress) = (&self.steps[index], &self.progress[index]);
        if planned.remote().is_some() {
            self.start_remote(pass, Token { kind: Kind::Step, tag, step }, bytes);
            return;
        }
        let entry = match entries::step(planned, progress, bytes, pass.seat) {
            Some(entry) => entry,
            None => self.special_entry(pass, tag, index),
        };
        let flight = &mut self.flights[tag.index()];
        flight.pending += 1;
        // SAFETY: the entry points into a lent buffer, which io_uring keeps, or into the pool, which
        // outlives the ring's last completion (see `Reactor`).
        unsafe { pass.push(entry, Token { kind: Kind::Step, tag, step }) };
    }

    /// A step has ended that has not [arrived](Self::arrive).
    pub(super) fn step_ended<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        token: Token,
        result: i32,
    ) -> Settled {
        let tag = token.tag;
        let index = tag.index() * self.max_steps + usize::from(token.step);
        let mut result = result;
        if self.flights[tag.index()].way != Way::Plan {
            self.derail(pass, tag);
            // The step has never begun: the kernel had no memory for the commit behind the step.
            result = if result == -libc::ECANCELED { -libc::EAGAIN } else { result };
        }
        self.flights[tag.index()].pending -= 1;
        match judge(&self.steps[index], &mut self.progress[index], result, self.block) {
            Verdict::Complete => self.progress[index].ended = true,
            Verdict::Continue => self.continue_step(pass, token)?,
            other => self.step_met_an_end(pass, token, other)?,
        }
        self.settle_or_advance(pass, tag)
    }

    /// Continues a step that was short or interrupted.
    #[cold]
    pub(super) fn continue_step<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        token: Token,
    ) -> io::Result<()> {
        pass.counters.short_results.add(1);
        let tag = token.tag;
        if self.has_given_up(tag) {
            return Ok(());
        }
        let index = tag.index() * self.max_steps + usize::from(token.step);
        let (step, progress) = (self.steps[index], self.progress[index]);
        if progress.zeroing {
            pass.counters.zero_filled_bytes.add(u64::from(step.length - progress.from));
            if self.zero(tag, step.at + progress.from, step.length - progress.from) {
                return Ok(());
            }
        }
        let flight = &mut self.flights[tag.index()];
        if step.uses_buffer() && matches!(flight.lease, Lease::Empty(_)) {
            // The unregistration went in with the step, and another goes in with the continuation. The
            // continuation waits for the answer: after a failed unregistration the slot is still taken.
            self.progress[index].waiting = true;
            flight.waiting = true;
            return if flight.detaching { Ok(()) } else { self.continue_waiting(pass, tag) };
        }
        pass.reserve(1)?;
        self.push_step(pass, tag, token.step);
        Ok(())
    }
}
