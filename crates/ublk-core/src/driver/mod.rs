//! Drivers, below everything that serves requests: [`linux`], the kernel; [`sim`], an in-process model
//! of the kernel; [`nbd`], clients of NBD. The seam is the crate `ublk-driver`.

pub mod linux;
pub mod nbd;
mod plain;
pub mod sim;

pub(crate) use plain::Plain;
pub use ublk_driver::{
    AnyDebug, BlockNode, Completion, ControlAnswer, Deletions, Descriptors, DiskFacts, Driver,
    Errands, Identity, MemoryMap, OpenFile, Place, Ring, RingSize, SEVERED, TargetMemory, User,
    Users,
};
