//! The target that answers everything and touches nothing, for measuring what the rest costs.

use std::os::fd::RawFd;

use super::integrity::IntegrityFormat;
use super::{DiscardLimits, Errno, Geometry, Plan, Presentation, Remap, Request, Target};

/// Writes vanish; reads return whatever the request's memory held before, so this is for
/// measurements, never for data.
#[derive(Debug)]
pub struct Null {
    geometry: Geometry,
}

impl Null {
    /// A null device of `size` bytes.
    pub fn new(size: u64) -> Self {
        let discard =
            DiscardLimits { granularity: 4096, max_discard: !4095, max_write_zeroes: !4095 };
        let geometry = Geometry { discard: Some(discard), dma_alignment: 3, ..Geometry::new(size) };
        Self { geometry }
    }
}

impl Null {
    /// The same, that takes metadata and forgets it.
    #[must_use]
    pub fn with_integrity(self, format: IntegrityFormat) -> Self {
        // The kernel checks what it reads, so that zeros are written with their metadata.
        let geometry = Geometry { integrity: Some(format), discard: None, ..self.geometry };
        Self { geometry }
    }

    /// The same, as a user asks for it.
    ///
    /// # Errors
    /// `InvalidArgument` for a block size that the kernel does not take, or below the target's own.
    pub fn presented(self, asked: Presentation) -> crate::error::Result<Self> {
        Ok(Self { geometry: self.geometry.presented(asked)? })
    }
}

impl Target for Null {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn throttles_writes(&self) -> bool {
        false
    }

    fn files(&self) -> &[RawFd] {
        &[]
    }

    fn layout(&self) -> Option<String> {
        Some("null".into())
    }

    fn max_steps(&self) -> usize {
        0
    }

    fn check_size(&self, _size: u64) -> crate::error::Result<()> {
        Ok(())
    }

    #[inline]
    fn plan(&self, _request: &Request, _plan: &mut Plan<'_>) -> Result<(), Errno> {
        Ok(())
    }

    #[inline]
    fn remap(&self, _request: &Request) -> Remap {
        Remap::Nowhere
    }
}
