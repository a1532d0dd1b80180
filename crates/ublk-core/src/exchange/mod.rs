//! How requests come from the kernel and how their results go back.

mod per_io;

pub(crate) use per_io::{Delivery, PerIo};
