//! How a request's bytes are reached: the kernel's pages through the ring's buffer table, or
//! memory of our own that the kernel copies to and from.

mod pool;
mod slots;

pub(crate) use pool::Pool;
pub(crate) use slots::Slots;

/// How this queue reaches requests' buffers.
#[derive(Debug)]
pub(crate) enum Buffers {
    /// The kernel registers them, in a slot per tag.
    Auto {
        /// Each tag's slot.
        slots: Box<[u16]>,
    },
    /// We do.
    Register {
        /// Wait for each of register, I/O, unregister before the next is submitted.
        split: bool,
    },
    /// The kernel copies.
    Copy(Pool),
}
