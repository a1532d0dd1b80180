//! The way of nearly every request: one step that moves all of its bytes, in a buffer that is
//! registered already.
//!
//! Nothing is kept of such a step but its request: if it does all that it should, there is nothing
//! more to know. If it does not, the request is put on the way of all others, its plan still lying
//! where the target put it.

use io_uring::squeue::Flags;

use super::flight::{Flight, Progress, Way};
use super::{Engine, Outcome, Settled};
use crate::buffers::Buffers;
use crate::driver::Ring;
use crate::file_table::FIRST_OF_TARGET;
use crate::pass::Pass;
use crate::sqe;
use crate::target::{Request, Step, StepKind, Target};
use crate::token::{Kind, Token};

impl<T: Target> Engine<T> {
    /// The slot of a request whose only step can go this way.
    #[inline(always)]
    pub(super) fn express_slot(&self, tag: u16, request: &Request) -> Option<u16> {
        let step = &self.steps[usize::from(tag) * self.max_steps];
        match &self.buffers {
            Buffers::Auto { slots }
                if step.uses_buffer()
                    && step.length == request.length
                    && !request.flags.needs_registration() =>
            {
                Some(slots[usize::from(tag)].get())
            }
            _ => None,
        }
    }

    /// Starts the only step. For a request that is alone the kernel goes on to the commit, which
    /// the caller pushes next, without waking us in between: the step answers only if it fails or
    /// is short, and the kernel then drops the commit, silently. That saves a call, and costs more
    /// than that among many.
    ///
    /// Only reads and writes go this way, and only they may: for fsync and fallocate io_uring
    /// never breaks a link, and swallows the error together with the completion.
    #[inline(always)]
    pub(super) fn express<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: u16,
        slot: u16,
        alone: bool,
    ) -> Settled {
        pass.reserve(2)?;
        let step = &self.steps[usize::from(tag) * self.max_steps];
        let flags = if alone { Flags::IO_LINK | Flags::SKIP_SUCCESS } else { Flags::empty() };
        let file = pass.seat.files + FIRST_OF_TARGET + u32::from(step.file);
        let entry = entry(step, file, slot, flags);
        // SAFETY: the entry points into a lent buffer, which io_uring holds on to.
        unsafe { pass.push(entry, Token::new(Kind::Step, tag)) };
        if alone {
            self.flights[usize::from(tag)].way = Way::Linked;
            return Ok(Outcome::CommitLinked(self.succeed(pass, tag)));
        }
        self.flights[usize::from(tag)].way = Way::Express;
        Ok(Outcome::Running)
    }

    /// The only step has ended. Answers what it comes to, if it is not to be judged.
    #[inline(always)]
    pub(super) fn arrive<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: u16,
        result: i32,
    ) -> Option<Outcome> {
        let flight = &self.flights[usize::from(tag)];
        if flight.way == Way::Express && result.cast_unsigned() == flight.request.length {
            return Some(Outcome::Commit(self.succeed(pass, tag)));
        }
        None
    }

    /// The step has not done what was hoped for: the request goes on as if it had never gone this
    /// way.
    #[cold]
    pub(super) fn derail<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: u16) {
        let flight = &mut self.flights[usize::from(tag)];
        let (request, way) = (flight.request, flight.way);
        *flight = Flight { pending: 1, planned: 1, started: 1, ..Flight::new(request) };
        self.progress[usize::from(tag) * self.max_steps] = Progress::default();
        if way == Way::Linked {
            self.running += 1;
            self.count(pass.counters, &request, 1_u64.wrapping_neg());
        }
    }
}

#[inline(always)]
fn entry(step: &Step, file: u32, slot: u16, flags: Flags) -> io_uring::squeue::Entry {
    let transfer = sqe::Transfer {
        file,
        slot,
        offset: step.offset,
        at: step.at,
        length: step.length,
        flags: flags.bits(),
    };
    match step.kind {
        StepKind::Write { dsync } => {
            transfer.write(if dsync { libc::RWF_DSYNC.cast_unsigned() } else { 0 })
        }
        _ => transfer.read(),
    }
}
