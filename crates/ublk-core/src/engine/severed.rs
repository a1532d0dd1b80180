//! A linked transfer that the kernel has taken without its commit.
//!
//! Its ring has withdrawn the commit ([`SEVERED`](crate::driver::SEVERED)). The transfer answers only
//! if it fails, so that nobody would hear of its success: it is done again, as a plan's only step. Both
//! move the same bytes to the same place, so it does no harm if both run. But the first must not begin
//! when the request has ended, since another request's buffer is in the tag's slot then. So the kernel
//! is asked to take it back: either it does, and the transfer answers that it was cancelled, or it no
//! longer finds it, since it has begun. Then it holds the request's buffer, which keeps the request
//! from ending before it has ended itself. While a worker of the kernel has the transfer, the kernel
//! cannot tell; it is asked again after a pause.

use io_uring::opcode::{AsyncCancel, Timeout};
use io_uring::types::Timespec;

use super::flight::Way;
use super::{Engine, Outcome, Settled};
use crate::driver::Ring;
use crate::pass::Pass;
use crate::tag::Tag;
use crate::targets::Target;
use crate::token::{Kind, Token};

/// Between two attempts to take a transfer back that a worker has: as long as a fast disk takes.
static PAUSE: Timespec = Timespec::new().nsec(100_000);
/// The step of a completion that ends a pause.
const PAUSED: u8 = 1;

impl<T: Target> Engine<T> {
    /// A linked transfer has failed, or was short, or was taken back.
    #[cold]
    pub(super) fn linked_ended<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        result: i32,
    ) -> Settled {
        match self.flights[tag.index()].way {
            Way::Linked | Way::Severed => {
                self.step_ended(pass, Token::new(Kind::Step, tag), result)
            }
            // It has been done again.
            Way::Plan | Way::Express | Way::Told => Ok(Outcome::Running),
        }
    }

    /// The commit of a linked transfer was withdrawn.
    #[cold]
    pub(super) fn severed<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag) -> Settled {
        let flight = &mut self.flights[tag.index()];
        if flight.way != Way::Linked {
            // It has answered already.
            return Ok(Outcome::Running);
        }
        flight.way = Way::Severed;
        let request = flight.request;
        self.running += 1;
        self.count(pass.counters, &request, 1_u64.wrapping_neg());
        self.recall(pass, tag)
    }

    fn recall<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag) -> Settled {
        pass.reserve(1)?;
        let transfer = Token::new(Kind::Linked, tag).pack(pass.seat.number);
        let entry = AsyncCancel::new(transfer).build();
        // SAFETY: the entry points to nothing.
        unsafe { pass.push(entry, Token::new(Kind::TakeBack, tag)) };
        Ok(Outcome::Running)
    }

    /// Lets time pass. Until the pause has ended the queue stays, as if a request were running.
    fn pause<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag) -> Settled {
        pass.reserve(1)?;
        self.running += 1;
        let token = Token { step: PAUSED, ..Token::new(Kind::TakeBack, tag) };
        // SAFETY: the entry points to a static.
        unsafe { pass.push(Timeout::new(&raw const PAUSE).build(), token) };
        Ok(Outcome::Running)
    }

    /// The kernel has looked for a severed transfer, or a pause has ended.
    #[cold]
    pub(super) fn taken_back<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        token: Token,
        result: i32,
    ) -> Settled {
        let tag = token.tag;
        let severed = self.flights[tag.index()].way == Way::Severed;
        if token.step == PAUSED {
            self.running -= 1;
            return if severed { self.recall(pass, tag) } else { Ok(Outcome::Running) };
        }
        if !severed {
            return Ok(Outcome::Running);
        }
        match -result {
            // Its own answer follows.
            0 => Ok(Outcome::Running),
            // A worker has it, and may not have begun it.
            libc::EALREADY => self.pause(pass, tag),
            _ => {
                self.derail(pass, tag);
                self.flights[tag.index()].pending = 0;
                pass.reserve(1)?;
                self.push_step(pass, tag, 0);
                Ok(Outcome::Running)
            }
        }
    }
}
