//! What a target hears of in the middle of a plan.

use super::{Errno, Step};

/// How far a plan has come.
#[derive(Debug)]
pub struct Reached<'a> {
    /// The note that was reached.
    pub note: Step,
    /// The plan.
    pub plan: &'a [Step],
}

/// How a plan goes on after a [`Note`](super::StepKind::Note).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Go {
    /// With the next stage.
    On,
    /// The note is reached once more after so many microseconds.
    Later(u32),
    /// It fails.
    Fail(Errno),
}
