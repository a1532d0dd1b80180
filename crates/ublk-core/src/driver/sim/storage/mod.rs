//! What operations work on: disks of the model, real files, memory.

pub(crate) mod backend;
pub(crate) mod cache;
pub(crate) mod disk;
pub(crate) mod files;
pub(crate) mod io;
pub(crate) mod memory;
pub(crate) mod power;
