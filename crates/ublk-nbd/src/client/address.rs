//! Where an export is: the URIs of NBD (`doc/uri.md` of the protocol's project).

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use crate::wire::{MAX_STRING, PORT};

/// The socket of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A TCP port.
    Tcp {
        /// A name or an address, without brackets.
        host: String,
        /// The port; 10809 unless the URI has another.
        port: u16,
    },
    /// A socket in the file system.
    Unix(PathBuf),
}

/// An export of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The socket of the server.
    pub endpoint: Endpoint,
    /// The connection uses TLS.
    pub tls: bool,
    /// The name of the export; empty: the server's default export.
    pub export: String,
}

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError {
    /// What is wrong, after the URI: "has no socket".
    pub message: String,
    /// What to do.
    pub hint: &'static str,
}

const FORMS: &str = "the forms are nbd://HOST[:PORT]/EXPORT, nbds://HOST[:PORT]/EXPORT with TLS, and \
    nbd+unix:///EXPORT?socket=PATH";

impl Address {
    /// Reads `nbd://HOST[:PORT]/EXPORT`, `nbds://HOST[:PORT]/EXPORT` or `nbd+unix:///EXPORT?socket=PATH`, with
    /// `%XX` for any byte.
    ///
    /// # Errors
    /// For other schemes, parts that are missing or have no meaning here, and names longer than 4096
    /// bytes.
    pub fn parse(uri: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = uri.split_once("://").ok_or_else(|| wrong("is no URI of NBD"))?;
        if rest.contains('#') {
            return Err(wrong("has a fragment, which has no meaning for NBD"));
        }
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, q)| (rest, Some(q)));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let endpoint = match scheme {
            "nbd" | "nbds" => tcp(authority, query)?,
            "nbd+unix" => unix(authority, query)?,
            "nbds+unix" => {
                return Err(AddressError {
                    message: "asks for TLS over a Unix socket, and the kernel has TLS for TCP only"
                        .into(),
                    hint: "use nbds:// over TCP, or nbd+unix://, which never leaves this machine",
                });
            }
            _ => return Err(wrong("is no URI of NBD")),
        };
        let export = String::from_utf8(decode(path)?)
            .map_err(|_| wrong("has an export whose name is not UTF-8"))?;
        if export.len() > MAX_STRING {
            return Err(wrong("has an export whose name is longer than 4096 bytes"));
        }
        Ok(Self { endpoint, tls: scheme == "nbds", export })
    }
}

fn tcp(authority: &str, query: Option<&str>) -> Result<Endpoint, AddressError> {
    if let Some(query) = query {
        return Err(wrong(format!("has '?{query}', which has no meaning over TCP")));
    }
    if authority.contains('@') {
        return Err(wrong("names a user, which has a meaning only with pre-shared keys"));
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(|| wrong("has no ']'"))?;
            (host, port.strip_prefix(':').or_else(|| port.is_empty().then_some("")))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, Some("")),
        },
    };
    let host = String::from_utf8(decode(host)?).map_err(|_| wrong("has a host in no UTF-8"))?;
    if host.is_empty() {
        return Err(wrong("has no host"));
    }
    let port = match port {
        Some("") => PORT,
        Some(port) => {
            port.parse().ok().filter(|&port| port != 0).ok_or_else(|| wrong("has no valid port"))?
        }
        None => return Err(wrong("has no valid port")),
    };
    Ok(Endpoint::Tcp { host, port })
}

fn unix(authority: &str, query: Option<&str>) -> Result<Endpoint, AddressError> {
    if !authority.is_empty() {
        return Err(wrong("has a host, which a socket in the file system has not"));
    }
    let mut socket = None;
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("socket", path)) if socket.is_none() => socket = Some(decode(path)?),
            _ => return Err(wrong(format!("has '{pair}', which has no meaning here"))),
        }
    }
    let socket =
        socket.filter(|path| !path.is_empty()).ok_or_else(|| wrong("has no ?socket=PATH"))?;
    if socket.contains(&0) || !socket.starts_with(b"/") {
        return Err(wrong("has a socket whose path is not absolute, or has a zero byte"));
    }
    Ok(Endpoint::Unix(OsString::from_vec(socket).into()))
}

fn decode(text: &str) -> Result<Vec<u8>, AddressError> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(wrong("has a '%' without two hexadecimal digits"));
        };
        decoded.extend(u8::try_from(high << 4 | low));
    }
    Ok(decoded)
}

fn wrong(message: impl Into<String>) -> AddressError {
    AddressError { message: message.into(), hint: FORMS }
}

/// One URI for one export: the port always, other bytes than letters, digits and `-._~/` as `%XX`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            Endpoint::Tcp { host, port } => {
                f.write_str(if self.tls { "nbds://" } else { "nbd://" })?;
                match host.contains(':') {
                    true => write!(f, "[{host}]:{port}/")?,
                    false => write!(f, "{host}:{port}/")?,
                }
            }
            Endpoint::Unix(_) => f.write_str("nbd+unix:///")?,
        }
        encode(self.export.as_bytes(), f)?;
        if let Endpoint::Unix(path) = &self.endpoint {
            f.write_str("?socket=")?;
            encode(path.as_os_str().as_bytes(), f)?;
        }
        Ok(())
    }
}

fn encode(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for &byte in bytes {
        match byte {
            b'-' | b'.' | b'_' | b'~' | b'/' => write!(f, "{}", char::from(byte))?,
            _ if byte.is_ascii_alphanumeric() => write!(f, "{}", char::from(byte))?,
            _ => write!(f, "%{byte:02X}")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16, export: &str) -> Address {
        let endpoint = Endpoint::Tcp { host: host.into(), port };
        Address { endpoint, tls: false, export: export.into() }
    }

    #[test]
    fn both_forms_are_read_and_written() {
        let unix = |path: &str, export: &str| Address {
            endpoint: Endpoint::Unix(path.into()),
            tls: false,
            export: export.into(),
        };
        let tls = |address| Address { tls: true, ..address };
        for (uri, address, again) in [
            ("nbd://host", tcp("host", 10809, ""), "nbd://host:10809/"),
            ("nbd://host/", tcp("host", 10809, ""), "nbd://host:10809/"),
            ("nbd://[::1]:7/a/b", tcp("::1", 7, "a/b"), "nbd://[::1]:7/a/b"),
            ("nbd://[::1]", tcp("::1", 10809, ""), "nbd://[::1]:10809/"),
            ("nbd://h:1/a%20b", tcp("h", 1, "a b"), "nbd://h:1/a%20b"),
            ("nbds://[::1]/x", tls(tcp("::1", 10809, "x")), "nbds://[::1]:10809/x"),
            ("nbd+unix:///?socket=/s", unix("/s", ""), "nbd+unix:///?socket=/s"),
            ("nbd+unix:///x?socket=/a%3f", unix("/a?", "x"), "nbd+unix:///x?socket=/a%3F"),
        ] {
            assert_eq!(Address::parse(uri).as_ref(), Ok(&address), "{uri}");
            assert_eq!(address.to_string(), again);
            assert_eq!(Address::parse(again), Ok(address));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for uri in [
            "",
            "host",
            "http://host/",
            "nbd:///x",
            "nbd://user@host/x",
            "nbds://user@host/x",
            "nbds://host/x?tls-certificates=/etc",
            "nbd://host:0/",
            "nbd://host:65536/",
            "nbd://host:x/",
            "nbd://[::1/",
            "nbd://[::1]7/",
            "nbd://host/%2",
            "nbd://host/%zz",
            "nbd://host/%ff",
            "nbd://host/x?socket=/s",
            "nbd://host/x#y",
            "nbd+unix:///x",
            "nbd+unix:///x?socket=",
            "nbd+unix:///x?socket=/a%00",
            "nbd+unix:///x?socket=s",
            "nbd+unix:///x?sock=/s",
            "nbd+unix:///x?socket=/s&socket=/t",
            "nbd+unix://host/x?socket=/s",
        ] {
            let error = Address::parse(uri).unwrap_err();
            assert_eq!(error.hint, FORMS, "{uri}");
        }
        let error = Address::parse("nbds+unix:///?socket=/s").unwrap_err();
        assert!(error.message.contains("TCP only"));
        let long = format!("nbd://host/{}", "x".repeat(4097));
        assert!(Address::parse(&long).is_err());
    }
}
