//! Requests whose bytes steps cannot reach at once: the bytes are in memory with an address, the
//! server's or the clients', or must be copied first.
//!
//! * **User copy**: before the plan of a write starts, the engine fetches the bytes from
//!   `/dev/ublkcN` into a buffer of the server; after a successful plan of a read, the engine
//!   stores the bytes there from such a buffer.
//! * **Get-data**: the exchange has found a buffer, and passes the address.
//! * **Shared**: the descriptor has the place in the clients' memory.
//!
//! None of this lies on the way of a request whose buffer the kernel registers or fills.

use std::cell::Cell;
use std::rc::Rc;

use super::flight::Lease;
use super::{Engine, Outcome, Settled, entries};
use crate::buffers::{Arena, Buffers, Pool, SharedMemory};
use crate::driver::Ring;
use crate::file_table::CHAR_DEVICE;
use crate::pass::Pass;
use crate::tag::Tag;
use crate::targets::{Errno, Step, Target};
use crate::token::{Kind, Token};

/// How often a copy may do nothing before the request fails.
const MAX_IDLE_COPIES: u8 = 16;

/// A queue's means, besides the [`Buffers`], to reach bytes.
#[derive(Debug, Default)]
pub(crate) struct Aids {
    /// Buffers of the server, for as many requests as run at once.
    pub(crate) arena: Option<Arena>,
    /// Memory registered by clients.
    pub(crate) shared: Option<std::sync::Arc<SharedMemory>>,
    /// Room for each tag's metadata.
    pub(crate) metadata: Option<Pool>,
    /// With user copy: a buffer per tag, visible to the handler beyond a bridge too.
    pub(crate) lent: Option<Pool>,
    /// The landing place of each tag's zone append, in sectors, for the exchange to report.
    pub(crate) landings: Option<Rc<[Cell<u64>]>>,
}

impl Aids {
    /// Whether [`Buffers`] has all bytes of requests.
    pub(super) fn are_none(&self) -> bool {
        self.arena.is_none() && self.shared.is_none()
    }
}

/// The place of a tag's bytes, and the progress of the copy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Staging {
    /// Where the request begins.
    address: *mut u8,
    /// The address is a buffer of the arena.
    lent: bool,
    copying: Copying,
    copied: u32,
    idle: u8,
}

/// The copy in progress between the request's pages and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copying {
    Nothing,
    /// The whole request, into our memory.
    Fetch,
    /// The whole request, out of our memory.
    Store,
}

impl Staging {
    pub(super) const EMPTY: Self = Self {
        address: std::ptr::null_mut(),
        lent: false,
        copying: Copying::Nothing,
        copied: 0,
        idle: 0,
    };
}

impl<T: Target> Engine<T> {
    /// The address of the request's bytes, if the bytes are in memory.
    #[inline]
    pub(super) fn address(&self, tag: Tag) -> Option<*mut u8> {
        match (&self.buffers, self.flights[tag.index()].lease) {
            (_, Lease::InMemory | Lease::ToStore) => Some(self.staging[tag.index()].address),
            (Buffers::Copy(pool), _) => Some(pool.at(tag.index(), 0)),
            _ => None,
        }
    }

    /// Starts a round whose steps lie ready, where the bytes of the request have no place yet.
    #[inline(never)]
    pub(super) fn begin_placed<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        steps: usize,
    ) -> Settled {
        if !self.plan(tag, steps).iter().any(Step::uses_buffer) {
            return self.launch(pass, tag, steps);
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most 255, checked in new")]
        {
            self.flights[tag.index()].planned = steps as u8;
        }
        if let Err(errno) = self.place(tag) {
            return Ok(self.refuse(pass, tag, errno));
        }
        match self.staging[tag.index()].copying {
            Copying::Nothing => self.launch(pass, tag, steps),
            _ => self.copy(pass, tag),
        }
    }

    /// Decides how steps reach the request's bytes.
    fn place(&mut self, tag: Tag) -> Result<(), Errno> {
        let address = self.staging[tag.index()].address() as u64;
        let request = self.flights[tag.index()].request;
        let registered =
            matches!(self.buffers, Buffers::Auto { .. }) && !request.flags.needs_registration();
        let shared = request.flags.is_shared() && !registered;
        let found = self.aids.shared.as_ref().filter(|_| shared);
        let found = found.and_then(|shared| shared.find(address, request.length));
        let staged = &mut self.staging[tag.index()];
        let flight = &mut self.flights[tag.index()];
        if let Some(found) = found {
            staged.address = found;
            flight.lease = Lease::InMemory;
            return Ok(());
        }
        match &self.buffers {
            // The driver has copied nothing, and only the process that registered the memory knows
            // the memory.
            Buffers::Copy(_) | Buffers::GetData if shared => return Err(Errno(libc::EFAULT)),
            Buffers::GetData => {
                staged.address = std::ptr::with_exposed_provenance_mut(
                    usize::try_from(address).map_err(|_| Errno(libc::EFAULT))?,
                );
                flight.lease = Lease::InMemory;
            }
            Buffers::UserCopy => {
                staged.lend(self.aids.arena.as_mut());
                (staged.copying, flight.lease) = match request.op.fills() {
                    true => (Copying::Nothing, Lease::ToStore),
                    false => (Copying::Fetch, Lease::InMemory),
                };
            }
            Buffers::Auto { .. } | Buffers::Register { .. } | Buffers::Copy(_) => {}
        }
        Ok(())
    }

    /// Copies the rest.
    fn copy<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag) -> Settled {
        pass.reserve(1)?;
        let staged = &self.staging[tag.index()];
        let flight = &mut self.flights[tag.index()];
        let memory = staged.address.wrapping_add(staged.copied as usize);
        let length = flight.request.length - staged.copied;
        let position = ublk_sys::user_copy_offset(self.queue, tag.number(), staged.copied);
        let out = staged.copying == Copying::Store;
        let entry = entries::user_copy(pass.file(CHAR_DEVICE), (memory, length), position, out);
        flight.pending = 1;
        // SAFETY: the entry points into a buffer of the arena. The request has the buffer until the
        // request ends, and the buffer outlives the ring's last completion (see `Reactor`).
        unsafe { pass.push(entry, Token::new(Kind::Copy, tag)) };
        Ok(Outcome::Running)
    }

    /// Takes the result of a copy.
    #[cold]
    pub(super) fn copied<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        result: i32,
    ) -> Settled {
        let staged = &mut self.staging[tag.index()];
        let flight = &mut self.flights[tag.index()];
        flight.pending = 0;
        let length = flight.request.length;
        match u32::try_from(result) {
            Ok(moved @ 1..) => staged.copied += moved,
            _ if staged.idle < MAX_IDLE_COPIES && retriable(result) => staged.idle += 1,
            _ => return Ok(self.refuse(pass, tag, Errno(libc::EFAULT))),
        }
        if staged.copied < length {
            return self.copy(pass, tag);
        }
        let stored = staged.copying == Copying::Store;
        (staged.copying, staged.copied) = (Copying::Nothing, 0);
        if stored {
            flight.lease = Lease::InMemory;
            return Ok(Outcome::Commit(self.succeed(pass, tag)));
        }
        if flight.planned == 0 {
            // The handler plans only after seeing the bytes.
            return Ok(self.hold(tag));
        }
        let steps = usize::from(flight.planned);
        self.launch(pass, tag, steps)
    }

    /// The request's bytes cannot be reached: the request fails, or a held request goes back to the
    /// reactor with the error.
    fn refuse<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag, errno: Errno) -> Outcome {
        let flight = &mut self.flights[tag.index()];
        flight.errno = errno.0;
        if flight.lease == Lease::Standing {
            self.give_back(tag);
        }
        if self.flights[tag.index()].held {
            self.hold(tag)
        } else {
            self.tell_failure(tag);
            Outcome::Commit(self.fail(pass, tag, errno))
        }
    }

    /// Fetches all bytes of a request into the request's memory.
    pub(super) fn fetch<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag) -> Settled {
        self.staging[tag.index()].copying = Copying::Fetch;
        self.copy(pass, tag)
    }

    /// Stores the bytes of a successful read: from the server's memory into the client's.
    pub(super) fn store<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag) -> Settled {
        self.staging[tag.index()].copying = Copying::Store;
        self.copy(pass, tag)
    }

    /// The request needs no memory any more.
    pub(super) fn give_back(&mut self, tag: Tag) {
        let staged = &mut self.staging[tag.index()];
        if let (true, Some(arena)) = (staged.lent, &mut self.aids.arena) {
            arena.put(staged.address);
            staged.lent = false;
        }
    }

    /// Zeros a part of the request's bytes, if the bytes are in the server's memory; false
    /// otherwise. In memory shared by clients, only the kernel touches bytes: clients may have
    /// truncated the memory.
    pub(super) fn zero(&self, tag: Tag, at: u32, length: u32) -> bool {
        let index = tag.index();
        if self.flights[index].request.flags.is_shared() && !self.staging[index].lent {
            return false;
        }
        let Some(address) = self.address(tag) else { return false };
        assert!(
            u64::from(at) + u64::from(length) <= self.flights[tag.index()].request.length.into()
        );
        // SAFETY: within the request's memory, just checked; no operation on this part is in
        // flight, since the last operation has just ended short of the part.
        unsafe { std::ptr::write_bytes(address.wrapping_add(at as usize), 0, length as usize) };
        true
    }

    fn plan(&self, tag: Tag, steps: usize) -> &[Step] {
        let first = tag.index() * self.max_steps;
        &self.steps[first..first + steps]
    }
}

impl Staging {
    /// A request whose bytes have no place yet; the descriptor, or the exchange, has given
    /// `address`.
    pub(super) fn at(address: u64) -> Self {
        let address = usize::try_from(address).unwrap_or_default();
        Self { address: std::ptr::with_exposed_provenance_mut(address), ..Self::EMPTY }
    }

    pub(super) fn address(&self) -> *mut u8 {
        self.address
    }

    fn lend(&mut self, arena: Option<&mut Arena>) {
        self.address = arena.expect("copying needs an arena").take();
        self.lent = true;
    }
}

/// Nothing copied: memory may be short now, and there later.
fn retriable(result: i32) -> bool {
    matches!(-result, 0 | libc::EINTR | libc::EAGAIN | libc::ENOMEM)
}
