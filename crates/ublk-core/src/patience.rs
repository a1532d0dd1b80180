//! Looking for work before sleeping: when to give up, and when to try again.

use std::time::{Duration, Instant};
use std::{hint, thread};

/// The clock costs more than a look.
const LOOKS_PER_CLOCK: u32 = 32;
/// So often in vain, one after another, and looking is given up.
const MISSES: u8 = 4;
/// For so many waits.
const PAUSE: u16 = 256;

/// How much longer somebody looks who has looked in vain.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Patience {
    misses: u8,
    pause: u16,
}

impl Patience {
    /// Looks for something for `limit` at most, if at all this time. Whether `found` has found it.
    ///
    /// # Errors
    /// What `found` says.
    #[inline]
    pub(crate) fn look<E>(
        &mut self,
        limit: Duration,
        mut found: impl FnMut() -> Result<bool, E>,
    ) -> Result<bool, E> {
        if !self.lasts() {
            return Ok(false);
        }
        let deadline = Instant::now() + limit;
        let mut looks = 0_u32;
        while !found()? {
            looks += 1;
            if looks.is_multiple_of(LOOKS_PER_CLOCK) {
                if Instant::now() >= deadline {
                    self.missed();
                    return Ok(false);
                }
                // Whom we look for may be waiting for this very CPU.
                thread::yield_now();
            }
            hint::spin_loop();
        }
        self.misses = 0;
        Ok(true)
    }

    fn lasts(&mut self) -> bool {
        if self.pause == 0 {
            return true;
        }
        self.pause -= 1;
        false
    }

    fn missed(&mut self) {
        self.misses += 1;
        if self.misses == MISSES {
            self.misses = 0;
            self.pause = PAUSE;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn looks(patience: &mut Patience, there: bool) -> (bool, bool) {
        let mut looked = false;
        let Ok(found) = patience.look::<Infallible>(Duration::ZERO, || {
            looked = true;
            Ok(there)
        });
        (looked, found)
    }

    #[test]
    fn it_is_lost_after_misses_in_a_row_and_comes_back() {
        let mut patience = Patience::default();
        for _ in 1..MISSES {
            assert_eq!(looks(&mut patience, false), (true, false));
        }
        assert_eq!(looks(&mut patience, true), (true, true));
        for _ in 0..MISSES {
            assert_eq!(looks(&mut patience, false), (true, false));
        }
        assert!((0..PAUSE).all(|_| looks(&mut patience, true) == (false, false)));
        assert_eq!(looks(&mut patience, true), (true, true));
    }
}
