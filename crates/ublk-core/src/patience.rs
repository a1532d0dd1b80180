//! When to give up looking for work before sleeping, and when to try again.

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
    /// Whether to look, this time.
    #[inline]
    pub(crate) fn lasts(&mut self) -> bool {
        if self.pause == 0 {
            return true;
        }
        self.pause -= 1;
        false
    }

    /// There was something.
    #[inline]
    pub(crate) fn found(&mut self) {
        self.misses = 0;
    }

    /// There was nothing.
    pub(crate) fn missed(&mut self) {
        self.misses += 1;
        if self.misses == MISSES {
            self.misses = 0;
            self.pause = PAUSE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_lost_after_misses_in_a_row_and_comes_back() {
        let mut patience = Patience::default();
        for _ in 1..MISSES {
            assert!(patience.lasts());
            patience.missed();
        }
        patience.found();
        for _ in 0..MISSES {
            assert!(patience.lasts());
            patience.missed();
        }
        assert!((0..PAUSE).all(|_| !patience.lasts()));
        assert!(patience.lasts());
    }
}
