//! Remote backends: services reached through a connection and not through a file, shared by all queues
//! of a device.
//!
//! A target names its [remotes](crate::targets::Target::remotes), and steps name them by
//! [`REMOTE`](crate::targets::REMOTE). Each queue has a [`Session`] per remote, on the reactor's thread. The
//! engine gives a step to the session; the session pushes entries of its own on the reactor's ring, and
//! answers the step with a result, as the ring answers the steps on files.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use io_uring::squeue::Entry;

use crate::allocation::Allocation;
use crate::error::Result;
use crate::memory::Region;
use crate::tag::Tag;
use crate::targets::{Durability, StepKind, fixed_size};

mod ends;
pub mod http;
pub mod nbd;
pub mod rbd;

/// A service behind a target.
pub trait Remote: Debug + Send + Sync + 'static {
    /// Names the service for people, without secrets.
    fn name(&self) -> String;

    /// Whether more than one session may work at a time: a write or a flush that one session has
    /// answered counts for all sessions.
    fn is_shareable(&self) -> bool;

    /// Whether a device on the service may have `size` bytes from now on, a multiple of the logical block size. May
    /// block.
    ///
    /// # Errors
    /// The reason and the remedy; by default that the size is fixed.
    fn check_size(&self, size: u64) -> Result<()> {
        Err(fixed_size(size))
    }

    /// The state of the bytes from `offset` on, as far as the state is the same and known, at most `length` bytes and
    /// at least one. May block. By default all ranges take space, as ranges do of which the service says nothing.
    fn allocation(&self, offset: u64, length: u64) -> Allocation {
        let _ = offset;
        Allocation::data(length)
    }

    /// Begins a session for at most `capacity` steps at a time. Does not block: connections are made by
    /// other threads.
    ///
    /// # Errors
    /// When memory or descriptors have run out.
    fn begin(self: Arc<Self>, capacity: usize) -> io::Result<Box<dyn Session>>;
}

/// The step of a request that a session answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The request's tag.
    pub tag: Tag,
    /// The number of the step in the request's plan.
    pub step: u8,
}

/// What a session has to do for a step.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// Comes back with the result.
    pub ticket: Ticket,
    /// A kind of step that works on a file.
    pub kind: StepKind,
    /// Where in the service's bytes.
    pub offset: u64,
    /// How many bytes.
    pub length: u32,
    /// Where the bytes of a read or write are.
    pub memory: *mut u8,
}

/// A queue's way to a remote.
pub trait Session: Debug {
    /// Memory, besides the jobs', that entries of the session name.
    fn memory(&self) -> &Arc<Region>;

    /// Takes a job. The number of jobs without an answer never exceeds the session's capacity.
    ///
    /// # Safety
    /// The job's memory must stay valid until the session has answered the job.
    unsafe fn start(&mut self, job: Job);

    /// An entry with this number has completed.
    fn completed(&mut self, entry: u8, result: i32);

    /// A second has passed. Entries may be due, and answers may have come. Nothing, by default.
    fn tick(&mut self) {}

    /// Pushes the entries that are due.
    ///
    /// # Errors
    /// When the ring breaks.
    fn push(&mut self, entries: &mut dyn Entries) -> io::Result<()>;

    /// The next answer: the number of bytes or a negative errno. No entry of the session names the
    /// job's memory any more.
    fn answer(&mut self) -> Option<(Ticket, i32)>;

    /// Ends the session, without jobs: the entries in flight complete soon. May be repeated.
    fn close(&mut self);

    /// Whether no entry is in flight.
    fn is_idle(&self) -> bool;
}

/// What a job of a service is answered: after a failure to make data durable, no sync succeeds, since a service, too,
/// may report the failure once and drop the data. `durability` is that of one file, which all sessions share.
fn settle(durability: &Durability, kind: StepKind, result: i32) -> i32 {
    match result {
        _ if !kind.syncs() => result,
        ..0 => {
            durability.lose(0);
            result
        }
        _ if durability.is_lost(0) => -libc::EIO,
        _ => result,
    }
}

/// The most entries of a session in flight at a time.
pub(crate) const MOST_ENTRIES: u32 = 4;

/// A reactor's ring, for a session.
pub trait Entries {
    /// Pushes an entry whose completion comes back with `number`.
    ///
    /// # Errors
    /// When the ring breaks.
    ///
    /// # Safety
    /// Memory used by the entry must stay valid until the entry's completion.
    unsafe fn push(&mut self, entry: Entry, number: u8) -> io::Result<()>;
}
