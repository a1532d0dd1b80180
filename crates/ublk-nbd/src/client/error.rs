//! Why a negotiation has failed.

use std::{fmt, io};

use crate::wire::option_reply;

/// Why a server and this client do not come together.
#[derive(Debug)]
pub enum NegotiateError {
    /// The stream failed or ended.
    Io(io::Error),
    /// The server has no TLS.
    NoTls,
    /// The peer does not speak the protocol, or breaks it.
    Protocol(&'static str),
    /// The server refuses the export: the reply's type, and the server's message, maybe empty.
    Refused {
        /// A number of [`option_reply`].
        reply: u32,
        /// The message of the server.
        message: String,
    },
}

impl From<io::Error> for NegotiateError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for NegotiateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                f.write_str("the server ends the connection during the negotiation")
            }
            Self::Io(error) => error.fmt(f),
            Self::NoTls => f.write_str("the server does not offer TLS"),
            Self::Protocol(what) => f.write_str(what),
            Self::Refused { reply, message } => {
                f.write_str(reason(*reply))?;
                if message.is_empty() { Ok(()) } else { write!(f, " ('{message}')") }
            }
        }
    }
}

impl std::error::Error for NegotiateError {}

fn reason(reply: u32) -> &'static str {
    match reply {
        option_reply::ERR_UNKNOWN => "the server has no such export",
        option_reply::ERR_POLICY => "the server's configuration forbids the export",
        option_reply::ERR_TLS_REQD => "the server serves the export only with TLS",
        option_reply::ERR_SHUTDOWN => "the server is ending",
        option_reply::ERR_BLOCK_SIZE_REQD => "the server wants a client with block sizes",
        option_reply::ERR_EXT_HEADER_REQD => "the server wants a client with extended headers",
        option_reply::ERR_PLATFORM => "the server's platform cannot serve the export",
        _ => "the server refuses the export",
    }
}
