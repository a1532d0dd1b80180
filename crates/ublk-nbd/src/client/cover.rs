//! Which bytes of a read a structured reply has brought.

use std::ops::Range;

/// The number of pieces apart from each other that a [`Cover`] can keep.
const PIECES: usize = 8;

/// The ranges of a read's bytes that have come. Servers send chunks in any order, but each byte once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cover {
    /// In ascending order, apart from each other; the first `count` count.
    pieces: [(u32, u32); PIECES],
    count: usize,
}

/// Why a range cannot be added to a [`Cover`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoverError {
    /// Some of the range has come already, or the range is empty.
    Twice,
    /// More than eight pieces with gaps between.
    Scattered,
}

impl Cover {
    /// Notes that the bytes of `range` have come.
    ///
    /// # Errors
    /// See [`CoverError`]; the cover is unchanged then.
    pub fn add(&mut self, range: Range<u32>) -> Result<(), CoverError> {
        if range.is_empty() {
            return Err(CoverError::Twice);
        }
        let pieces = &self.pieces[..self.count];
        let at = pieces.partition_point(|&(_, end)| end < range.start);
        let next = pieces.get(at).copied();
        match next {
            Some((_, end)) if end == range.start => {
                // Behind this piece, and perhaps up to the next piece.
                let after = pieces.get(at + 1).copied();
                if after.is_some_and(|(start, _)| start < range.end) {
                    return Err(CoverError::Twice);
                }
                self.pieces[at].1 = range.end;
                if let Some((_, end)) = after.filter(|&(start, _)| start == range.end) {
                    self.pieces[at].1 = end;
                    self.pieces.copy_within(at + 2..self.count, at + 1);
                    self.count -= 1;
                }
            }
            Some((start, _)) if start < range.end => return Err(CoverError::Twice),
            Some((start, _)) if start == range.end => self.pieces[at].0 = range.start,
            _ if self.count == PIECES => return Err(CoverError::Scattered),
            _ => {
                self.pieces.copy_within(at..self.count, at + 1);
                self.pieces[at] = (range.start, range.end);
                self.count += 1;
            }
        }
        Ok(())
    }

    /// Whether all bytes up to `length` have come.
    pub fn is_whole(&self, length: u32) -> bool {
        match self.pieces[..self.count] {
            [] => length == 0,
            [piece] => piece == (0, length),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A map of bytes, which knows no limit of pieces.
    fn check(ranges: &[Range<u32>]) {
        let mut cover = Cover::default();
        let mut map = [false; 64];
        for range in ranges {
            let bytes = range.start as usize..range.end as usize;
            let twice = range.is_empty() || map[bytes.clone()].contains(&true);
            match cover.add(range.clone()) {
                Ok(()) => {
                    assert!(!twice, "{ranges:?}");
                    map[bytes].fill(true);
                }
                Err(CoverError::Twice) => assert!(twice, "{ranges:?}"),
                Err(CoverError::Scattered) => {
                    assert!(cover.count == PIECES && !twice, "{ranges:?}");
                }
            }
            let pieces = &cover.pieces[..cover.count];
            assert!(pieces.windows(2).all(|two| two[0].1 < two[1].0), "{cover:?} of {ranges:?}");
            assert!(pieces.iter().all(|piece| piece.0 < piece.1));
            assert_eq!(cover.is_whole(64), map == [true; 64], "{ranges:?}");
        }
    }

    #[test]
    fn a_cover_is_what_a_map_of_bytes_is() {
        let mut state = 1_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            u32::try_from((state >> 33) % below).unwrap()
        };
        for _ in 0..5000 {
            let ranges: Vec<_> = (0..24)
                .map(|_| {
                    let start = random(64);
                    start..(start + random(16)).min(64)
                })
                .collect();
            check(&ranges);
        }
        check(&[0..32, 32..64]);
        check(&[32..64, 0..32]);
        check(&[0..20, 40..64, 20..40]);
    }
}
