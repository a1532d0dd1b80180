//! Where the bytes of a request are, as the peer says, and whether that can be.

use std::sync::atomic::{AtomicU32, Ordering};

use super::layout::{
    PIECE_AT, PIECE_BACKEND, PIECE_ERRNO, PIECE_LENGTH, PIECE_OFFSET_HIGH, PIECE_OFFSET_LOW,
    PIECE_OP, PIECE_WORDS,
};

/// A piece of a request, and where it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// The backend's place in the list.
    pub backend: u32,
    /// What to do, `UBLK_IO_OP_*`.
    pub op: u32,
    /// Where in the request's buffer, in bytes.
    pub at: u32,
    /// In bytes.
    pub length: u32,
    /// Where in the backend, in bytes.
    pub offset: u64,
}

/// Why a plan does not fit its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// It has more pieces than were agreed upon, or none.
    Count,
    /// A piece names no backend.
    Backend,
    /// A piece lies beyond the request.
    BeyondRequest,
    /// A piece lies beyond the end of its backend.
    BeyondBackend,
    /// A piece is empty, or no multiple of its backend's blocks.
    Alignment,
    /// Bytes of the request are in no piece.
    Gap,
    /// Bytes of a read are in several pieces.
    Overlap,
    /// A piece asks for what its backend, or the request, does not do.
    Op,
    /// A step reads into the data of a write, or writes the data of a read to a backend.
    Direction,
}

impl Piece {
    /// Reads one that the peer wrote at the beginning of `words`.
    #[inline]
    pub(super) fn read(words: &[AtomicU32]) -> Self {
        let word = |index: u32| words[index as usize].load(Ordering::Relaxed);
        Self {
            backend: word(PIECE_BACKEND),
            op: word(PIECE_OP),
            at: word(PIECE_AT),
            length: word(PIECE_LENGTH),
            offset: u64::from(word(PIECE_OFFSET_LOW)) | u64::from(word(PIECE_OFFSET_HIGH)) << 32,
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "the halves of the offset")]
    pub(super) fn write(&self, words: &[AtomicU32]) {
        let fields = [
            (PIECE_BACKEND, self.backend),
            (PIECE_OP, self.op),
            (PIECE_AT, self.at),
            (PIECE_LENGTH, self.length),
            (PIECE_OFFSET_LOW, self.offset as u32),
            (PIECE_OFFSET_HIGH, (self.offset >> 32) as u32),
            (PIECE_ERRNO, 0),
        ];
        for (index, value) in fields {
            words[index as usize].store(value, Ordering::Relaxed);
        }
    }
}

/// The pieces of one answer.
#[derive(Clone, Copy, Debug)]
pub struct Pieces<'a> {
    words: &'a [AtomicU32],
    count: u8,
}

impl<'a> Pieces<'a> {
    #[inline]
    pub(super) fn new(words: &'a [AtomicU32], count: u8) -> Self {
        Self { words, count }
    }

    /// Lends pieces as if a peer had written them, for tests.
    #[cfg(test)]
    pub(crate) fn with<T>(pieces: &[Piece], use_them: impl FnOnce(&Pieces<'_>) -> T) -> T {
        let words: Vec<_> =
            (0..pieces.len() * PIECE_WORDS as usize).map(|_| AtomicU32::new(0)).collect();
        for (piece, words) in pieces.iter().zip(words.chunks_exact(PIECE_WORDS as usize)) {
            piece.write(words);
        }
        use_them(&Pieces::new(&words, u8::try_from(pieces.len()).unwrap()))
    }

    /// Each of them. The peer could change them meanwhile, so who needs one twice keeps it.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = Piece> + use<'a> {
        const WIDTH: usize = PIECE_WORDS as usize;
        self.words.chunks_exact(WIDTH).take(self.count.into()).map(Piece::read)
    }

    /// Checks that the pieces cover `0..length`; only where `overlap` may they do so twice.
    ///
    /// # Errors
    /// [`Misfit::Gap`], [`Misfit::Overlap`].
    #[inline]
    pub fn cover(&self, length: u32, overlap: bool) -> Result<(), Misfit> {
        let mut reached = 0;
        let in_order = self.iter().all(|piece| {
            let follows = piece.at == reached;
            reached = piece.at.saturating_add(piece.length);
            follows
        });
        if in_order && reached == length {
            return Ok(());
        }
        let mut spans = [(0, 0); 256];
        for (span, piece) in spans.iter_mut().zip(self.iter()) {
            *span = (piece.at, piece.at.saturating_add(piece.length));
        }
        cover(&mut spans[..self.count.into()], length, overlap)
    }
}

#[cold]
fn cover(spans: &mut [(u32, u32)], length: u32, overlap: bool) -> Result<(), Misfit> {
    spans.sort_unstable();
    let mut reached = 0;
    for &(from, to) in spans.iter() {
        if from > reached {
            return Err(Misfit::Gap);
        }
        if from < reached && !overlap {
            return Err(Misfit::Overlap);
        }
        reached = reached.max(to);
    }
    if reached < length { Err(Misfit::Gap) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_must_cover_the_request_in_whatever_order() {
        assert_eq!(cover(&mut [(0, 8)], 8, false), Ok(()));
        assert_eq!(cover(&mut [(4, 8), (0, 4)], 8, false), Ok(()));
        assert_eq!(cover(&mut [(0, 4), (5, 8)], 8, false), Err(Misfit::Gap));
        assert_eq!(cover(&mut [(0, 7)], 8, false), Err(Misfit::Gap));
        assert_eq!(cover(&mut [], 8, false), Err(Misfit::Gap));
    }

    #[test]
    fn a_write_may_go_to_several_places_but_a_read_comes_from_one() {
        assert_eq!(cover(&mut [(0, 8), (0, 8)], 8, true), Ok(()));
        assert_eq!(cover(&mut [(0, 8), (0, 8)], 8, false), Err(Misfit::Overlap));
        assert_eq!(cover(&mut [(0, 8), (2, 4)], 8, true), Ok(()));
    }
}
