//! How a request's bytes are reached: the kernel's pages through the ring's buffer table, memory of
//! our own that the kernel or we copy to and from, or memory of the clients'.

use std::cell::Cell;
use std::rc::Rc;

mod arena;
mod pool;
mod shared;
mod slots;

pub(crate) use arena::Arena;
pub(crate) use pool::Pool;
pub use shared::SharedMemory;
pub(crate) use slots::Slots;

/// How this queue reaches requests' buffers.
#[derive(Debug)]
pub(crate) enum Buffers {
    /// The kernel registers them, in a slot per tag.
    Auto {
        /// The slot of each tag's request; the exchange may change it between two of them.
        slots: Rc<[Cell<u16>]>,
    },
    /// We do.
    Register {
        /// Wait for each of register, I/O, unregister before the next is submitted.
        split: bool,
    },
    /// The kernel copies, to and from a buffer per tag.
    Copy(Pool),
    /// The kernel copies, to and from buffers that the exchange finds for each request.
    GetData,
    /// We copy, to and from buffers that the engine finds for each request.
    UserCopy,
}
