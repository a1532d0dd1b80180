//! Registering a request's buffer by ourselves, and letting go of it.

use std::io;
use std::mem;

use super::flight::Lease;
use super::{Engine, MAX_DETACH_FAILURES, Outcome, Settled, entries};
use crate::buffers::Buffers;
use crate::driver::Ring;
use crate::file_table::CHAR_DEVICE;
use crate::pass::Pass;
use crate::tag::Tag;
use crate::targets::Target;
use crate::token::{Kind, Token};

impl<T: Target> Engine<T> {
    /// Whether this request's buffer must be registered by us.
    #[inline]
    pub(super) fn registers(&self, tag: Tag) -> bool {
        match &self.buffers {
            Buffers::Register { .. } => true,
            Buffers::Auto { .. } => self.flights[tag.index()].request.flags.needs_registration(),
            Buffers::Copy(_) | Buffers::GetData | Buffers::UserCopy => false,
        }
    }

    pub(super) fn split(&self) -> bool {
        matches!(self.buffers, Buffers::Register { split: true })
    }

    /// Registers the request's buffer; false when no slot is left.
    pub(super) fn attach<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag) -> bool {
        let split = self.split();
        let flight = &mut self.flights[tag.index()];
        let Some(slot) = flight.lease.slot().or_else(|| pass.slots.take()) else { return false };
        flight.lease = Lease::Attached(slot);
        // What an earlier stage met says nothing of this one's unregistration.
        flight.attach_errno = 0;
        pass.counters.registrations.add(1);
        if matches!(self.buffers, Buffers::Auto { .. }) {
            pass.counters.fallbacks.add(1);
        }
        let entry = entries::register(pass.file(CHAR_DEVICE), self.queue, tag, slot, split);
        // SAFETY: the entry points to nothing.
        unsafe { pass.push(entry, Token::new(Kind::Register, tag)) };
        true
    }

    /// Unregisters the request's buffer, if we registered it; the answer is pending then.
    #[inline]
    pub(super) fn detach<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag) {
        let flight = &mut self.flights[tag.index()];
        let Lease::Attached(slot) = flight.lease else { return };
        flight.lease = Lease::Empty(slot);
        flight.detaching = true;
        flight.pending += 1;
        let entry = entries::unregister(pass.file(CHAR_DEVICE), self.queue, tag, slot);
        // SAFETY: the entry points to nothing.
        unsafe { pass.push(entry, Token::new(Kind::Unregister, tag)) };
    }

    /// A registration failed, or, split, answered. Unsplit it is not among the pending, and
    /// comes before the completions of the steps that then fail for want of a buffer.
    #[cold]
    pub(super) fn registered<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        result: i32,
    ) -> Settled {
        let split = self.split();
        let flight = &mut self.flights[tag.index()];
        if result < 0 {
            flight.attach_errno = -result;
            flight.attach_failures = flight.attach_failures.saturating_add(1);
            if let Lease::Attached(slot) = flight.lease {
                flight.lease = Lease::Empty(slot);
            }
            if result == -libc::EBUSY {
                // Somebody else's buffer sits there. The slot is never used again.
                flight.lease = Lease::Wanted;
            }
        }
        if !split {
            return Ok(Outcome::Running);
        }
        flight.pending -= 1;
        if result < 0 {
            flight.errno = -result;
        }
        self.advance(pass, tag)
    }

    #[inline]
    pub(super) fn unregistered<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        result: i32,
    ) -> Settled {
        let flight = &mut self.flights[tag.index()];
        flight.pending -= 1;
        flight.detaching = false;
        if result < 0 && flight.attach_errno == 0 {
            self.unregister_again(pass, tag)?;
        } else if flight.waiting {
            self.continue_waiting(pass, tag)?;
        }
        self.settle_or_advance(pass, tag)
    }

    /// The kernel could not unregister (short of memory, say). The request cannot complete while
    /// its buffer is registered, so there is no giving up early.
    #[cold]
    pub(super) fn unregister_again<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
    ) -> io::Result<()> {
        let flight = &mut self.flights[tag.index()];
        flight.detach_failures += 1;
        let Lease::Empty(slot) = flight.lease else { return Ok(()) };
        if flight.detach_failures > MAX_DETACH_FAILURES {
            flight.lease = Lease::Wanted;
            flight.errno = libc::EIO;
            return Ok(());
        }
        pass.reserve(1)?;
        flight.lease = Lease::Attached(slot);
        self.detach(pass, tag);
        Ok(())
    }

    /// The slot is empty: goes on with the steps that waited for that.
    #[cold]
    pub(super) fn continue_waiting<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
    ) -> io::Result<()> {
        let flight = &mut self.flights[tag.index()];
        flight.waiting = false;
        let first = tag.index() * self.max_steps;
        let count = self.progress[first..first + usize::from(flight.planned)]
            .iter()
            .filter(|progress| progress.waiting)
            .count();
        if count == 0 || flight.errno != 0 {
            return Ok(());
        }
        pass.reserve(count + 2)?;
        self.attach(pass, tag);
        for step in 0..self.flights[tag.index()].planned {
            if mem::take(&mut self.progress[first + usize::from(step)].waiting) {
                self.push_step(pass, tag, step);
            }
        }
        self.detach(pass, tag);
        Ok(())
    }
}
