//! How a request ends: with its full length, or an errno, never with less (trap 1).

use super::flight::{Lease, Way};
use super::{Engine, Outcome, Settled};
use crate::buffers::Buffers;
use crate::driver::Ring;
use crate::pass::Pass;
use crate::stats::Counters;
use crate::tag::Tag;
use crate::targets::{Errno, Op, Request, Target, ZoneOp};

impl<T: Target> Engine<T> {
    /// All steps have ended, or one has failed: lets go of the buffer, then settles.
    #[inline]
    pub(super) fn finish<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag) -> Settled {
        let flight = &self.flights[tag.index()];
        if flight.held && !flight.may_attach_again() {
            return Ok(self.hold(tag));
        }
        if flight.asks && flight.errno == 0 {
            return self.next_round(pass, tag, Ok(()));
        }
        if let Lease::Attached(_) = self.flights[tag.index()].lease {
            pass.reserve(1)?;
            self.detach(pass, tag);
            return Ok(Outcome::Running);
        }
        let flight = &self.flights[tag.index()];
        if flight.has_succeeded() {
            return Ok(Outcome::Commit(self.succeed(pass, tag)));
        }
        if flight.lease == Lease::ToStore && flight.errno == 0 {
            return self.store(pass, tag);
        }
        self.recover(pass, tag)
    }

    /// A plan failed: for want of a buffer, so it is run once more, or for a reason that the
    /// target may know a way around.
    #[cold]
    pub(super) fn recover<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag) -> Settled {
        let flight = &mut self.flights[tag.index()];
        if flight.may_attach_again() {
            let steps = usize::from(flight.planned);
            return self.launch(pass, tag, steps);
        }
        let errno = Errno(flight.errno);
        if flight.may_go_on() {
            self.next_round(pass, tag, Err(errno))
        } else {
            Ok(Outcome::Commit(self.fail(pass, tag, errno)))
        }
    }

    #[inline(always)]
    pub(super) fn succeed<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag) -> i32 {
        let request = self.flights[tag.index()].request;
        self.count(pass.counters, &request, 1);
        if request.op == Op::Zone(ZoneOp::Append) {
            self.land(tag);
        }
        self.release(pass, tag);
        // Fits: a request with data is at most 32 MiB; of the others the kernel reads the sign.
        if request.op.has_data() { request.length.cast_signed() } else { 0 }
    }

    /// Says where a zone append went.
    #[cold]
    fn land(&self, tag: Tag) {
        let first = tag.index() * self.max_steps;
        let flight = &self.flights[tag.index()];
        let planned = if flight.way == Way::Plan { usize::from(flight.planned) } else { 1 };
        let write = self.steps[first..first + planned].iter().find(|step| step.uses_buffer());
        if let (Some(landings), Some(write)) = (&self.aids.landings, write) {
            landings[tag.index()].set(write.offset >> 9);
        }
    }

    /// Counts a request `times` over; -1, wrapped, takes it back.
    #[inline(always)]
    pub(super) fn count(&self, counters: &Counters, request: &Request, times: u64) {
        let moves = count_plain(counters, request, times) || count_other(counters, request, times);
        let lent = matches!(self.buffers, Buffers::Auto { .. } | Buffers::Register { .. });
        if moves && !lent && !request.flags.is_shared() {
            counters.copied_bytes.add(u64::from(request.length).wrapping_mul(times));
        }
    }

    #[cold]
    pub(super) fn fail<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag, errno: Errno) -> i32 {
        pass.counters.errors.add(1);
        self.release(pass, tag);
        -for_client(errno.0)
    }

    #[inline(always)]
    pub(super) fn release<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag) {
        self.running -= 1;
        let flight = &mut self.flights[tag.index()];
        match std::mem::replace(&mut flight.lease, Lease::Standing) {
            Lease::Standing | Lease::Wanted => {}
            Lease::Empty(slot) | Lease::Attached(slot) if self.rotates => pass.slots.put_last(slot),
            Lease::Empty(slot) | Lease::Attached(slot) => pass.slots.put(slot),
            Lease::InMemory | Lease::ToStore => self.give_back(tag),
        }
    }
}

/// Counts a request if it is a read or write, which it answers.
#[inline(always)]
pub(super) fn count_plain(counters: &Counters, request: &Request, times: u64) -> bool {
    let bytes = u64::from(request.length).wrapping_mul(times);
    match request.op {
        Op::Read => {
            counters.reads.add(times);
            counters.read_bytes.add(bytes);
        }
        Op::Write => {
            counters.writes.add(times);
            counters.write_bytes.add(bytes);
        }
        _ => return false,
    }
    true
}

/// Counts any other request, and answers whether it moves bytes.
#[inline(never)]
fn count_other(counters: &Counters, request: &Request, times: u64) -> bool {
    match request.op {
        Op::Flush => counters.flushes.add(times),
        Op::Discard => counters.discards.add(times),
        Op::WriteZeroes => counters.write_zeroes.add(times),
        Op::Zone(ZoneOp::Append) => {
            counters.writes.add(times);
            counters.write_bytes.add(u64::from(request.length).wrapping_mul(times));
            return true;
        }
        _ => {}
    }
    false
}

/// What a client may be told. `EAGAIN` would read as "a non-blocking request would block"
/// (trap 48), and an errno without a block status of its own reads as an I/O error anyway.
pub(crate) fn for_client(errno: i32) -> i32 {
    match errno {
        libc::ENOSPC | libc::EDQUOT => libc::ENOSPC,
        libc::EOPNOTSUPP | libc::ETIMEDOUT | libc::ENOLINK | libc::ENODATA | libc::EILSEQ => errno,
        // Of zoned devices: too many zones open, too many active.
        libc::ETOOMANYREFS | libc::EOVERFLOW => errno,
        _ => libc::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_never_see_a_request_to_try_again() {
        assert_eq!(for_client(libc::EAGAIN), libc::EIO);
        assert_eq!(for_client(libc::ENOSPC), libc::ENOSPC);
    }
}
