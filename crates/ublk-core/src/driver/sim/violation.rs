//! What a server must never do.

use std::fmt;

/// A rule of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// FETCH once per tag, with the right buffer, before the device starts.
    Fetch,
    /// Exactly one commit for each fetched request, from the thread that fetched it, with a result
    /// no longer than the request.
    Commit,
    /// Register a request that has data, while it is ours, into an empty slot of the table.
    Register,
    /// Unregister what is registered, and only one's own.
    Unregister,
    /// A fixed operation finds its buffer in its slot.
    EmptySlot,
    /// A fixed operation stays within its buffer and goes the buffer's way.
    Range,
    /// Reads and writes without a slot stay within the buffers given with FETCH and COMMIT, and
    /// use them only while the tag is ours.
    Memory,
    /// User copy names a request that is ours, and goes its way.
    UserCopy,
    /// No request of an unprivileged device is older than 30 s.
    Age,
    /// Every request gets an answer.
    Unanswered,
    /// No buffer stays registered.
    BufferLeft,
    /// Completions never outnumber the completion queue.
    Overflow,
    /// Nothing is pushed into a full submission queue.
    NoSpace,
    /// A ring belongs to one thread.
    Thread,
    /// A ring whose cancellation was answered `EALREADY` lets time pass before the next one of the same
    /// operation: a loop without a pause takes a processor as long as the disk is busy.
    Spin,
    /// Only operations that the model knows are used, with valid arguments.
    Operation,
}

/// A broken rule.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// How.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.detail)
    }
}
