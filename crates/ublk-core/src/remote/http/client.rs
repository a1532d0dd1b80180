//! Requests for ranges of a file, and what a server's answer is worth.

use std::fmt;
use std::io::{ErrorKind, Read as _};
use std::time::Duration;

use ureq::http::header::{
    CONTENT_ENCODING, CONTENT_RANGE, ETAG, IF_MATCH, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE,
    RETRY_AFTER,
};
use ureq::http::{HeaderMap, HeaderName, Response, Uri};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use super::HttpOptions;
use crate::error::{Code, Error, Result};

/// The longest pause that a server may ask for before the next try.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A version of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    /// In bytes.
    pub(super) size: u64,
    etag: Option<String>,
    modified: Option<String>,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = self.etag.as_deref().or(self.modified.as_deref()).unwrap_or_default();
        write!(f, "{} bytes, {mark}", self.size)
    }
}

/// Why a range was not read.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server could not be reached, or broke off.
    Network(ureq::Error),
    /// The server answers with this status.
    Status { code: u16, after: Option<Duration> },
    /// The server has another version of the file than at the first answer.
    Changed,
    /// The answer is not what was asked for.
    Wrong(&'static str),
}

impl Failure {
    /// Whether another try may succeed.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Network(_) => !self.is_distrust(),
            Self::Status { code, .. } => matches!(code, 408 | 425 | 429 | 500..),
            Self::Changed | Self::Wrong(_) => false,
        }
    }

    /// Whether the server has shown no certificate that can be trusted.
    pub(super) fn is_distrust(&self) -> bool {
        match self {
            Self::Network(ureq::Error::Tls(_) | ureq::Error::Rustls(_)) => true,
            // So rustls tells of a handshake that fails.
            Self::Network(ureq::Error::Io(error)) => error.kind() == ErrorKind::InvalidData,
            _ => false,
        }
    }

    /// The pause that the server asks for.
    pub(super) fn pause(&self) -> Option<Duration> {
        match self {
            Self::Status { after, .. } => *after,
            _ => None,
        }
    }
}

impl From<ureq::Error> for Failure {
    fn from(error: ureq::Error) -> Self {
        Self::Network(error)
    }
}

/// The way to a file.
pub(super) struct Client {
    agent: Agent,
    url: Uri,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.name()).finish()
    }
}

impl Client {
    /// # Errors
    /// `InvalidArgument` for a text that is no address, `NoBackend` and others for a file of certificates that
    /// cannot be read.
    pub(super) fn new(url: &str, options: &HttpOptions) -> Result<Self> {
        let refused = |what: &str| {
            Error::new(Code::InvalidArgument, format!("'{url}' {what}"))
                .hint("the forms are http://HOST[:PORT]/PATH and https://HOST[:PORT]/PATH")
        };
        let parsed: Uri = url.parse().map_err(|_| refused("is no address"))?;
        if !matches!(parsed.scheme_str(), Some("http" | "https")) || parsed.host().is_none() {
            return Err(refused("is no address of a file on a web server"));
        }
        // A password would lie in the device's record.
        if parsed.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(Error::new(
                Code::InvalidArgument,
                "an address with a user and a password is not supported",
            ));
        }
        let roots = match &options.authorities {
            Some(path) => RootCerts::new_with_certs(&certificates(path)?),
            None => RootCerts::WebPki,
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .https_only(parsed.scheme_str() == Some("https"))
            .timeout_global(Some(options.answer_timeout))
            .max_idle_connections(options.connections)
            .max_idle_connections_per_host(options.connections)
            .accept_encoding("identity")
            .user_agent(concat!("ublk/", env!("CARGO_PKG_VERSION")))
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .build();
        Ok(Self { agent: config.into(), url: parsed })
    }

    /// The address without its query, which may be a secret.
    pub(super) fn name(&self) -> String {
        let (scheme, authority) = (self.url.scheme_str(), self.url.authority());
        let authority = authority.map_or("", |authority| authority.as_str());
        format!("{}://{authority}{}", scheme.unwrap_or_default(), self.url.path())
    }

    /// Asks for the first byte: the answer tells the version of the file.
    pub(super) fn look(&self) -> std::result::Result<Version, Failure> {
        let response = self.agent.get(&self.url).header(RANGE, "bytes=0-0").call()?;
        check_status(&response)?;
        let size = match content_range(response.headers()) {
            Some((0, 0, size)) => size,
            _ => return Err(Failure::Wrong("no range is said of an answer that has a range")),
        };
        let version = version(response.headers(), size);
        if version.etag.is_none() && version.modified.is_none() {
            return Err(Failure::Wrong(
                "neither ETag nor Last-Modified tells versions of the file",
            ));
        }
        Ok(version)
    }

    /// Reads `length` bytes from `offset` on of this version of the file, and nothing else.
    pub(super) fn read(
        &self,
        (offset, length): (u64, u32),
        version: &Version,
        bytes: &mut Vec<u8>,
    ) -> std::result::Result<(), Failure> {
        let last = offset + u64::from(length) - 1;
        let mut request = self.agent.get(&self.url).header(RANGE, format!("bytes={offset}-{last}"));
        // A weak mark never matches by itself (RFC 9110, 13.1.1).
        if let Some(etag) = version.etag.as_ref().filter(|etag| !etag.starts_with("W/")) {
            request = request.header(IF_MATCH, etag);
        } else if let Some(modified) = &version.modified {
            request = request.header(IF_UNMODIFIED_SINCE, modified);
        }
        let mut response = request.call()?;
        check_status(&response)?;
        let Some((first, end, size)) = content_range(response.headers()) else {
            return Err(Failure::Wrong("no range is said of an answer that has a range"));
        };
        if self::version(response.headers(), size) != *version {
            return Err(Failure::Changed);
        }
        if (first, end) != (offset, last) {
            return Err(Failure::Wrong("the answer has another range"));
        }
        bytes.clear();
        let body = response.body_mut().with_config().limit(u64::from(length) + 1).reader();
        let read = body.take(u64::from(length)).read_to_end(bytes);
        match read {
            Ok(count) if count == length as usize => Ok(()),
            Ok(_) => Err(Failure::Network(ureq::Error::Io(ErrorKind::UnexpectedEof.into()))),
            Err(error) => Err(Failure::Network(ureq::Error::Io(error))),
        }
    }
}

/// The certificates of a file.
fn certificates(path: &std::path::Path) -> Result<Vec<ureq::tls::Certificate<'static>>> {
    let name = path.display();
    let text = std::fs::read(path).map_err(|error| {
        Error::os(Code::NoBackend, format!("cannot read the certificates {name}"), "read", &error)
    })?;
    let items: Vec<_> = parse_pem(&text)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    match items.is_empty() {
        true => Err(Error::new(Code::InvalidArgument, format!("{name} holds no certificate"))
            .hint("a certificate in PEM begins with -----BEGIN CERTIFICATE-----")),
        false => Ok(items),
    }
}

fn check_status(response: &Response<Body>) -> std::result::Result<(), Failure> {
    match response.status().as_u16() {
        206 => match text(response.headers(), &CONTENT_ENCODING).as_deref() {
            None | Some("identity") => Ok(()),
            Some(_) => Err(Failure::Wrong("the answer is compressed")),
        },
        200 => Err(Failure::Wrong("the server answers with the whole file, so it knows no ranges")),
        412 => Err(Failure::Changed),
        code => {
            let asked = text(response.headers(), &RETRY_AFTER).and_then(|after| after.parse().ok());
            let after = asked.map(|seconds| Duration::from_secs(seconds).min(LONGEST_PAUSE));
            Err(Failure::Status { code, after })
        }
    }
}

fn version(headers: &HeaderMap, size: u64) -> Version {
    Version { size, etag: text(headers, &ETAG), modified: text(headers, &LAST_MODIFIED) }
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// First byte, last byte and size of `Content-Range: bytes 0-0/1024`.
fn content_range(headers: &HeaderMap) -> Option<(u64, u64, u64)> {
    let text = text(headers, &CONTENT_RANGE)?;
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?, size.parse().ok()?))
}
