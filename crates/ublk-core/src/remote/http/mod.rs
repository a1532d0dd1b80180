//! Files on web servers, for reading.
//!
//! [`Http`] is a file in the version that the server had when the file was opened. A [session](session) gives
//! each read to one of the threads for work that may block, which asks for the range ([`client`]), looks whether
//! the answer is exactly this range of this version, and tries again what may pass.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Remote, Session};
use crate::error::Result;

mod client;
mod explain;
mod reads;
mod session;
#[cfg(test)]
mod tests;

use client::{Client, Version};
use reads::Read;

/// How to read a file on a web server.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// How long an answer may take, from the connection to the last byte.
    pub answer_timeout: Duration,
    /// How long a read is tried again before the read fails with `EIO`.
    pub retry_timeout: Duration,
    /// The number of requests to the server at a time.
    pub connections: usize,
    /// A file with certificates (PEM) of the authorities to trust, in place of Mozilla's list.
    pub authorities: Option<PathBuf>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            answer_timeout: Duration::from_secs(30),
            retry_timeout: Duration::from_secs(60),
            connections: 8,
            authorities: None,
        }
    }
}

/// A file on a web server.
#[derive(Debug)]
pub struct Http {
    client: Client,
    version: Version,
    options: HttpOptions,
    reads: Mutex<Reads>,
}

/// The reads of all sessions.
#[derive(Debug, Default)]
struct Reads {
    waiting: VecDeque<Read>,
    /// The number of threads at work.
    threads: usize,
}

impl Http {
    /// Asks the server for the file at `url`. Blocks.
    ///
    /// # Errors
    /// `InvalidArgument` for a text that is no address of a file; `NoBackend` without a server or without the
    /// file; `Permission`; `Timeout`; `BadBackend` for a server that knows no ranges, or does not say by which
    /// mark (`ETag`, `Last-Modified`) a version of the file can be told from another.
    pub fn open(url: &str, options: HttpOptions) -> Result<Self> {
        let client = Client::new(url, &options)?;
        let version = client.look().map_err(|failure| explain::failed(&client, &failure))?;
        Ok(Self { client, version, options, reads: Mutex::default() })
    }

    /// The size of the file, in bytes.
    pub fn size(&self) -> u64 {
        self.version.size
    }

    /// The file and its version: another text for other contents.
    pub fn identity(&self) -> String {
        format!("http({}, {})", self.name(), self.version)
    }

    fn lock(&self) -> MutexGuard<'_, Reads> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remote for Http {
    fn name(&self) -> String {
        self.client.name()
    }

    /// Nothing is written.
    fn is_shareable(&self) -> bool {
        true
    }

    fn begin(self: Arc<Self>, capacity: usize) -> io::Result<Box<dyn Session>> {
        Ok(Box::new(session::HttpSession::new(self, capacity)?))
    }
}
