//! Memory that is not swapped out.

use napi_derive::napi;
use ublk_core::locked;

use crate::heap;
use crate::outcome::Outcome;

/// Locks the memory of the data path, now and from now on, to the end of the process. Threads that serve
/// already keep their stacks as they are.
#[napi(catch_unwind, ts_return_type = "Outcome<void>")]
pub fn lock_memory() -> Outcome<()> {
    heap::announce();
    locked::turn_on().into()
}
