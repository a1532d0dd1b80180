//! Why there is no TLS.

use std::{fmt, io};

/// Why there is no TLS connection.
#[derive(Debug)]
pub enum TlsError {
    /// A file with a certificate or a key is missing or wrong: what was tried, and what is wrong.
    File {
        /// After "cannot use".
        message: String,
        /// What to do.
        hint: &'static str,
    },
    /// The kernel has no TLS, or lacks the cipher.
    Kernel {
        /// The system call that failed.
        call: &'static str,
        /// The kernel's answer.
        error: io::Error,
    },
    /// The stream failed or ended during the handshake.
    Io(io::Error),
    /// The peers do not agree, or do not trust each other.
    Handshake(rustls::Error),
}

/// What to do where the kernel has no TLS.
const NO_KERNEL_TLS: &str = "TLS needs the kernel's module tls (CONFIG_TLS) and ChaCha20-Poly1305: `modprobe tls` as root loads the \
     module, and a file in /etc/modules-load.d with the line `tls` does so at each boot";

impl TlsError {
    /// What to do.
    pub fn hint(&self) -> &'static str {
        use rustls::{AlertDescription, CertificateError};
        match self {
            Self::File { hint, .. } => hint,
            Self::Kernel { .. } => NO_KERNEL_TLS,
            Self::Io(_) => "does the peer speak TLS 1.3?",
            Self::Handshake(error) => match error {
                rustls::Error::InvalidCertificate(
                    CertificateError::NotValidForName
                    | CertificateError::NotValidForNameContext { .. },
                ) => {
                    "the certificate is for other hosts: use a host of the certificate in the URI, or a \
                     certificate with this host as subjectAltName"
                }
                rustls::Error::InvalidCertificate(
                    CertificateError::UnknownIssuer | CertificateError::BadSignature,
                ) => "did the authority in ca-cert.pem sign the peer's certificate?",
                rustls::Error::InvalidCertificate(_) => {
                    "look at the peer's certificate: `openssl x509 -in FILE -noout -text`"
                }
                rustls::Error::AlertReceived(
                    AlertDescription::HandshakeFailure | AlertDescription::ProtocolVersion,
                ) => "the peer must speak TLS 1.3 with ChaCha20-Poly1305",
                rustls::Error::NoCertificatesPresented => {
                    "the client needs client-cert.pem and client-key.pem"
                }
                _ => "the peers' certificates and versions of TLS must go together",
            },
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { message, .. } => write!(f, "cannot use {message}"),
            Self::Kernel { call, error } => {
                write!(f, "the kernel cannot carry TLS connections ({call}: {error})")
            }
            Self::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                f.write_str("the peer ends the connection during the TLS handshake")
            }
            Self::Io(error) => error.fmt(f),
            Self::Handshake(error) => write!(f, "no TLS with the peer: {error}"),
        }
    }
}

impl std::error::Error for TlsError {}

/// The error for a peer that has ended a connection with this alert, or with new keys.
pub fn refusal(alert: Option<u8>) -> io::Error {
    io::Error::other(match alert {
        // The certificate was wanted, or is wrong; RFC 8446, 6.2.
        Some(116) => "the server wants a certificate of the client (client-cert.pem)".to_owned(),
        Some(alert @ (42..=49)) => {
            format!("the server refuses the client's certificate (alert {alert})")
        }
        Some(alert) => format!("the server ends TLS with alert {alert}"),
        None => "the server sends a record of TLS that is not expected".to_owned(),
    })
}

impl From<io::Error> for TlsError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        Self::Handshake(error)
    }
}
