//! Memory that is not swapped out.

use napi_derive::napi;
use ublk_core::locked::{self, Heap};

use crate::outcome::Outcome;

/// The allocator of all Rust code of the addon, apart from that of Node.js.
#[global_allocator]
static HEAP: Heap = Heap;

/// Locks the memory of the data path, now and from now on, to the end of the process. Threads that serve
/// already keep their stacks as they are.
#[napi(catch_unwind, ts_return_type = "Outcome<void>")]
pub fn lock_memory() -> Outcome<()> {
    locked::turn_on().into()
}
