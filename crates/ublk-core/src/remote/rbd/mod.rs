//! Images of Ceph RBD.
//!
//! librbd and librados, loaded at run time ([`library`]), do the work, on their own threads. [`Rbd`] is an open
//! image: one handle for all sessions. A [session](session) gives its jobs to librbd, and hears of their ends
//! through a [`line`]. Opening and closing block, and run on the threads for work that may block.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use super::{Remote, Session};
use crate::aside;
use crate::error::{Code, Error, Result};
use crate::targets::Durability;

mod api;
mod exit;
mod explain;
mod handles;
mod library;
mod line;
mod open;
mod session;
#[cfg(test)]
mod tests;

use api::Api;
pub use exit::end_before;
use handles::Image;
pub use open::{Facts, RbdImage};

/// How long a device, or the end of the process, waits for an image to close: longer only where the cluster does
/// not answer.
const CLOSING: Duration = Duration::from_secs(10);

/// How an image is opened.
#[derive(Clone, Copy, Debug)]
pub struct RbdOptions {
    /// How long opening may take: the connection to the monitors, the image, and the exclusive lock. The
    /// lock of a client that was killed is free after 30 s (`osd_client_watch_timeout`).
    pub connect_timeout: Duration,
    /// How long an operation waits for the cluster before the operation fails with `ETIMEDOUT`, in whole
    /// seconds (`rados_osd_op_timeout`). Absent: as Ceph's configuration says, or 300 s.
    pub request_timeout: Option<Duration>,
    /// Whether to take the image's exclusive lock, where the image has this feature.
    pub lock: bool,
    /// Whether to open the image for reading only: without a watch, so changes of the size are not seen.
    pub read_only: bool,
}

impl Default for RbdOptions {
    fn default() -> Self {
        let connect_timeout = Duration::from_secs(60);
        Self { connect_timeout, request_timeout: None, lock: true, read_only: false }
    }
}

/// An open image.
#[derive(Debug)]
pub struct Rbd {
    name: String,
    facts: Facts,
    /// Present until dropped.
    image: Option<Image>,
    /// Of the image.
    durability: Durability,
}

impl Rbd {
    /// Opens an image. Blocks, no longer than `options` say.
    ///
    /// # Errors
    /// `Unsupported` without librbd; `NoBackend` without a configuration, a keyring, a monitor, a pool, an
    /// image or a snapshot of the name; `Permission`; `Busy` while another client holds the exclusive lock;
    /// `Timeout`; `BadBackend` and others.
    pub fn open(image: RbdImage, options: RbdOptions) -> Result<Self> {
        let api = library::load().map_err(|reason| explain::no_library(&image, &reason))?;
        let rbd = Self::open_with(api, image, options)?;
        // What the libraries have constructed on the way is destroyed before earlier handlers run.
        static AGAIN: Once = Once::new();
        AGAIN.call_once(exit::watch);
        Ok(rbd)
    }

    fn open_with(api: &'static Api, image: RbdImage, options: RbdOptions) -> Result<Self> {
        let name = image.to_string();
        let stage = Arc::new(Mutex::new(open::Stage::Monitors));
        let (tell, told) = sync_channel(1);
        let seen = Arc::clone(&stage);
        aside::run(move || {
            // Without a receiver, the image is dropped, and so closed.
            let _late = tell.send(open::open(api, &image, options, &seen));
        })
        .map_err(|error| Error::no_thread(&error))?;
        match told.recv_timeout(options.connect_timeout) {
            Ok(opened) => {
                let (image, facts) = opened?;
                Ok(Self { name, facts, image: Some(image), durability: Durability::of(1) })
            }
            Err(RecvTimeoutError::Timeout) => {
                let stage = *stage.lock().unwrap_or_else(PoisonError::into_inner);
                Err(explain::timed_out(&name, stage, options.connect_timeout))
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(Error::new(Code::Internal, format!("opening {name} has panicked")))
            }
        }
    }

    /// What the cluster said of the image when the image was opened.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    fn image(&self) -> &Image {
        self.image.as_ref().expect("present until dropped")
    }

    fn api(&self) -> &'static Api {
        self.image().api()
    }

    fn handle(&self) -> api::Image {
        self.image().handle
    }
}

impl Remote for Rbd {
    fn name(&self) -> String {
        self.name.clone()
    }

    /// All sessions use one handle, and librbd's flush counts for all that the handle has written.
    fn is_shareable(&self) -> bool {
        true
    }

    /// The image must have the size: `rbd resize` comes first.
    fn check_size(&self, size: u64) -> Result<()> {
        let name = &self.name;
        let present = self.image().number(self.api().rbd_get_size).map_err(|errno| {
            let tried = format!("cannot ask {name} for its size");
            let error = io::Error::from_raw_os_error(-errno);
            Error::os(Code::BadBackend, tried, "rbd_get_size", &error)
        })?;
        if size <= present {
            return Ok(());
        }
        let message = format!("{name} holds {present} bytes, fewer than {size}");
        let image = name.trim_start_matches("rbd:");
        Err(Error::new(Code::BadBackend, message)
            .hint(format!("enlarge the image first: `rbd resize {image} --size …`")))
    }

    fn begin(self: Arc<Self>, capacity: usize) -> io::Result<Box<dyn Session>> {
        Ok(Box::new(session::RbdSession::new(self, capacity)?))
    }
}

impl Drop for Rbd {
    /// Closes the image, which gives the lock back. Where the cluster does not answer, a thread goes on.
    fn drop(&mut self) {
        let Some(image) = self.image.take() else { return };
        let (tell, told) = sync_channel(1);
        let close = move || {
            drop(image);
            let _late = tell.send(());
        };
        if aside::run(close).is_ok() {
            let _late = told.recv_timeout(CLOSING);
        }
    }
}
