//! A linked transfer that the kernel has taken without its commit.
//!
//! The ring has withdrawn the commit ([`SEVERED`](crate::driver::SEVERED)). The transfer answers only after a
//! failure, so nobody would hear of a success: the engine repeats the transfer, as the only step of a plan.
//! Both transfers move the same bytes to the same place, so both may run. But the first transfer must not
//! begin after the end of the request, when the tag's slot has the buffer of another request. So the engine
//! asks the kernel to cancel the first transfer. Either the kernel cancels, and the transfer answers with
//! `ECANCELED`; or the kernel no longer finds the transfer, which has begun. A transfer that has begun holds
//! the request's buffer, and the request does not end before the transfer. While a worker of the kernel has
//! the transfer, the kernel cannot tell, and the engine asks again after a pause.

use io_uring::opcode::{AsyncCancel, Timeout};
use io_uring::types::Timespec;

use super::flight::Way;
use super::{Engine, Outcome, Settled};
use crate::driver::Ring;
use crate::pass::Pass;
use crate::tag::Tag;
use crate::targets::Target;
use crate::token::{Kind, Token};

/// The pause between two attempts to cancel a transfer that a worker has: as long as a fast disk takes.
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
            // The repeated transfer is under way, or has ended.
            Way::Plan | Way::Express | Way::Told => Ok(Outcome::Running),
        }
    }

    /// The commit of a linked transfer was withdrawn.
    #[cold]
    pub(super) fn severed<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag) -> Settled {
        let flight = &mut self.flights[tag.index()];
        if flight.way != Way::Linked {
            // The transfer has answered already.
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

    /// Begins a pause. The queue counts the pause as a running request.
    fn pause<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag) -> Settled {
        pass.reserve(1)?;
        self.running += 1;
        let token = Token { step: PAUSED, ..Token::new(Kind::TakeBack, tag) };
        // SAFETY: the entry points to a static.
        unsafe { pass.push(Timeout::new(&raw const PAUSE).build(), token) };
        Ok(Outcome::Running)
    }

    /// The kernel has answered the attempt to cancel, or a pause has ended.
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
            // Cancelled: the transfer's own answer follows.
            0 => Ok(Outcome::Running),
            // A worker has the transfer, and may not have begun the transfer.
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
