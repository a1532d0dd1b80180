//! Looking for work before sleeping.
//!
//! At low depth most of what a request costs is sleeping and being woken, twice. A reactor that
//! looks a little longer saves its half, at the price of the CPU that it looks with, which
//! whoever chooses this has to spare. A reactor that keeps looking in vain stops, and tries again
//! now and then.

use std::hint;
use std::io;
use std::time::{Duration, Instant};

use crate::driver::Ring;
use crate::patience::Patience;

/// The clock costs more than a look.
const LOOKS_PER_CLOCK: u32 = 32;

#[derive(Debug)]
pub(super) struct Spin {
    limit: Duration,
    patience: Patience,
}

impl Spin {
    /// None: it never looks.
    pub(super) fn new(limit: Duration) -> Option<Self> {
        (!limit.is_zero()).then_some(Self { limit, patience: Patience::default() })
    }

    /// Submits what was pushed and looks for a completion, or for what `found` finds, until the
    /// limit; the caller waits if there is none.
    pub(super) fn look<R: Ring>(
        &mut self,
        ring: &mut R,
        mut found: impl FnMut() -> bool,
    ) -> io::Result<()> {
        if !self.patience.lasts() {
            return Ok(());
        }
        ring.poll()?;
        let deadline = Instant::now() + self.limit;
        let mut looks = 0_u32;
        while ring.ready() == 0 && !found() {
            if ring.has_work() {
                ring.poll()?;
                continue;
            }
            looks += 1;
            if looks.is_multiple_of(LOOKS_PER_CLOCK) && Instant::now() >= deadline {
                self.patience.missed();
                return Ok(());
            }
            hint::spin_loop();
        }
        self.patience.found();
        Ok(())
    }
}
