//! What one request becomes.

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// From the file into the request's buffer. What lies beyond the file's end reads as zeros.
    Read,
    /// From the request's buffer into the file.
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
}

/// One piece of backend I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it does.
    pub kind: StepKind,
    /// Steps of a lower stage end before this one starts; equal stages run in parallel.
    pub stage: u8,
    /// The target's file, by its place in [`Target::files`](super::Target::files).
    pub file: u16,
    /// Where in the request's buffer, in bytes.
    pub at: u32,
    /// How many bytes.
    pub length: u32,
    /// Where in the file, in bytes.
    pub offset: u64,
}

impl Step {
    pub(crate) const EMPTY: Self =
        Self { kind: StepKind::Sync, stage: 0, file: 0, at: 0, length: 0, offset: 0 };

    /// Whether it moves bytes between the request's buffer and a file.
    #[inline]
    pub fn uses_buffer(&self) -> bool {
        matches!(self.kind, StepKind::Read | StepKind::Write { .. })
    }
}

/// The steps of one request, in memory that the engine lends; stages must not decrease.
#[derive(Debug)]
pub struct Plan<'a> {
    steps: &'a mut [Step],
    len: usize,
}

impl<'a> Plan<'a> {
    /// An empty plan with room for `steps.len()` steps.
    #[inline]
    pub fn new(steps: &'a mut [Step]) -> Self {
        Self { steps, len: 0 }
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

    /// The steps so far.
    #[inline]
    pub fn steps(&self) -> &[Step] {
        &self.steps[..self.len]
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
