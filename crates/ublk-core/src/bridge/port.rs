//! The reactor's end of a channel.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Bell;
use super::bypass::Commit;
use super::channel::Channel;
use super::layout::{
    ANSWER_COMMITTED, ANSWER_DONE, ANSWER_ERRNO, ANSWER_FAILED, ANSWER_GENERATION, ANSWER_HEAD,
    ANSWER_LANDED, ANSWER_PLACE_HIGH, ANSWER_PLACE_LOW, ANSWER_PLAN, ANSWER_REMAP, ANSWER_SPOILT,
    ANSWER_STEPS, ANSWER_WORDS, ANSWERS_HEAD, ANSWERS_TAIL, KIND_STEPPED, PIECE_ERRNO,
    REQUEST_WORDS, REQUESTS_HEAD, REQUESTS_TAIL,
};
use super::pieces::{Misfit, Piece, Pieces};
use super::report::{Report, ReportKind};
use super::ring::{Reader, Writer};
use crate::memory::Region;
use crate::tag::Tag;

const ANSWER: usize = ANSWER_WORDS as usize;

/// A request, as the peer is asked for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ask {
    /// `UBLK_IO_OP_*`.
    pub(crate) op: u8,
    /// `FLAG_*`.
    pub(crate) flags: u32,
    pub(crate) length: u32,
    pub(crate) offset: u64,
    /// What a commit of all of it says.
    pub(crate) whole: u32,
}

/// What the peer says about a request that waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// It has been done in full.
    Done,
    /// It has ended, with this positive errno or 0, and the kernel knows.
    Committed(i32),
    /// The same as `Done`, of a zone append, whose data begins there, in bytes.
    Landed(u64),
    /// It has failed with this positive errno.
    Failed(i32),
    /// The same, and the peer has lost hold of the tag's buffer.
    Spoilt(i32),
    /// It ends when so many of the tag's pieces have been done.
    Plan(u8),
    /// So many of the tag's pieces are to be done; then it waits for the peer again.
    Steps(u8),
    /// It ends when it has been done as a whole, at this place in bytes of a backend.
    Remap(u8, u64),
}

/// What the peer is asked for a tag.
#[derive(Clone, Copy, Debug, Default)]
struct Question {
    ask: Ask,
    generation: u32,
    epoch: u32,
    /// When the request began, in ticks.
    since: u32,
    /// It is the peer's turn.
    waiting: bool,
    /// It has been announced, and the peer has not been asked.
    fresh: bool,
}

/// The reactor's end of a channel.
#[derive(Debug)]
pub(crate) struct Port {
    channel: Arc<Channel>,
    requests: Writer,
    answers: Reader,
    tags: Box<[Question]>,
    waiting: u32,
}

impl Port {
    /// `bell` wakes the reactor.
    pub(crate) fn new(channel: Arc<Channel>, bell: Bell) -> Self {
        channel.attach_reactor(bell);
        let layout = channel.layout();
        Self {
            requests: Writer::new(layout.requests, REQUESTS_TAIL, REQUESTS_HEAD),
            answers: Reader::new(layout.answers, ANSWERS_TAIL, ANSWERS_HEAD),
            tags: vec![Question::default(); channel.depth().into()].into(),
            waiting: 0,
            channel,
        }
    }

    /// Asks the peer, at the latest with the next [`flush`](Self::flush). False when it is gone,
    /// or has not come for its requests for so long that there is no room.
    #[inline]
    pub(crate) fn ask(&mut self, tag: Tag, ask: Ask) -> bool {
        self.expect(tag, ask);
        self.ask_first(tag)
    }

    /// A request has begun, and its time too.
    #[inline]
    fn expect(&mut self, tag: Tag, ask: Ask) {
        let question = &mut self.tags[tag.index()];
        question.ask = ask;
        question.since = self.channel.shared.clock.load(Ordering::Relaxed);
    }

    #[inline]
    fn ask_first(&mut self, tag: Tag) -> bool {
        let question = &mut self.tags[tag.index()];
        question.generation = question.generation.wrapping_add(1);
        let op = question.ask.op;
        self.hand_over(tag, op.into())
    }

    /// The peer will be asked when the request's bytes are there: with [`resume`](Self::resume).
    #[cold]
    pub(crate) fn announce(&mut self, tag: Tag, ask: Ask) {
        self.expect(tag, ask);
        self.tags[tag.index()].fresh = true;
    }

    /// The steps that the peer asked for have ended, or the request's bytes are there, unless
    /// something `failed`: it is its turn. False as for [`ask`](Self::ask), or without the bytes.
    pub(crate) fn resume(&mut self, tag: Tag, failed: bool) -> bool {
        let question = &mut self.tags[tag.index()];
        if !std::mem::take(&mut question.fresh) {
            return self.hand_over(tag, KIND_STEPPED);
        }
        !failed && self.ask_first(tag)
    }

    /// Says what a step has failed of, before its request is [resumed](Self::resume): `piece` is
    /// the place among the tag's pieces of what was asked for. The first to be said stands.
    #[cold]
    pub(crate) fn step_failed(&self, tag: Tag, piece: u8, errno: u32) {
        let at = self.channel.layout().piece(tag, piece.into()) + PIECE_ERRNO as usize;
        let word = &self.channel.words()[at];
        if word.load(Ordering::Relaxed) == 0 {
            // Relaxed: the peer looks after it has seen the request, which is published.
            word.store(errno, Ordering::Relaxed);
        }
    }

    #[inline]
    fn hand_over(&mut self, tag: Tag, kind: u32) -> bool {
        if self.channel.is_given_up() {
            self.channel.shared.gave_up();
            return false;
        }
        let question = &mut self.tags[tag.index()];
        let Ask { flags, length, offset, .. } = question.ask;
        let head = u32::from(tag.number()) | kind << 16 | flags << 24;
        #[expect(clippy::cast_possible_truncation, reason = "its halves")]
        let (low, high) = (offset as u32, (offset >> 32) as u32);
        let record = [head, question.generation, length, question.epoch, low, high, 0, 0];
        const { assert!(REQUEST_WORDS == 8) };
        if !self.requests.write(self.channel.words(), record) {
            return false;
        }
        self.channel.bypass.asked(tag, question.generation, question.ask.whole);
        question.waiting = true;
        self.waiting += 1;
        true
    }

    /// Shows the peer what it was asked, and wakes it if it sleeps.
    #[inline]
    pub(crate) fn flush(&mut self) {
        let words = self.channel.words();
        self.channel.waiting.store(self.waiting, Ordering::Relaxed);
        if self.requests.publish(words) {
            self.channel.wake_peer();
        }
    }

    /// The next answer.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<(Tag, Body)> {
        loop {
            let record = self.answers.read::<ANSWER>(self.channel.words())?;
            let head = record[ANSWER_HEAD as usize];
            #[expect(clippy::cast_possible_truncation, reason = "cut out of the word")]
            let (tag, kind, count) = (Tag::new(head as u16), head >> 16 & 0xff, (head >> 24) as u8);
            let generation = record[ANSWER_GENERATION as usize];
            let errno = record[ANSWER_ERRNO as usize].cast_signed();
            let place = u64::from(record[ANSWER_PLACE_LOW as usize])
                | u64::from(record[ANSWER_PLACE_HIGH as usize]) << 32;
            let Some(question) = self.tags.get_mut(tag.index()) else { continue };
            if !question.waiting || question.generation != generation {
                self.report(tag, ReportKind::Late);
                continue;
            }
            question.waiting = false;
            self.waiting -= 1;
            self.channel.bypass.over(tag);
            let body = match kind {
                ANSWER_DONE => Body::Done,
                ANSWER_COMMITTED => Body::Committed(errno),
                ANSWER_LANDED => Body::Landed(place),
                ANSWER_REMAP => Body::Remap(count, place),
                ANSWER_FAILED => Body::Failed(errno),
                ANSWER_SPOILT => Body::Spoilt(errno),
                ANSWER_PLAN => Body::Plan(count),
                ANSWER_STEPS => Body::Steps(count),
                _ => Body::Failed(libc::EIO),
            };
            return Some((tag, body));
        }
    }

    /// Whether the peer has been asked for the tag's request, and has not answered.
    pub(crate) fn is_asked(&self, tag: Tag) -> bool {
        self.tags[tag.index()].waiting
    }

    /// Whether there are answers.
    #[inline]
    pub(crate) fn has_answers(&mut self) -> bool {
        self.answers.has_more(self.channel.words())
    }

    /// All answers that there are have been taken.
    #[inline]
    pub(crate) fn answered(&self) {
        self.answers.give_back(self.channel.words());
    }

    /// Says that the reactor is about to sleep. False when there is something to be done first.
    #[inline]
    pub(crate) fn may_sleep(&mut self) -> bool {
        if self.waiting == 0 {
            return true;
        }
        self.channel.reactor_sleeps();
        !self.answers.has_more(self.channel.words()) && !self.channel.is_asked_to_look()
    }

    /// Says that the reactor is awake: it looks for answers by itself.
    #[inline]
    pub(crate) fn awake(&self) {
        self.channel.reactor_is_awake();
    }

    /// How many requests the next server shall answer, since nobody here does.
    pub(crate) fn left_over(&self) -> u32 {
        let left = self.channel.is_abandoned() && self.channel.shared.outlives();
        if left { self.waiting } else { 0 }
    }

    /// Whether somebody wants [`next_overdue`](Self::next_overdue) to be asked.
    #[inline]
    pub(crate) fn has_overdue(&self) -> bool {
        self.channel.is_asked_to_look() || self.channel.is_given_up()
    }

    /// The next request from `from` on that has waited too long, with its errno. The peer's turn
    /// is over.
    #[cold]
    pub(crate) fn next_overdue(&mut self, from: Tag) -> Option<(Tag, i32)> {
        if from == Tag::default() {
            self.channel.take_look();
        }
        let shared = &self.channel.shared;
        let abandoned = self.channel.is_given_up();
        let is_due = |question: &Question| {
            question.waiting && (abandoned || shared.is_overdue(question.since))
        };
        let tag = Tag::all(self.channel.depth()).skip(from.index()).find(|&tag| {
            let question = &self.tags[tag.index()];
            // Otherwise the peer is just about to commit it.
            is_due(question) && self.channel.bypass.claim(tag, question.generation).is_some()
        })?;
        self.tags[tag.index()].waiting = false;
        self.waiting -= 1;
        if abandoned {
            shared.gave_up();
            return Some((tag, libc::EIO));
        }
        self.report(tag, ReportKind::TimedOut);
        Some((tag, libc::ETIMEDOUT))
    }

    /// Lets the peer commit requests past the reactor.
    pub(crate) fn open_bypass(&self, commit: Box<dyn Commit>) {
        self.channel.bypass.open(commit);
    }

    /// The reactor has to know of each answer; the peer commits nothing any more when this has
    /// returned.
    pub(crate) fn close_bypass(&self) {
        self.channel.bypass.close();
    }

    /// Commits of the peer's that the kernel has refused, and that are still to be done.
    pub(crate) fn take_refused(&self) -> Vec<(Tag, i32)> {
        self.channel.bypass.take_refused()
    }

    /// Gives `tag` another buffer, since the peer may still use the one that it had; nothing where
    /// there are no buffers.
    #[cold]
    pub(crate) fn renew_buffer(&mut self, tag: Tag) -> Option<Arc<Region>> {
        self.channel.renew_buffer(tag);
        let question = &mut self.tags[tag.index()];
        question.epoch = question.epoch.wrapping_add(1);
        self.channel.buffer(tag)
    }

    /// The pieces of the plan or of the steps that the peer has just answered with; nothing when
    /// those are none, or more than were agreed upon.
    #[inline]
    pub(crate) fn pieces(&self, tag: Tag, count: u8) -> Option<Pieces<'_>> {
        let layout = self.channel.layout();
        if count == 0 || u32::from(count) > layout.places().max_pieces {
            return None;
        }
        Some(Pieces::new(&self.channel.words()[layout.piece(tag, 0)..], count))
    }

    /// Makes a piece of the tag's of what the peer has answered with `Remap`. It has none of its own
    /// there until it is asked again.
    pub(crate) fn spell_out(&self, tag: Tag, backend: u8, offset: u64) {
        let Ask { op, length, .. } = self.tags[tag.index()].ask;
        let piece = Piece { backend: backend.into(), op: op.into(), at: 0, length, offset };
        piece.write(&self.channel.words()[self.channel.layout().piece(tag, 0)..]);
    }

    /// Tells that a plan does not fit.
    #[cold]
    pub(crate) fn misfit(&self, tag: Tag, misfit: Misfit) {
        self.report(tag, ReportKind::Misfit(misfit));
    }

    #[cold]
    fn report(&self, tag: Tag, kind: ReportKind) {
        let Ask { op, offset, length, .. } = self.tags[tag.index()].ask;
        let queue = self.channel.queue();
        self.channel.shared.report(Report { kind, queue, tag, op, offset, length });
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        // It holds the device's file.
        self.close_bypass();
    }
}
