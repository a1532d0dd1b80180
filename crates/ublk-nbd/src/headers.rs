//! Which headers the messages of a connection have.

/// Which headers the requests and the replies of a connection have, as client and server have agreed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Headers {
    /// Lengths of 32 bits; each reply is one simple reply.
    #[default]
    Simple,
    /// Lengths of 32 bits; the replies to `READ` and `BLOCK_STATUS` come in chunks (`STRUCTURED_REPLY`).
    Structured,
    /// Lengths of 64 bits; each reply comes in chunks (`EXTENDED_HEADERS`).
    Extended,
}

impl Headers {
    /// Whether replies come in chunks.
    pub fn have_chunks(self) -> bool {
        self != Self::Simple
    }
}
