//! What a submission says of itself, so that its completion finds its way back.

use crate::tag::Tag;

/// Which part of the queue loop a completion belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A fetch, or a commit that fetches again: the exchange's.
    Fetch = 0,
    /// A step of a plan: the engine's.
    Step = 1,
    /// A buffer registration: the engine's.
    Register = 2,
    /// A buffer's unregistration: the engine's.
    Unregister = 3,
    /// A copy between our memory and a request's pages: the engine's.
    Copy = 4,
    /// Somebody wakes the reactor.
    Wake = 5,
    /// The first arming of a queue's tags: the exchange's.
    Prepare = 6,
    /// A commit of many tags; the tag says which outbox: the exchange's.
    Commit = 7,
    /// A commit of one tag that was refused: the exchange's.
    CommitOne = 8,
    /// A transfer that is linked to its commit, which answers only when it fails: the engine's.
    Linked = 9,
    /// An attempt to take a severed transfer back: the engine's.
    TakeBack = 10,
    /// A timeout of requests that are held back: the gate's, which comes with the engine's.
    Gate = 11,
    /// An entry of a session; the tag is the number of the session, the step the entry's: the engine's.
    Session = 12,
    /// The kernel has taken a linked transfer without its commit (`SEVERED`): the engine's.
    Severed = 9 | 0x80,
}

impl Kind {
    /// Whether it is the engine's or the gate's, or else the exchange's.
    #[inline]
    pub(crate) const fn is_engines(self) -> bool {
        matches!(
            self,
            Self::Step
                | Self::Register
                | Self::Unregister
                | Self::Copy
                | Self::Linked
                | Self::TakeBack
                | Self::Gate
                | Self::Session
                | Self::Severed
        )
    }
}

/// A submission's `user_data`, together with the number of the seat: tag, or another number where there is
/// no request; kind, step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) tag: Tag,
    pub(crate) step: u8,
}

impl Token {
    #[inline(always)]
    pub(crate) const fn new(kind: Kind, tag: Tag) -> Self {
        Self { kind, tag, step: 0 }
    }

    /// The token of something that is no request: the number takes the place of the tag.
    #[inline(always)]
    pub(crate) const fn numbered(kind: Kind, number: u16) -> Self {
        Self::new(kind, Tag::new(number))
    }

    #[inline]
    pub(crate) const fn pack(self, seat: u16) -> u64 {
        self.tag.number() as u64
            | (self.step as u64) << 16
            | (self.kind as u64) << 24
            | (seat as u64) << 32
    }

    /// The number of the seat in a word that [`pack`](Self::pack) made.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the field is cut out of the word")]
    pub(crate) const fn seat(word: u64) -> u16 {
        (word >> 32) as u16
    }

    /// The tag in a word of a plan's first step, which most are.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the field is cut out of the word")]
    pub(crate) const fn first_step(word: u64) -> Option<Tag> {
        const KIND_AND_STEP: u64 = 0xffff << 16;
        let first = Self::numbered(Kind::Step, 0).pack(0);
        if word & KIND_AND_STEP == first { Some(Tag::new(word as u16)) } else { None }
    }

    /// # Panics
    /// On a number that [`pack`](Self::pack) never made.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "each field is cut out of the word")]
    pub(crate) fn unpack(word: u64) -> Self {
        let kind = match (word >> 24) as u8 {
            0 => Kind::Fetch,
            1 => Kind::Step,
            2 => Kind::Register,
            3 => Kind::Unregister,
            4 => Kind::Copy,
            5 => Kind::Wake,
            6 => Kind::Prepare,
            7 => Kind::Commit,
            8 => Kind::CommitOne,
            9 => Kind::Linked,
            10 => Kind::TakeBack,
            11 => Kind::Gate,
            12 => Kind::Session,
            0x89 => Kind::Severed,
            other => unreachable!("a completion of kind {other}"),
        };
        Self { kind, tag: Tag::new(word as u16), step: (word >> 16) as u8 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::SEVERED;

    #[test]
    fn every_kind_survives_the_round_trip() {
        for number in (0..=12_u64).chain([0x89]) {
            let token = Token { tag: Tag::new(4095), step: 255, ..Token::unpack(number << 24) };
            let word = token.pack(513);
            assert_eq!(Token::unpack(word), token);
            assert_eq!((word >> 24 & 0xff, Token::seat(word)), (number, 513));
        }
        let linked = Token::numbered(Kind::Linked, 7);
        let severed = linked.pack(513) | SEVERED;
        assert_eq!(Token::unpack(severed), Token { kind: Kind::Severed, ..linked });
        assert_eq!((Token::seat(severed), Token::first_step(severed)), (513, None));
    }
}
