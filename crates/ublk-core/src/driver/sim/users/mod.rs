//! The device's users.

pub(crate) mod client;
pub(crate) mod op;
pub(crate) mod transfer;
