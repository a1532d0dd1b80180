//! The words of a channel's memory, for both sides. JavaScript has these numbers from
//! `src/handler/layout.ts`, which a test below compares with what [`typescript`] makes of this
//! file; the places that depend on a queue's depth it asks for ([`Layout::places`]).

use super::ring::Span;
use crate::tag::Tag;

macro_rules! words {
    ($($(#[doc = $doc:literal])+ $name:ident = $value:expr;)*) => {
        $($(#[doc = $doc])+ pub const $name: u32 = $value;)*

        /// The numbers, as `src/handler/layout.ts` has them.
        pub fn typescript() -> String {
            let mut text = String::from(HEADER);
            $(
                text.push_str("\n/**");
                $(text.push_str($doc);)+
                text.push_str(&format!(" */\nexport const {} = {};\n", stringify!($name), $name));
            )*
            text
        }
    };
}

const HEADER: &str = "// The words of a channel's memory. Generated from \
    crates/ublk-core/src/bridge/layout.rs by
// `UBLK_WRITE_LAYOUT=1 cargo test -p ublk-core --lib layout`; do not edit.\n";

words! {
    /// Changes whenever a number below changes its meaning.
    LAYOUT_VERSION = 5;

    /// Where requests have been written up to; the reactor's.
    REQUESTS_TAIL = 0;
    /// Where requests have been taken up to; the peer's.
    REQUESTS_HEAD = 16;
    /// How the peer waits: the peer sets it, the reactor takes it back when it wakes it.
    PEER_WAITS = 32;
    /// Where answers have been written up to; the peer's.
    ANSWERS_TAIL = 48;
    /// Where answers have been taken up to; the reactor's.
    ANSWERS_HEAD = 64;
    /// Whether the reactor sleeps: it sets it, the peer takes it back when it wakes it.
    REACTOR_SLEEPS = 80;
    /// The words before the first ring.
    CONTROL_WORDS = 96;

    /// Awake.
    AWAKE = 0;
    /// Asleep in its event loop: its bell is to be rung.
    IN_EVENT_LOOP = 1;
    /// Asleep in a call of ours.
    IN_CALL = 2;

    /// Of answers the reactor is owed nothing: it looks for them by itself.
    OWES_NOTHING = 0;
    /// It sleeps, and is owed a call: it sees them then.
    OWES_CALL = 1;
    /// It sleeps, and is owed the only one: it sleeps on where the kernel takes it from the peer.
    OWES_ANSWER = 2;

    /// Words of a request.
    REQUEST_WORDS = 8;
    /// Tag in bits 0 to 15, kind in 16 to 23, flags in 24 to 31.
    REQUEST_HEAD = 0;
    /// The generation that the answer must carry.
    REQUEST_GENERATION = 1;
    /// In bytes.
    REQUEST_LENGTH = 2;
    /// Counts the buffers that the tag has had; another one is to be asked for when it changes.
    REQUEST_EPOCH = 3;
    /// In bytes, the lower half.
    REQUEST_OFFSET_LOW = 4;
    /// The upper half.
    REQUEST_OFFSET_HIGH = 5;

    /// The kinds of a request up to here are `UBLK_IO_OP_*`. Steps have ended: their pieces say how.
    KIND_STEPPED = 128;
    /// A flag: on stable storage before it is answered.
    FLAG_FUA = 1;
    /// A flag: zeros keep their space.
    FLAG_NO_UNMAP = 2;

    /// Words of an answer.
    ANSWER_WORDS = 4;
    /// Tag in bits 0 to 15, kind in 16 to 23, number of pieces, or the backend, in 24 to 31.
    ANSWER_HEAD = 0;
    /// The generation of the request.
    ANSWER_GENERATION = 1;
    /// With `ANSWER_FAILED`: a positive errno.
    ANSWER_ERRNO = 2;
    /// With `ANSWER_LANDED` and `ANSWER_REMAP`: where, in bytes, the lower half.
    ANSWER_PLACE_LOW = 2;
    /// The upper half.
    ANSWER_PLACE_HIGH = 3;

    /// The request has been done in full.
    ANSWER_DONE = 0;
    /// It has failed.
    ANSWER_FAILED = 1;
    /// It is where the tag's pieces say, and ends when they have been done.
    ANSWER_PLAN = 2;
    /// The tag's pieces are to be done; then the request goes on.
    ANSWER_STEPS = 3;
    /// It has failed, and its buffer must not be used again.
    ANSWER_SPOILT = 4;
    /// It was a zone append, and has been done.
    ANSWER_LANDED = 5;
    /// It has been done or has failed, and the kernel knows; the addon's.
    ANSWER_COMMITTED = 6;
    /// The whole of it is in one place of a backend, and it ends when it has been done there.
    ANSWER_REMAP = 7;

    /// Words of a piece.
    PIECE_WORDS = 8;
    /// The backend's place in the list.
    PIECE_BACKEND = 0;
    /// What to do, `UBLK_IO_OP_*`.
    PIECE_OP = 1;
    /// Where in the request's buffer, in bytes.
    PIECE_AT = 2;
    /// In bytes.
    PIECE_LENGTH = 3;
    /// Where in the backend, in bytes, the lower half.
    PIECE_OFFSET_LOW = 4;
    /// The upper half.
    PIECE_OFFSET_HIGH = 5;
    /// What a step failed of, a positive errno; the reactor's. The peer leaves 0 there.
    PIECE_ERRNO = 6;
    /// In place of an errno: it has not begun, because another failed.
    NOT_BEGUN = 0xffff_ffff;
}

/// Where things are in the memory of a channel, in words.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub(crate) requests: Span,
    pub(crate) answers: Span,
    pieces: u32,
    max_pieces: u32,
    words: u32,
}

/// What JavaScript is told of a [`Layout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// The first word of the ring of requests.
    pub requests: u32,
    /// The number of requests that it holds, a power of two.
    pub request_count: u32,
    /// The first word of the ring of answers.
    pub answers: u32,
    /// The number of answers that it holds, a power of two.
    pub answer_count: u32,
    /// The first word of the pieces of tag 0.
    pub pieces: u32,
    /// The pieces of one tag.
    pub max_pieces: u32,
}

impl Layout {
    /// A tag has at most two records in each ring: one that was ended unanswered and may still lie
    /// there, and the one that came after it. The peer gives room back before it answers.
    pub(crate) fn new(depth: u16, max_pieces: u8) -> Self {
        let records = (u32::from(depth) * 2).next_power_of_two();
        let requests = Span { at: CONTROL_WORDS, width: REQUEST_WORDS, mask: records - 1 };
        let answers = Span { at: requests.end(), width: ANSWER_WORDS, mask: records - 1 };
        let pieces = answers.end();
        let max_pieces = u32::from(max_pieces);
        let words = pieces + u32::from(depth) * max_pieces * PIECE_WORDS;
        Self { requests, answers, pieces, max_pieces, words }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.words as usize * size_of::<u32>()
    }

    /// The first word of a piece of `tag`.
    #[inline]
    pub(crate) fn piece(&self, tag: Tag, index: u32) -> usize {
        debug_assert!(index < self.max_pieces);
        (self.pieces + (u32::from(tag.number()) * self.max_pieces + index) * PIECE_WORDS) as usize
    }

    /// What JavaScript must know.
    pub fn places(&self) -> Places {
        Places {
            requests: self.requests.at,
            request_count: self.requests.mask + 1,
            answers: self.answers.at,
            answer_count: self.answers.mask + 1,
            pieces: self.pieces,
            max_pieces: self.max_pieces,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typescript_has_the_same_numbers() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../src/handler/layout.ts");
        if std::env::var_os("UBLK_WRITE_LAYOUT").is_some() {
            std::fs::write(path, typescript()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), typescript());
    }

    #[test]
    fn nothing_overlaps() {
        for depth in [1, 2, 3, 128, 4096] {
            let layout = Layout::new(depth, 64);
            assert!(layout.requests.at >= CONTROL_WORDS);
            assert!(layout.answers.at >= layout.requests.end());
            assert!(layout.piece(Tag::new(0), 0) >= layout.answers.end() as usize);
            let end = layout.piece(Tag::new(depth - 1), 63) + PIECE_WORDS as usize;
            assert_eq!(end * 4, layout.bytes());
        }
    }
}
