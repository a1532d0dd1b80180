//! Errors of TLS, for people.

use std::fmt;

use ublk_tls::TlsError;

use crate::error::{Code, Error};

/// An error of TLS, after what was tried.
pub(crate) fn explain(tried: &dyn fmt::Display, error: &TlsError) -> Error {
    let code = match error {
        TlsError::File { .. } => Code::InvalidArgument,
        TlsError::Kernel { .. } => Code::Unsupported,
        TlsError::Io(_) | TlsError::Handshake(_) => Code::BadBackend,
    };
    Error::new(code, format!("{tried}: {error}")).hint(error.hint())
}
