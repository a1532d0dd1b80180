//! An image of Ceph RBD as the device's contents.

use std::os::fd::RawFd;
use std::sync::Arc;

use super::{DiscardLimits, Errno, Geometry, Plan, Presentation, Request, Target, remote_step};
use crate::error::{Code, Error, Result};
use crate::remote::Remote;
use crate::remote::rbd::{Facts, Rbd};
pub use crate::remote::rbd::{RbdImage, RbdOptions};

/// The longest discard and the longest write of zeros, in bytes: librbd makes an operation per object.
const LONGEST: u32 = 1 << 30;
/// The kernel's bound of preferred sizes.
const LARGEST_PREFERRED: u64 = 256 << 20;
/// OSDs read and write whole blocks of so many bytes.
const BLOCK: u32 = 4096;

/// An image: reads, writes, discards and zeros are librbd's. A flush empties librbd's cache, and a write with FUA
/// is a write and a flush.
#[derive(Debug)]
pub struct RbdTarget {
    geometry: Geometry,
    rbd: Arc<Rbd>,
    remotes: [Arc<dyn Remote>; 1],
}

impl RbdTarget {
    /// Opens the image. Blocks.
    ///
    /// # Errors
    /// Those of [`Rbd::open`]; `BadBackend` for an image without a block; `InvalidArgument` for a block size
    /// that no device has.
    pub fn open(image: RbdImage, options: RbdOptions, asked: Presentation) -> Result<Self> {
        let read_only = options.read_only || asked.read_only || image.snapshot.is_some();
        let rbd = Rbd::open(image, RbdOptions { read_only, ..options })?;
        Self::serve(rbd, Presentation { read_only, ..asked })
    }

    /// The target of an open image.
    pub(crate) fn serve(rbd: Rbd, asked: Presentation) -> Result<Self> {
        let geometry = geometry(&rbd.name(), rbd.facts())?.presented(asked)?;
        let rbd = Arc::new(rbd);
        Ok(Self { geometry, remotes: [Arc::clone(&rbd) as Arc<dyn Remote>], rbd })
    }
}

/// The properties of a block device with the contents of an image. Requests may cross objects: librbd divides
/// them.
fn geometry(name: &str, facts: &Facts) -> Result<Geometry> {
    let block = Geometry::new(0).logical_block;
    let size = facts.size & !u64::from(block - 1);
    if size == 0 {
        let message = format!("{name} holds {} bytes, less than a block", facts.size);
        return Err(Error::new(Code::BadBackend, message));
    }
    let preferred = |size: u64| {
        let fits = size.is_power_of_two() && size <= LARGEST_PREFERRED;
        u32::try_from(size).ok().filter(|&size| fits && size >= BLOCK)
    };
    let stripe = preferred(facts.stripe_unit.saturating_mul(facts.stripe_count));
    let granularity = u32::try_from(facts.discard_granularity).unwrap_or(u32::MAX).max(block);
    Ok(Geometry {
        physical_block: BLOCK,
        io_min: BLOCK,
        io_opt: stripe.or(preferred(facts.object_size)).unwrap_or(BLOCK),
        volatile_cache: true,
        fua: true,
        discard: Some(DiscardLimits {
            granularity: granularity.min(1 << 20),
            max_discard: LONGEST,
            max_write_zeroes: LONGEST,
        }),
        dma_alignment: 3,
        ..Geometry::new(size)
    })
}

impl Target for RbdTarget {
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
        Some(self.rbd.facts().identity.clone())
    }

    fn max_steps(&self) -> usize {
        1
    }

    fn plan(&self, request: &Request, plan: &mut Plan<'_>) -> std::result::Result<(), Errno> {
        plan.push(remote_step(request)?);
        Ok(())
    }

    /// The image must have the size: `rbd resize` comes first.
    fn check_size(&self, size: u64) -> Result<()> {
        let name = self.rbd.name();
        let present = self.rbd.size().map_err(|error| {
            Error::os(
                Code::BadBackend,
                format!("cannot ask {name} for its size"),
                "rbd_get_size",
                &error,
            )
        })?;
        if size <= present {
            return Ok(());
        }
        let message = format!("{name} holds {present} bytes, fewer than {size}");
        let image = name.trim_start_matches("rbd:");
        Err(Error::new(Code::BadBackend, message)
            .hint(format!("enlarge the image first: `rbd resize {image} --size …`")))
    }
}
