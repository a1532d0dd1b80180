//! NBD servers.
//!
//! [`Nbd`] is the export: the address and the facts of the first negotiation, which must stay as they
//! are. Each [session](session) has a connection. Connections are made by the threads for work that may
//! block ([`connector`]).

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ublk_nbd::client::{Address, Export, NegotiateError};
use ublk_nbd::wire::{allocation, export, option_reply};

use super::{Remote, Session};
use crate::allocation::Allocation;
use crate::error::{Code, Error, Result};
use crate::targets::Durability;
use crate::tls;

mod connect;
mod connector;
mod receiving;
mod sending;
mod session;
mod socket;
mod status;
mod table;

use connect::ConnectError;
use socket::Socket;
use status::Status;

/// How to reach an export.
#[derive(Clone, Debug)]
pub struct NbdOptions {
    /// How long a connection may take, with the negotiation.
    pub connect_timeout: Duration,
    /// How long requests wait for a lost connection to come back before they fail with `EIO`.
    pub reconnect_timeout: Duration,
    /// How long a connection with unanswered requests may bring nothing before the connection is given up
    /// as a lost one, in whole seconds.
    pub answer_timeout: Duration,
    /// The folder with the certificates for `nbds://`, read anew for each connection: `ca-cert.pem`, and where
    /// the server asks for them `client-cert.pem` and `client-key.pem`.
    pub tls_certificates: Option<PathBuf>,
}

impl Default for NbdOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            reconnect_timeout: Duration::from_secs(60),
            // A flush of much data, or zeros for many requests of 1 GiB, takes minutes on a slow disk.
            answer_timeout: Duration::from_secs(300),
            tls_certificates: None,
        }
    }
}

/// An export of an NBD server.
#[derive(Debug)]
pub struct Nbd {
    address: Address,
    export: Export,
    options: NbdOptions,
    /// The connection of the first negotiation, for the first session.
    first: Mutex<Option<Socket>>,
    /// Of the export.
    durability: Durability,
    status: Status,
}

impl Nbd {
    /// Connects to the export and negotiates. Blocks.
    ///
    /// # Errors
    /// `InvalidArgument` for a text that is no address of NBD; `NoBackend` without a server or an
    /// export of the name; `Timeout`; `Unsupported` for exports behind TLS without `nbds://`, and for a kernel
    /// without TLS; `BadBackend` for a server that breaks the protocol, or that the certificates do not prove.
    pub fn connect(uri: &str, options: NbdOptions) -> Result<Self> {
        let address = Address::parse(uri).map_err(|error| {
            let message = format!("'{uri}' {}", error.message);
            Error::new(Code::InvalidArgument, message).hint(error.hint)
        })?;
        check_tls(uri, &address, &options)?;
        let limit = options.connect_timeout;
        let (socket, agreed) = connect::connect(&address, &options, false, limit)
            .map_err(|error| explain(&address, &options, &error))?;
        Ok(Self {
            address,
            export: agreed.export,
            options,
            first: Mutex::new(Some(socket)),
            durability: Durability::of(1),
            status: Status::default(),
        })
    }

    /// What the server says of the export.
    pub fn export(&self) -> &Export {
        &self.export
    }

    /// Another connection to the export, which must be as it was. Blocks.
    fn connect_again(&self, limit: Duration) -> std::result::Result<Socket, ConnectError> {
        self.status.let_go();
        let (socket, agreed) = connect::connect(&self.address, &self.options, false, limit)?;
        if agreed.export == self.export { Ok(socket) } else { Err(ConnectError::Changed) }
    }
}

impl Remote for Nbd {
    fn name(&self) -> String {
        self.address.to_string()
    }

    fn is_shareable(&self) -> bool {
        self.export.has(export::CAN_MULTI_CONN)
    }

    fn allocation(&self, offset: u64, length: u64) -> Allocation {
        let length = u32::try_from(length).unwrap_or(u32::MAX).min(status::LONGEST);
        match self.status.ask(self, offset, length) {
            Some(extent) => Allocation {
                length: extent.length.min(length.into()),
                hole: extent.flags & allocation::HOLE != 0,
                zero: extent.flags & allocation::ZERO != 0,
                changed: false,
            },
            None => Allocation::data(length.into()),
        }
    }

    fn begin(self: Arc<Self>, capacity: usize) -> io::Result<Box<dyn Session>> {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(Box::new(session::NbdSession::new(self, first, capacity)?))
    }
}

/// Refuses an address and options of which one is for TLS and the other is not: bytes must not pass in the clear
/// unless that was asked for.
fn check_tls(uri: &str, address: &Address, options: &NbdOptions) -> Result<()> {
    let wrong = |what: &str| Err(Error::new(Code::InvalidArgument, format!("'{uri}' {what}")));
    match (address.tls, &options.tls_certificates) {
        (true, None) => {
            wrong("asks for TLS, and no folder with certificates is named").map_err(|error| {
                error.hint(
                    "tlsCertificates, on the command line --tls-certificates, names the folder",
                )
            })
        }
        (false, Some(_)) => wrong("does not use TLS, and a folder with certificates is named")
            .map_err(|error| error.hint("nbds:// uses TLS")),
        _ => Ok(()),
    }
}

fn explain(address: &Address, options: &NbdOptions, error: &ConnectError) -> Error {
    let uri = address.to_string();
    let cannot = |why: &dyn fmt::Display| format!("cannot connect to {uri}: {why}");
    match error {
        ConnectError::TimedOut => {
            let limit = options.connect_timeout.as_millis();
            let message = cannot(&format!("the server does not answer within {limit} ms"));
            Error::new(Code::Timeout, message).hint(
                "is something else listening there, or has the server as many clients as it takes \
                 (qemu-nbd: --shared=2)?",
            )
        }
        ConnectError::Os { call, error } => {
            let mut explained = Error::os(Code::NoBackend, cannot(&"failed"), call, error);
            explained.message = cannot(&error);
            explained.hint(match error.raw_os_error() {
                Some(libc::EACCES) => "may this user write to the socket?",
                _ => "is the server running, and listening there? `nbdinfo URI` tells",
            })
        }
        ConnectError::Unresolved(error) => Error::new(Code::NoBackend, cannot(error))
            .hint("does the host's name resolve? `getent hosts NAME` tells"),
        ConnectError::Changed => {
            Error::new(Code::BadBackend, cannot(&"the export is not what it was"))
        }
        ConnectError::Tls(error) => tls::explain(&format_args!("cannot connect to {uri}"), error),
        ConnectError::Negotiation(error) => {
            let code = match error {
                NegotiateError::NoTls => Code::Unsupported,
                NegotiateError::Refused { reply: option_reply::ERR_TLS_REQD, .. } => {
                    Code::Unsupported
                }
                NegotiateError::Refused { .. } => Code::NoBackend,
                _ => Code::BadBackend,
            };
            Error::new(code, cannot(error)).hint(match error {
                NegotiateError::Refused { reply: option_reply::ERR_TLS_REQD, .. } => {
                    "nbds:// in place of nbd:// uses TLS"
                }
                NegotiateError::NoTls => {
                    "nbd:// in place of nbds:// connects without encryption; nbdkit offers TLS with \
                     --tls=require --tls-certificates=DIR"
                }
                NegotiateError::Refused { .. } => {
                    "`nbdinfo --list nbd://HOST` lists a server's exports"
                }
                NegotiateError::Io(_) if address.tls => {
                    "does the server ask for a certificate of the client (client-cert.pem and \
                     client-key.pem)?"
                }
                _ => "is it an NBD server? `nbdinfo URI` tells",
            })
        }
    }
}
