//! What one request becomes.

use super::Errno;

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// From the file into the step's [place](Place). What lies beyond the end of a plain file reads as
    /// zeros into the request's buffer, and fails elsewhere; beyond the end of a block device every step
    /// fails with `EIO`.
    Read,
    /// From the step's place into the file.
    Write {
        /// On stable storage before it completes (`RWF_DSYNC`).
        dsync: bool,
    },
    /// The file's data, and what is needed to find it, to stable storage (fdatasync).
    Sync,
    /// Gives the range back; it reads as zeros (`FALLOC_FL_PUNCH_HOLE`).
    PunchHole,
    /// The range reads as zeros and keeps its space (`FALLOC_FL_ZERO_RANGE`).
    ZeroRange,
    /// The block device's own discard; what the range reads afterwards is undefined.
    Discard,
    /// The kernel's metadata of a write into the room for the request's metadata.
    FetchMetadata,
    /// From the room for the request's metadata to the kernel, as the metadata of a read.
    StoreMetadata,
    /// Zeros into the request's buffer; the file and the offset mean nothing.
    Zeros,
    /// Gives the range of a plain file its space, and makes the file as long (`fallocate` without a
    /// mode).
    Allocate,
    /// Nothing, for as many microseconds as the step's length; the rest of the step means nothing.
    Wait,
}

impl StepKind {
    /// Whether its success says that something is on stable storage.
    #[inline]
    pub fn syncs(self) -> bool {
        matches!(self, Self::Sync | Self::Write { dsync: true })
    }
}

/// What memory a step reads into or writes from.
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

/// One piece of backend I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it does.
    pub kind: StepKind,
    /// Steps of a lower stage end before this one starts; equal stages run in parallel.
    pub stage: u8,
    /// Which of the steps that a handler asked for at once it belongs to; 0 in other plans.
    pub asked: u8,
    /// The memory.
    pub place: Place,
    /// The target's file, by its place in [`Target::files`](super::Target::files).
    pub file: u16,
    /// Where in the memory, in bytes.
    pub at: u32,
    /// How many bytes; of a wait, microseconds.
    pub length: u32,
    /// Where in the file, in bytes.
    pub offset: u64,
}

impl Step {
    /// Syncs the first file: what others are made from.
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

    /// Whether it moves bytes of the request.
    #[inline]
    pub fn uses_buffer(&self) -> bool {
        let moves = matches!(self.kind, StepKind::Read | StepKind::Write { .. } | StepKind::Zeros);
        moves && self.place == Place::Request
    }

    /// Whether it moves bytes that are not the request's own: metadata, or the target's memory.
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
    /// Nowhere: it is done at once.
    Nowhere,
    /// In one piece in a file.
    To {
        /// The target's file, by its place in [`Target::files`](super::Target::files).
        file: u16,
        /// Where in it, in bytes.
        offset: u64,
    },
}

/// Where the steps of a part belong in the whole: what is added to each.
#[derive(Clone, Copy, Debug, Default)]
pub struct Part {
    /// To the place of its file.
    pub files: u16,
    /// To its place in the request's buffer, in bytes.
    pub at: u32,
    /// To its stage.
    pub stage: u8,
}

/// A round of steps for one request, in memory that the engine lends; stages must not decrease.
#[derive(Debug)]
pub struct Plan<'a> {
    steps: &'a mut [Step],
    len: usize,
    ticket: Option<u64>,
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
    /// When the target says a smaller [`max_steps`](super::Target::max_steps) than it uses.
    #[inline]
    pub fn push(&mut self, step: Step) {
        self.steps[self.len] = step;
        self.len += 1;
    }

    /// Adds as many steps as `fill` says that it put into a plan of the room that is left, and asks if
    /// that plan does.
    #[inline]
    pub(super) fn append(
        &mut self,
        fill: impl FnOnce(Plan<'_>) -> Result<(usize, Option<u64>), Errno>,
    ) -> Result<(), Errno> {
        let (steps, ticket) = fill(Plan::new(&mut self.steps[self.len..]))?;
        self.len += steps;
        self.ticket = ticket.or(self.ticket);
        Ok(())
    }

    /// Asks the target what is [next](super::Target::next) when all steps have ended well, too, and tells
    /// it `ticket` then.
    #[inline]
    pub fn ask(&mut self, ticket: u64) {
        self.ticket = Some(ticket);
    }

    /// What the target wants to be told when the steps have ended, if it asks.
    #[inline]
    pub fn ticket(&self) -> Option<u64> {
        self.ticket
    }

    /// Adds what `fill` adds, as a part of a larger plan.
    ///
    /// # Errors
    /// What `fill` says.
    pub fn part(
        &mut self,
        part: Part,
        fill: impl FnOnce(&mut Self) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let first = self.len;
        fill(self)?;
        for step in &mut self.steps[first..self.len] {
            step.file += part.files;
            step.at += part.at;
            step.stage += part.stage;
        }
        Ok(())
    }

    /// Adds what `fill` adds, unless it fails, as the step with this number of those that a handler
    /// has asked for.
    ///
    /// # Errors
    /// What `fill` says; the plan is as it was then.
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
            // Unstable, since that allocates nothing; the steps of a stage have no order anyway.
            steps.sort_unstable_by_key(|step| step.stage);
        }
    }

    /// The steps so far.
    #[inline]
    pub fn steps(&self) -> &[Step] {
        &self.steps[..self.len]
    }

    /// How many more steps it can have.
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
