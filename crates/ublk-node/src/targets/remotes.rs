//! Services behind targets.

use std::path::PathBuf;
use std::time::Duration;

use napi_derive::napi;
use ublk_core::error::Result;
use ublk_core::targets::OnRemote;
use ublk_core::targets::http::{self, HttpOptions};
use ublk_core::targets::nbd::{self, NbdOptions};
use ublk_core::targets::rbd::{self, RbdImage, RbdOptions};

use super::{NativeTarget, given};
use crate::options::unknown;

/// An export of an NBD server.
#[derive(Clone, Debug)]
#[napi(object, object_to_js = false)]
pub struct NativeNbd {
    /// The address.
    pub uri: String,
    /// The limit of a connection, with the negotiation.
    pub connect_timeout_ms: Option<u32>,
    /// How long requests wait for a lost connection.
    pub reconnect_timeout_ms: Option<u32>,
    /// How long a connection with unanswered requests may bring nothing.
    pub answer_timeout_ms: Option<u32>,
    /// The folder with the certificates for TLS.
    pub tls_certificates: Option<String>,
}

/// An image of Ceph RBD, and the way to the cluster.
#[derive(Clone, Debug)]
#[napi(object, object_to_js = false)]
pub struct NativeRbd {
    /// The name.
    pub image: String,
    /// The pool.
    pub pool: String,
    /// The namespace of the pool; absent: the default namespace.
    pub namespace: Option<String>,
    /// The name of a snapshot.
    pub snapshot: Option<String>,
    /// The user, without `client.`.
    pub user: Option<String>,
    /// The name of the cluster.
    pub cluster: Option<String>,
    /// The path of Ceph's configuration.
    pub conf: Option<String>,
    /// The path of a keyring.
    pub keyring: Option<String>,
    /// Whether to take the exclusive lock.
    pub lock: Option<bool>,
    /// The limit of opening.
    pub connect_timeout_ms: Option<u32>,
    /// The limit of a request.
    pub request_timeout_ms: Option<u32>,
}

/// A file on a web server.
#[derive(Clone, Debug)]
#[napi(object, object_to_js = false)]
pub struct NativeHttp {
    /// The address.
    pub url: String,
    /// The limit of an answer.
    pub answer_timeout_ms: Option<u32>,
    /// How long reads are tried again.
    pub retry_timeout_ms: Option<u32>,
    /// The number of requests at a time.
    pub connections: Option<u32>,
    /// The path of a file with certificates.
    pub authorities: Option<String>,
}

impl NativeTarget {
    pub(super) fn open_remote(self) -> Result<OnRemote> {
        let asked = self.presentation();
        match self.kind.as_str() {
            "nbd" => {
                let (uri, options) = given(self.nbd, "nbd")?.convert();
                nbd::connect(&uri, options, asked)
            }
            "rbd" => {
                let (image, options) = given(self.rbd, "rbd")?.convert();
                rbd::open(image, options, asked)
            }
            "http" => {
                let (url, options) = given(self.http, "http")?.convert();
                http::open(&url, options, asked)
            }
            kind => Err(unknown("kind of target", kind)),
        }
    }
}

impl NativeNbd {
    fn convert(self) -> (String, NbdOptions) {
        let default = NbdOptions::default();
        let options = NbdOptions {
            connect_timeout: limit(self.connect_timeout_ms).unwrap_or(default.connect_timeout),
            reconnect_timeout: limit(self.reconnect_timeout_ms)
                .unwrap_or(default.reconnect_timeout),
            answer_timeout: limit(self.answer_timeout_ms).unwrap_or(default.answer_timeout),
            tls_certificates: self.tls_certificates.map(PathBuf::from),
        };
        (self.uri, options)
    }
}

impl NativeRbd {
    fn convert(self) -> (RbdImage, RbdOptions) {
        let default = RbdOptions::default();
        let options = RbdOptions {
            connect_timeout: limit(self.connect_timeout_ms).unwrap_or(default.connect_timeout),
            request_timeout: limit(self.request_timeout_ms),
            lock: self.lock.unwrap_or(default.lock),
            ..default
        };
        let image = RbdImage {
            name: self.image,
            pool: self.pool,
            namespace: self.namespace.unwrap_or_default(),
            snapshot: self.snapshot,
            user: self.user,
            cluster: self.cluster,
            conf: self.conf.map(PathBuf::from),
            keyring: self.keyring.map(PathBuf::from),
        };
        (image, options)
    }
}

impl NativeHttp {
    fn convert(self) -> (String, HttpOptions) {
        let default = HttpOptions::default();
        let options = HttpOptions {
            answer_timeout: limit(self.answer_timeout_ms).unwrap_or(default.answer_timeout),
            retry_timeout: limit(self.retry_timeout_ms).unwrap_or(default.retry_timeout),
            connections: self.connections.map_or(default.connections, |count| count as usize),
            authorities: self.authorities.map(PathBuf::from),
        };
        (self.url, options)
    }
}

fn limit(milliseconds: Option<u32>) -> Option<Duration> {
    milliseconds.map(|limit| Duration::from_millis(limit.into()))
}
