//! The model against the kernel's rules, driven with raw submission entries.

mod auto_buf_reg;
mod batch;
mod batch_buffers;
mod batch_rig;
mod chains;
mod control;
mod copy;
mod recovery;
mod rig;
mod segments;
mod shared;
mod threads;
mod user_copy;
mod zero_copy;
mod zone_reports;
mod zones;
