//! Requests that become too old. The kernel kills the server of an unprivileged device once a request
//! is 30 s old, so such a request fails before, whatever its backend does.

use std::sync::Arc;

use super::Engine;
use crate::buffers::Buffers;
use crate::driver::Ring;
use crate::memory::Region;
use crate::pass::Pass;
use crate::tag::Tag;
use crate::targets::Target;

impl<T: Target> Engine<T> {
    /// A unit of time has passed.
    pub(crate) fn grow_older(&mut self) {
        for flight in &mut self.flights {
            flight.age = flight.age.saturating_add(1);
        }
    }

    /// The next request from `from` on that is `limit` units old and has steps in flight.
    pub(crate) fn next_old(&self, from: Tag, limit: u8) -> Option<Tag> {
        let is_old = |&tag: &Tag| {
            let flight = &self.flights[tag.index()];
            flight.age >= limit && flight.pending > 0 && !flight.given_up
        };
        let depth = u16::try_from(self.flights.len()).unwrap_or(u16::MAX);
        Tag::all(depth).skip(from.index()).find(is_old)
    }

    /// Gives up a request that has steps in flight: these end in the buffer that they have, no other
    /// step begins, and the tag has `buffer` from now on. False where the tag's buffer is none that
    /// can be exchanged: nothing has happened then.
    pub(crate) fn give_up(&mut self, tag: Tag, buffer: Arc<Region>) -> bool {
        let Some(old) = self.lend(tag, buffer) else { return false };
        self.given_up.push((tag, old));
        let flight = &mut self.flights[tag.index()];
        (flight.given_up, flight.held, flight.errno) = (true, true, libc::ETIMEDOUT);
        true
    }

    /// Memory that can take the place of a tag's buffer, where there are such buffers and memory.
    pub(crate) fn spare_buffer(&self) -> Option<Arc<Region>> {
        let Buffers::Copy(pool) = &self.buffers else { return None };
        Region::new(pool.stride()).ok().map(Arc::new)
    }

    /// Whether steps of a request that was given up are still in flight.
    #[inline]
    pub(crate) fn has_given_up(&self, tag: Tag) -> bool {
        self.flights[tag.index()].given_up
    }

    /// The last step of a request that was given up has ended: the target hears that the request has
    /// failed, and the tag can serve requests again.
    pub(crate) fn take_back<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag) {
        self.tell_failure(tag);
        let flight = &mut self.flights[tag.index()];
        (flight.given_up, flight.held) = (false, false);
        self.given_up.retain(|&(given_up, _)| given_up != tag);
        self.release(pass, tag);
    }
}
