//! A file on a web server as the device's contents.

use std::os::fd::RawFd;
use std::sync::Arc;

use super::{Errno, Geometry, Op, Plan, Presentation, Request, Target, remote_step};
use crate::error::{Code, Error, Result};
use crate::remote::Remote;
use crate::remote::http::Http;
pub use crate::remote::http::HttpOptions;

/// The preferred size of a read, in bytes: the kernel reads twice as much ahead.
const PREFERRED: u32 = 1 << 20;

/// A file, for reading only.
#[derive(Debug)]
pub struct HttpTarget {
    geometry: Geometry,
    identity: String,
    remotes: [Arc<dyn Remote>; 1],
}

impl HttpTarget {
    /// Asks the server for the file. Blocks.
    ///
    /// # Errors
    /// Those of [`Http::open`]; `BadBackend` for a file without a block; `InvalidArgument` for a block size that
    /// no device has.
    pub fn open(url: &str, options: HttpOptions, asked: Presentation) -> Result<Self> {
        let http = Http::open(url, options)?;
        let block = asked.logical_block.unwrap_or(512);
        let size = http.size() - http.size() % u64::from(block.max(512));
        if size == 0 {
            let message = format!("{} holds {} bytes, less than a block", http.name(), http.size());
            return Err(Error::new(Code::BadBackend, message));
        }
        let geometry = Geometry {
            read_only: true,
            physical_block: 4096,
            io_min: 4096,
            io_opt: PREFERRED,
            dma_alignment: 3,
            ..Geometry::new(size)
        };
        Ok(Self {
            geometry: geometry.presented(asked)?,
            identity: http.identity(),
            remotes: [Arc::new(http)],
        })
    }
}

impl Target for HttpTarget {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn files(&self) -> &[RawFd] {
        &[]
    }

    fn remotes(&self) -> &[Arc<dyn Remote>] {
        &self.remotes
    }

    fn layout(&self) -> Option<String> {
        Some(self.identity.clone())
    }

    fn max_steps(&self) -> usize {
        1
    }

    fn plan(&self, request: &Request, plan: &mut Plan<'_>) -> std::result::Result<(), Errno> {
        match request.op {
            Op::Read => {
                plan.push(remote_step(request)?);
                Ok(())
            }
            // Nothing was written.
            Op::Flush => Ok(()),
            _ => Err(Errno(libc::EROFS)),
        }
    }
}
