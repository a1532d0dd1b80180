//! A target that fails every request (device-mapper's `error`).

use std::os::fd::RawFd;

use super::{Errno, Geometry, Plan, Request, Target};

/// Answers every request with an I/O error; a part of a layer that is to be broken.
#[derive(Debug)]
pub struct AlwaysFails {
    geometry: Geometry,
}

impl AlwaysFails {
    /// A broken device of `size` bytes.
    pub fn new(size: u64) -> Self {
        Self { geometry: Geometry { dma_alignment: 3, ..Geometry::new(size) } }
    }
}

impl Target for AlwaysFails {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn files(&self) -> &[RawFd] {
        &[]
    }

    fn layout(&self) -> Option<String> {
        Some("error".into())
    }

    fn max_steps(&self) -> usize {
        0
    }

    fn plan(&self, _request: &Request, _plan: &mut Plan<'_>) -> Result<(), Errno> {
        Err(Errno(libc::EIO))
    }
}
