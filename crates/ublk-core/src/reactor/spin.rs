//! Looking for work before sleeping.
//!
//! At low depth most of what a request costs is sleeping and being woken, twice. A reactor that
//! looks a little longer saves its half, at the price of the CPU that it looks with, which
//! whoever chooses this has to spare. A reactor that keeps looking in vain stops, and tries again
//! now and then.

use std::io;
use std::time::Duration;

use crate::driver::Ring;
use crate::patience::Patience;

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
        let mut pushed = true;
        self.patience.look(self.limit, || {
            if std::mem::take(&mut pushed) || ring.has_work() {
                ring.poll()?;
            }
            Ok::<_, io::Error>(ring.ready() > 0 || found())
        })?;
        Ok(())
    }
}
