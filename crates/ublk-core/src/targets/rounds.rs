//! What a target says when a round of steps has ended.

use super::Errno;

/// How a round has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The errno of the first step that failed, or of the request's buffer that could not be had.
    pub result: Result<(), Errno>,
    /// What the target gave to [`Plan::ask`](super::Plan::ask); 0 if the plan did not ask.
    pub ticket: u64,
    /// How many rounds of the request have ended before.
    pub round: u16,
}

impl Ended {
    /// The first round has failed with `errno`.
    pub fn failed(errno: Errno) -> Self {
        Self { result: Err(errno), ticket: 0, round: 0 }
    }
}

/// How a request goes on after a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It has been answered: the whole length is committed.
    Done,
    /// With the steps that the plan has now.
    Round,
    /// It fails.
    Fail(Errno),
    /// The target is asked the same once more after so many microseconds. No answer to a round that has
    /// failed.
    Park(u32),
}
