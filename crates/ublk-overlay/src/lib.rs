//! Copy-on-write layers: what a layer's file looks like, and which block of a disk is where.
//!
//! A disk is a base and layers that stand on it, each a file; only the highest, the head, is
//! written to. A layer's file begins with two [superblocks](superblock), has data in segments, and
//! a [log](head::Head::log_blocks) of extents that says which block of the disk is where.
//!
//! Nothing here does I/O: a caller reads and writes what these types describe.

pub mod extent;
pub mod head;
pub mod index;
pub mod load;
mod log;
pub mod space;
pub mod superblock;
mod unflushed;

pub use log::Full;
