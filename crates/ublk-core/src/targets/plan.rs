//! The plan of a request: steps of backend I/O.

use super::Errno;

/// The kind of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// Reads from the file into the step's [place](Place). Beyond the end of a plain file, the
    /// request's buffer receives zeros and other places fail; beyond the end of a block device
    /// every step fails with `EIO`.
    Read,
    /// From the step's place into the file.
    Write {
        /// The data is on stable storage before the step completes (`RWF_DSYNC`).
        dsync: bool,
    },
    /// Brings the file's data, and the metadata needed to find the data, to stable storage
    /// (fdatasync).
    Sync,
    /// Gives the range back; the range reads as zeros (`FALLOC_FL_PUNCH_HOLE`).
    PunchHole,
    /// The range reads as zeros and keeps its space (`FALLOC_FL_ZERO_RANGE`).
    ZeroRange,
    /// The block device's discard; the range has undefined contents afterwards.
    Discard,
    /// The kernel's metadata of a write into the room for the request's metadata.
    FetchMetadata,
    /// From the room for the request's metadata to the kernel, as the metadata of a read.
    StoreMetadata,
    /// Zeros into the request's buffer; the file and the offset mean nothing.
    Zeros,
    /// Allocates the space of a plain file's range, and grows the file to the range's end
    /// (`fallocate` without a mode).
    Allocate,
    /// Nothing, for as many microseconds as the step's length; the rest of the step means nothing.
    Wait,
}

impl StepKind {
    /// Whether the success of such a step proves data to be on stable storage.
    #[inline]
    pub fn syncs(self) -> bool {
        matches!(self, Self::Sync | Self::Write { dsync: true })
    }
}

/// The memory that a step reads into or writes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// The request's own bytes.
    #[default]
    Request,
    /// The room for the request's metadata: memory of the server, as long as the metadata of the largest
    /// request.
    Metadata,
    /// The target's [own memory](super::Target::memory).
    Own,
}

/// The bit of [`Step::file`] that tells the places of a target's [remotes](super::Target::remotes) from the
/// places of files.
pub const REMOTE: u16 = 1 << 15;

/// One piece of backend I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The kind of the step.
    pub kind: StepKind,
    /// Steps of a lower stage end before this step starts; equal stages run in parallel.
    pub stage: u8,
    /// The number of the handler's step to which this step belongs, among steps asked for at once;
    /// 0 in other plans.
    pub asked: u8,
    /// The memory.
    pub place: Place,
    /// The index of the target's file in [`Target::files`](super::Target::files), or [`REMOTE`] plus an
    /// index in [`Target::remotes`](super::Target::remotes).
    pub file: u16,
    /// Where in the memory, in bytes.
    pub at: u32,
    /// How many bytes; of a wait, microseconds.
    pub length: u32,
    /// Where in the file, in bytes.
    pub offset: u64,
}

impl Step {
    /// Syncs the first file; a base for the construction of other steps.
    pub const EMPTY: Self = Self {
        kind: StepKind::Sync,
        stage: 0,
        asked: 0,
        place: Place::Request,
        file: 0,
        at: 0,
        length: 0,
        offset: 0,
    };

    /// Whether the step moves bytes of the request.
    #[inline]
    pub fn uses_buffer(&self) -> bool {
        let moves = matches!(self.kind, StepKind::Read | StepKind::Write { .. } | StepKind::Zeros);
        moves && self.place == Place::Request
    }

    /// The index of the step's remote, if the step works on a remote.
    #[inline]
    pub(crate) fn remote(&self) -> Option<u16> {
        (self.file & REMOTE != 0).then_some(self.file & !REMOTE)
    }

    /// Whether the step works on the target's file, or remote.
    pub(crate) fn on_file(&self) -> bool {
        use StepKind::{FetchMetadata, StoreMetadata, Wait, Zeros};
        !matches!(self.kind, FetchMetadata | StoreMetadata | Zeros | Wait)
    }

    /// Whether the step moves other bytes than the request's own: metadata, or the target's memory.
    #[inline]
    pub fn is_whole(&self) -> bool {
        self.place != Place::Request
            || matches!(self.kind, StepKind::FetchMetadata | StepKind::StoreMetadata)
    }
}

/// Where the bytes of a request are; see [`Target::remap`](super::Target::remap).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remap {
    /// A plan tells.
    Plan,
    /// Nowhere: the request is done at once.
    Nowhere,
    /// In a file, in a single piece.
    To {
        /// The index of the target's file in [`Target::files`](super::Target::files).
        file: u16,
        /// The offset in the file, in bytes.
        offset: u64,
    },
}

/// The position of a part's steps in the whole plan, as summands for each step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Part {
    /// For the index of the file.
    pub files: u16,
    /// For the index of the remote.
    pub remotes: u16,
    /// For the place in the request's buffer, in bytes.
    pub at: u32,
    /// For the stage.
    pub stage: u8,
}

/// A round of steps for one request, in memory lent by the engine; stages must not decrease.
#[derive(Debug)]
pub struct Plan<'a> {
    steps: &'a mut [Step],
    len: usize,
    ticket: Option<Ticket>,
}

/// The wish of a target to hear of the end of a plan's steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// What the target is told then.
    pub number: u64,
    /// The round is the request's last: after a success the target only hears of the end.
    pub last: bool,
}

impl<'a> Plan<'a> {
    /// An empty plan with room for `steps.len()` steps.
    #[inline]
    pub fn new(steps: &'a mut [Step]) -> Self {
        Self { steps, len: 0, ticket: None }
    }

    /// Adds a step.
    ///
    /// # Panics
    /// When the target uses more steps than [`max_steps`](super::Target::max_steps).
    #[inline]
    pub fn push(&mut self, step: Step) {
        self.steps[self.len] = step;
        self.len += 1;
    }

    /// Lets `fill` put steps into a plan with the remaining room. Adds the number of steps returned
    /// by `fill`, and the ticket, if any.
    #[inline]
    pub(super) fn append(
        &mut self,
        fill: impl FnOnce(Plan<'_>) -> Result<(usize, Option<Ticket>), Errno>,
    ) -> Result<(), Errno> {
        let (steps, ticket) = fill(Plan::new(&mut self.steps[self.len..]))?;
        self.len += steps;
        self.ticket = ticket.or(self.ticket);
        Ok(())
    }

    /// Asks for [`next`](super::Target::next) also after the success of all steps, with `ticket`.
    #[inline]
    pub fn ask(&mut self, ticket: u64) {
        self.ticket = Some(Ticket { number: ticket, last: false });
    }

    /// The same where the answer after a success will be [`Next::Done`](super::Next::Done): a plan of one
    /// transfer goes express then.
    #[inline]
    pub fn ask_last(&mut self, ticket: u64) {
        self.ticket = Some(Ticket { number: ticket, last: true });
    }

    /// The ticket for the target at the end of the steps, if the target asks.
    #[inline]
    pub fn ticket(&self) -> Option<Ticket> {
        self.ticket
    }

    /// Adds the steps of `fill` as a part of a larger plan.
    ///
    /// # Errors
    /// The error of `fill`.
    pub fn part(
        &mut self,
        part: Part,
        fill: impl FnOnce(&mut Self) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let first = self.len;
        fill(self)?;
        for step in &mut self.steps[first..self.len] {
            step.file += if step.remote().is_some() { part.remotes } else { part.files };
            step.at += part.at;
            step.stage += part.stage;
        }
        Ok(())
    }

    /// Adds the steps of `fill`, which read, as reads into the target's own memory from byte `at` on. The memory holds
    /// zeros, so steps that zero are left out.
    ///
    /// # Errors
    /// The error of `fill`.
    pub(super) fn read_own(
        &mut self,
        at: u32,
        fill: impl FnOnce(&mut Self) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let first = self.len;
        fill(self)?;
        let mut kept = first;
        for index in first..self.len {
            let mut step = self.steps[index];
            if step.kind == StepKind::Zeros {
                continue;
            }
            if step.uses_buffer() {
                (step.place, step.at) = (Place::Own, step.at + at);
            }
            self.steps[kept] = step;
            kept += 1;
        }
        self.len = kept;
        Ok(())
    }

    /// Adds the steps of `fill`, unless `fill` fails, as the handler's step with the number
    /// `asked`.
    ///
    /// # Errors
    /// The error of `fill`; the plan is unchanged then.
    pub(super) fn step<A, E>(
        &mut self,
        asked: u8,
        fill: impl FnOnce(&mut Self) -> Result<A, E>,
    ) -> Result<A, E> {
        let first = self.len;
        let added = fill(self).inspect_err(|_| self.len = first)?;
        self.steps[first..self.len].iter_mut().for_each(|step| step.asked = asked);
        Ok(added)
    }

    /// Puts the steps of parts in the order of their stages.
    pub fn order_stages(&mut self) {
        let steps = &mut self.steps[..self.len];
        if !steps.is_sorted_by_key(|step| step.stage) {
            // Unstable, because an unstable sort allocates nothing; the steps of a stage have no
            // order.
            steps.sort_unstable_by_key(|step| step.stage);
        }
    }

    /// The steps so far.
    #[inline]
    pub fn steps(&self) -> &[Step] {
        &self.steps[..self.len]
    }

    /// The number of steps for which there is still room.
    #[inline]
    pub(super) fn room(&self) -> usize {
        self.steps.len() - self.len
    }

    /// How many steps there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the request needs no backend at all.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}
