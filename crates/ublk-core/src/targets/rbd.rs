//! An image of Ceph RBD as the device's contents.

use super::{DiscardLimits, Geometry, OnRemote, Presentation};
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

/// Opens the image: reads, writes, discards and zeros are librbd's, a flush empties librbd's cache, and a write with
/// FUA is a write and a flush. Blocks.
///
/// # Errors
/// Those of [`Rbd::open`]; `BadBackend` for an image without a block; `InvalidArgument` for a block size that no
/// device has.
pub fn open(image: RbdImage, options: RbdOptions, asked: Presentation) -> Result<OnRemote> {
    let read_only = options.read_only || asked.read_only || image.snapshot.is_some();
    let rbd = Rbd::open(image, RbdOptions { read_only, ..options })?;
    serve(rbd, Presentation { read_only, ..asked })
}

/// The target of an open image.
pub(crate) fn serve(rbd: Rbd, asked: Presentation) -> Result<OnRemote> {
    let geometry = geometry(&rbd.name(), rbd.facts())?.presented(asked)?;
    let identity = rbd.facts().identity.clone();
    Ok(OnRemote::new(rbd, identity, geometry))
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
