//! Who one is, and whom one trusts.

use std::io::{Read, Write};
use std::os::fd::RawFd;
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::ServerName;
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

use super::{TlsError, files, handshake, kernel};

/// What a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role<'a> {
    /// Connects to a server with this name or address, which the server's certificate must have.
    Client {
        /// The host.
        host: &'a str,
    },
    /// Lets clients in.
    Server {
        /// Whether clients need no certificate.
        anyone: bool,
    },
}

#[derive(Clone, Debug)]
enum Config {
    Client(Arc<ClientConfig>, ServerName<'static>),
    Server(Arc<ServerConfig>),
}

/// The certificates of a client or a server, checked as far as files can be checked.
#[derive(Clone, Debug)]
pub struct Identity(Config);

impl Identity {
    /// Reads the certificates of `folder`: `ca-cert.pem`, and `client-cert.pem` with `client-key.pem`, which a
    /// client may lack, or `server-cert.pem` with `server-key.pem`. A server asks each client for a
    /// certificate of the authority, unless anyone may come.
    ///
    /// # Errors
    /// [`TlsError::File`], [`TlsError::Kernel`].
    pub fn read(folder: &Path, role: Role<'_>) -> Result<Self, TlsError> {
        kernel::check()?;
        let unfit = |error: rustls::Error| TlsError::File {
            message: format!("the certificates in {}: {error}", folder.display()),
            hint: "do the certificate and the key belong together?",
        };
        let roots = files::authorities(folder)?;
        let provider = Arc::new(provider());
        match role {
            Role::Client { host } => {
                let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::File {
                    message: format!("TLS with '{host}', which no certificate can name"),
                    hint: "name the server as its certificate does",
                })?;
                let builder = ClientConfig::builder_with_provider(provider)
                    .with_protocol_versions(&[&TLS13])?
                    .with_root_certificates(roots);
                let mut config = match files::pair(folder, "client")? {
                    Some((chain, key)) => {
                        builder.with_client_auth_cert(chain, key).map_err(unfit)?
                    }
                    None => builder.with_no_client_auth(),
                };
                config.resumption = Resumption::disabled();
                config.enable_secret_extraction = true;
                Ok(Self(Config::Client(Arc::new(config), name)))
            }
            Role::Server { anyone } => {
                let (chain, key) =
                    files::pair(folder, "server")?.ok_or_else(|| TlsError::File {
                        message: format!("{}: no server-cert.pem is there", folder.display()),
                        hint: "a server needs ca-cert.pem, server-cert.pem and server-key.pem",
                    })?;
                let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
                    .with_protocol_versions(&[&TLS13])?;
                let builder = if anyone {
                    builder.with_no_client_auth()
                } else {
                    let verifier =
                        WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
                    builder.with_client_cert_verifier(verifier.build().map_err(|error| {
                        TlsError::File {
                            message: format!("{}: {error}", folder.display()),
                            hint: "ca-cert.pem must hold the authority of the clients' certificates",
                        }
                    })?)
                };
                let mut config = builder.with_single_cert(chain, key).map_err(unfit)?;
                // A ticket would be a record that is no data, and no session is resumed.
                config.send_tls13_tickets = 0;
                config.enable_secret_extraction = true;
                Ok(Self(Config::Server(Arc::new(config))))
            }
        }
    }

    /// Shakes hands over `stream`, whose TCP socket is `fd`: then the socket encrypts what is sent and decrypts
    /// what is received.
    ///
    /// # Errors
    /// [`TlsError`]; the connection cannot be used then.
    pub fn secure(&self, stream: &mut (impl Read + Write), fd: RawFd) -> Result<(), TlsError> {
        kernel::prepare(fd)?;
        let connection = match &self.0 {
            Config::Client(config, name) => {
                ClientConnection::new(Arc::clone(config), name.clone())?.into()
            }
            Config::Server(config) => ServerConnection::new(Arc::clone(config))?.into(),
        };
        let secrets = handshake::shake_hands(stream, connection)?;
        kernel::begin(fd, &secrets)
    }
}

/// One cipher: a key of ChaCha20-Poly1305 serves for as many records as a connection can have, while one of
/// AES-GCM would have to be replaced after 2^24 records (RFC 8446, 5.5), which not every kernel can.
fn provider() -> CryptoProvider {
    let cipher_suites = vec![ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256];
    CryptoProvider { cipher_suites, ..ring::default_provider() }
}
