//! The seam between the code that serves requests and the system below.
//!
//! A server speaks io_uring: 64-byte submission entries go into a [`Ring`], completions come out. A
//! [`Driver`] offers rings, control commands, files and mappings. Linux is a driver; the simulated driver of
//! `ublk-core` models ublk_drv and io_uring in the process, strict about the protocol and able to inject faults. A
//! server cannot tell the two apart.
//!
//! [`reopen`] and [`capacity`] work on real files: Linux, and a model that has real files.

pub mod allocation;
pub mod tag;

mod answers;
mod capacity;
mod deletions;
mod driver;
mod handles;
mod reopen;
mod ring;
mod users;

pub use answers::{BlockNode, ControlAnswer, DiskFacts, Identity};
pub use capacity::capacity;
pub use deletions::{Deletions, Place};
pub use driver::{Driver, Errands};
pub use handles::{AnyDebug, Descriptors, MemoryMap, OpenFile, TargetMemory};
pub use reopen::reopen;
pub use ring::{Completion, Ring, RingSize, SEVERED};
pub use users::{User, Users};
