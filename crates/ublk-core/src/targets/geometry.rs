//! What a target is to the block layer: size, block sizes, limits, abilities.

use super::integrity::{FormatError, IntegrityFormat};
use crate::error::{Code, Error};

/// How a target discards and writes zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiscardLimits {
    /// The smallest range worth discarding, in bytes; not 0.
    pub granularity: u32,
    /// The longest discard, in bytes; 0: the target does not discard.
    pub max_discard: u32,
    /// The longest write of zeros, in bytes; 0: the kernel writes zeros as data.
    pub max_write_zeroes: u32,
}

/// How a request's memory may be cut up, as the backend's own queue limits say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentLimits {
    /// No segment crosses a multiple of this plus one.
    pub boundary_mask: u64,
    /// The longest segment, in bytes.
    pub max_size: u32,
}

impl SegmentLimits {
    /// The limits that keep to both.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            boundary_mask: self.boundary_mask.min(other.boundary_mask),
            max_size: self.max_size.min(other.max_size),
        }
    }
}

/// How many zones may be written at once. The zones' size is the geometry's chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZonedLimits {
    /// Most zones open at once; 0: all.
    pub max_open: u32,
    /// Most zones open or closed at once; 0: all.
    pub max_active: u32,
}

/// What a target is to the block layer. All sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// The device's size, a multiple of the logical block size.
    pub size: u64,
    /// The unit of addressing: a power of two from 512 to 4096.
    pub logical_block: u32,
    /// The unit that is written without a read, a power of two, at least the logical block.
    pub physical_block: u32,
    /// The preferred smallest request, a power of two.
    pub io_min: u32,
    /// The preferred largest request, a power of two.
    pub io_opt: u32,
    /// Writes are refused by the kernel.
    pub read_only: bool,
    /// Seeks are dear.
    pub rotational: bool,
    /// Completed writes may still be in a cache: the kernel must send flushes.
    pub volatile_cache: bool,
    /// Writes can be made durable one by one; only with a volatile cache.
    pub fua: bool,
    /// Discards and zeros, if the target has them.
    pub discard: Option<DiscardLimits>,
    /// Memory must be aligned to this plus one (zero copy hands the client's pages to the
    /// backend, trap 14); below the page size.
    pub dma_alignment: u32,
    /// No gap between segments inside a multiple of this plus one; 0: gaps anywhere.
    pub virt_boundary: u64,
    /// How the request's memory may be cut up.
    pub segments: Option<SegmentLimits>,
    /// No read and no write crosses a multiple of this many bytes; 0: no such rule.
    pub chunk: u64,
    /// It is a zoned device (Linux 6.6): the chunk is a zone.
    pub zoned: Option<ZonedLimits>,
    /// It keeps metadata beside the data (Linux 7.0).
    pub integrity: Option<IntegrityFormat>,
}

/// What a user asks of a target beyond what the target is by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Presentation {
    /// The device refuses writes.
    pub read_only: bool,
    /// The unit of addressing in bytes, not below what the target needs.
    pub logical_block: Option<u32>,
}

/// Why a geometry cannot be a block device.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum GeometryError {
    /// Nothing to serve.
    #[error("the size is {size} bytes, less than one block of {block}")]
    TooSmall {
        /// The size asked for.
        size: u64,
        /// The logical block size.
        block: u32,
    },
    /// The last block would be cut.
    #[error("the size, {size} bytes, is no multiple of the logical block size of {block}")]
    Fraction {
        /// The size asked for.
        size: u64,
        /// The logical block size.
        block: u32,
    },
    /// The kernel takes 512 to 4096.
    #[error("the logical block size is {0}; it must be a power of two from 512 to 4096")]
    LogicalBlock(u32),
    /// The physical block holds whole logical ones.
    #[error(
        "the physical block size is {0}; it must be a power of two, at least the logical one and \
         at most 256 MiB"
    )]
    PhysicalBlock(u32),
    /// The kernel takes powers of two up to 256 MiB.
    #[error("{name} is {value}; it must be a power of two, at most 256 MiB")]
    Preferred {
        /// Which of the preferred sizes.
        name: &'static str,
        /// Its value.
        value: u32,
    },
    /// The kernel divides by it.
    #[error("the granularity of discards is 0")]
    Granularity,
    /// The kernel takes whole pages.
    #[error(
        "segments of {max_size} bytes with the boundary mask {boundary_mask:#x}; both must be at \
         least 4096 bytes, and the mask a power of two minus one"
    )]
    Segments {
        /// The longest segment.
        max_size: u32,
        /// The mask of what no segment crosses.
        boundary_mask: u64,
    },
    /// A mask.
    #[error("the virtual boundary is {0:#x}; it must be a power of two minus one")]
    VirtBoundary(u64),
    /// The kernel takes masks below the page size.
    #[error("the DMA alignment is {0}; it must be a power of two minus one, below 4096")]
    DmaAlignment(u32),
    /// Requests would be cut within a block.
    #[error("the chunk is {chunk} bytes; it must hold whole blocks of {block}, below 2 TiB")]
    Chunk {
        /// The chunk asked for.
        chunk: u64,
        /// The logical block size.
        block: u32,
    },
    /// Zones of a power of two fill the device, and limits count them.
    #[error(
        "the zones of {zone} bytes must be a power of two and fill the {size} bytes; {limits:?}"
    )]
    Zones {
        /// The size of a zone.
        zone: u64,
        /// The size of the device.
        size: u64,
        /// At most as many as there are zones; open zones are active.
        limits: ZonedLimits,
    },
    /// There is no such metadata.
    #[error(transparent)]
    Integrity(#[from] FormatError),
}

impl From<GeometryError> for Error {
    fn from(error: GeometryError) -> Self {
        Self::new(Code::InvalidArgument, error.to_string())
    }
}

/// The kernel's bound of block sizes and preferred sizes.
const LARGEST: u32 = 256 << 20;
/// `UBLK_MIN_SEGMENT_SIZE`.
const PAGE: u32 = 4096;

/// A power of two minus one; all bits set too.
fn is_mask(value: u64) -> bool {
    value & value.wrapping_add(1) == 0
}

impl Geometry {
    /// A plain disk of `size` bytes with blocks of 512 and no abilities.
    pub fn new(size: u64) -> Self {
        Self {
            size,
            logical_block: 512,
            physical_block: 4096,
            io_min: 4096,
            io_opt: 4096,
            read_only: false,
            rotational: false,
            volatile_cache: false,
            fua: false,
            discard: None,
            dma_alignment: 511,
            virt_boundary: 0,
            segments: None,
            chunk: 0,
            zoned: None,
            integrity: None,
        }
    }

    /// The geometry as a user asks for it. What does not fill a last block is not used.
    ///
    /// # Errors
    /// `InvalidArgument` for a block size that the kernel does not take, or below the target's own.
    pub fn presented(self, asked: Presentation) -> Result<Self, Error> {
        let block = asked.logical_block.unwrap_or(self.logical_block);
        if !block.is_power_of_two() || !(512..=4096).contains(&block) {
            return Err(GeometryError::LogicalBlock(block).into());
        }
        if block < self.logical_block {
            let need = self.logical_block;
            let message = format!("logicalBlockSize is {block}, but the target needs {need}");
            return Err(Error::new(Code::InvalidArgument, message));
        }
        Ok(Self {
            size: asked.logical_block.map_or(self.size, |_| self.size & !u64::from(block - 1)),
            logical_block: block,
            physical_block: self.physical_block.max(block),
            io_min: self.io_min.max(block),
            io_opt: self.io_opt.max(block),
            read_only: self.read_only || asked.read_only,
            discard: self.discard.filter(|_| !asked.read_only).map(|limits| DiscardLimits {
                granularity: limits.granularity.max(block),
                ..limits
            }),
            ..self
        })
    }

    /// Checks it before the kernel sees it.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), GeometryError> {
        let block = self.logical_block;
        if !block.is_power_of_two() || !(512..=4096).contains(&block) {
            return Err(GeometryError::LogicalBlock(block));
        }
        let physical = self.physical_block;
        if !physical.is_power_of_two() || !(block..=LARGEST).contains(&physical) {
            return Err(GeometryError::PhysicalBlock(physical));
        }
        for (name, value) in [("io_min", self.io_min), ("io_opt", self.io_opt)] {
            if !value.is_power_of_two() || value > LARGEST {
                return Err(GeometryError::Preferred { name, value });
            }
        }
        if self.size < u64::from(block) {
            return Err(GeometryError::TooSmall { size: self.size, block });
        }
        if !self.size.is_multiple_of(u64::from(block)) {
            return Err(GeometryError::Fraction { size: self.size, block });
        }
        if self.dma_alignment >= 4096 || !(self.dma_alignment + 1).is_power_of_two() {
            return Err(GeometryError::DmaAlignment(self.dma_alignment));
        }
        if !self.chunk.is_multiple_of(u64::from(block)) || self.chunk >= 2 << 40 {
            return Err(GeometryError::Chunk { chunk: self.chunk, block });
        }
        self.validate_limits()?;
        if let Some(format) = self.integrity {
            format.validate(block)?;
        }
        self.validate_zones()
    }

    fn validate_limits(&self) -> Result<(), GeometryError> {
        if self.discard.is_some_and(|limits| limits.granularity == 0) {
            return Err(GeometryError::Granularity);
        }
        if let Some(SegmentLimits { max_size, boundary_mask }) = self.segments
            && (max_size < PAGE || boundary_mask < u64::from(PAGE) - 1 || !is_mask(boundary_mask))
        {
            return Err(GeometryError::Segments { max_size, boundary_mask });
        }
        if !is_mask(self.virt_boundary) {
            return Err(GeometryError::VirtBoundary(self.virt_boundary));
        }
        Ok(())
    }

    fn validate_zones(&self) -> Result<(), GeometryError> {
        let Some(limits) = self.zoned else { return Ok(()) };
        let ZonedLimits { max_open, max_active } = limits;
        let count = self.size.checked_div(self.chunk).unwrap_or(0);
        let fits = self.chunk.is_power_of_two()
            && self.chunk >= 4096
            && self.size.is_multiple_of(self.chunk)
            && u64::from(max_open.max(max_active)) <= count
            && (max_active == 0 || max_open <= max_active);
        if !fits {
            return Err(GeometryError::Zones { zone: self.chunk, size: self.size, limits });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_may_ask_for_larger_blocks_and_no_writes() {
        let discard = DiscardLimits { granularity: 512, max_discard: !511, max_write_zeroes: 0 };
        let plain = Geometry { discard: Some(discard), physical_block: 512, ..Geometry::new(9728) };
        assert_eq!(plain.presented(Presentation::default()).unwrap(), plain);
        let asked = |logical_block, read_only| Presentation { read_only, logical_block };
        let larger = plain.presented(asked(Some(4096), false)).unwrap();
        assert_eq!((larger.size, larger.physical_block, larger.read_only), (8192, 4096, false));
        assert_eq!(larger.discard.unwrap().granularity, 4096);
        assert_eq!(larger.validate(), Ok(()));
        let read_only = plain.presented(asked(None, true)).unwrap();
        assert!(read_only.read_only && read_only.discard.is_none());
        for (geometry, block) in [(plain, 8192), (plain, 256), (plain, 0), (larger, 512)] {
            let error = geometry.presented(asked(Some(block), false)).unwrap_err();
            assert_eq!(error.code, Code::InvalidArgument);
        }
        let forbidden = larger.presented(asked(None, true)).unwrap();
        assert!(forbidden.presented(asked(None, false)).unwrap().read_only, "not taken back");
    }

    #[test]
    fn a_plain_disk_is_a_block_device() {
        assert_eq!(Geometry::new(512).validate(), Ok(()));
    }

    #[test]
    fn trap_58_what_the_kernel_would_refuse_is_refused_before() {
        type Change = fn(&mut Geometry);
        let discard = |granularity| {
            Some(DiscardLimits { granularity, max_discard: 4096, max_write_zeroes: 0 })
        };
        assert_eq!(
            Geometry { discard: discard(512), ..Geometry::new(512) }.validate(),
            Ok(()),
            "the limits of the changes below are the only fault"
        );
        let changes: [Change; 13] = [
            |g| g.logical_block = 256,
            |g| g.logical_block = 8192,
            |g| g.physical_block = 256,
            |g| g.physical_block = 512 << 20,
            |g| g.io_min = 0,
            |g| g.io_opt = 512 << 20,
            |g| g.io_opt = 3 << 10,
            |g| g.size = 511,
            |g| g.size = 513,
            |g| g.dma_alignment = 4,
            |g| g.virt_boundary = 4096,
            |g| g.segments = Some(SegmentLimits { boundary_mask: !0, max_size: 512 }),
            |g| g.segments = Some(SegmentLimits { boundary_mask: 511, max_size: 4096 }),
        ];
        for (at, change) in changes.iter().enumerate() {
            let mut geometry = Geometry::new(8192);
            change(&mut geometry);
            assert!(geometry.validate().is_err(), "change {at}");
        }
        let geometry = Geometry { discard: discard(0), ..Geometry::new(512) };
        assert_eq!(geometry.validate(), Err(GeometryError::Granularity));
    }
}
