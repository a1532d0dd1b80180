//! The answering end of a channel, for those who answer in Rust. JavaScript has its own, in
//! `src/handler/`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::channel::Channel;
use super::layout::{
    ANSWER_DONE, ANSWER_FAILED, ANSWER_LANDED, ANSWER_PLAN, ANSWER_REMAP, ANSWER_STEPS,
    ANSWERS_HEAD, ANSWERS_TAIL, AWAKE, IN_EVENT_LOOP, PEER_WAITS, PIECE_ERRNO, REQUEST_EPOCH,
    REQUEST_GENERATION, REQUEST_HEAD, REQUEST_LENGTH, REQUEST_OFFSET_HIGH, REQUEST_OFFSET_LOW,
    REQUEST_WORDS, REQUESTS_HEAD, REQUESTS_TAIL,
};
use super::pieces::Piece;
use super::ring::{Reader, Writer};
use crate::tag::Tag;

/// A request that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its tag.
    pub tag: Tag,
    /// `UBLK_IO_OP_*`, or `KIND_STEPPED`.
    pub kind: u8,
    /// `FLAG_*`.
    pub flags: u8,
    /// What the answer must carry.
    pub generation: u32,
    /// Counts the buffers that the tag has had.
    pub epoch: u32,
    /// In bytes.
    pub length: u32,
    /// In bytes.
    pub offset: u64,
}

/// The answering end of a channel; there is one.
#[derive(Debug)]
pub struct Peer {
    channel: Arc<Channel>,
    requests: Reader,
    answers: Writer,
}

impl Peer {
    /// The answering end of `channel`.
    pub fn new(channel: Arc<Channel>) -> Self {
        let layout = *channel.layout();
        Self {
            channel,
            requests: Reader::new(layout.requests, REQUESTS_TAIL, REQUESTS_HEAD),
            answers: Writer::new(layout.answers, ANSWERS_TAIL, ANSWERS_HEAD),
        }
    }

    /// The channel.
    pub fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }

    /// The next request.
    #[expect(clippy::cast_possible_truncation, reason = "fields are cut out of their words")]
    pub fn take(&mut self) -> Option<Asked> {
        let record = self.requests.read::<{ REQUEST_WORDS as usize }>(self.channel.words())?;
        let word = |index: u32| record[index as usize];
        let head = word(REQUEST_HEAD);
        Some(Asked {
            tag: Tag::new(head as u16),
            kind: (head >> 16) as u8,
            flags: (head >> 24) as u8,
            generation: word(REQUEST_GENERATION),
            epoch: word(REQUEST_EPOCH),
            length: word(REQUEST_LENGTH),
            offset: u64::from(word(REQUEST_OFFSET_LOW))
                | u64::from(word(REQUEST_OFFSET_HIGH)) << 32,
        })
    }

    /// Sleeps until there are requests, or for `limit`. Whether there are any.
    pub fn wait(&self, limit: Duration) -> bool {
        self.channel.wait(limit)
    }

    /// Says that the peer sleeps until its bell is rung; false when there are requests.
    pub fn may_sleep(&mut self) -> bool {
        let waits = &self.channel.words()[PEER_WAITS as usize];
        // Sequentially consistent: before the requests' tail is looked at once more.
        waits.store(IN_EVENT_LOOP, Ordering::SeqCst);
        if self.requests.has_more(self.channel.words()) {
            waits.store(AWAKE, Ordering::SeqCst);
            return false;
        }
        true
    }

    /// Answers a request: done, or failed with a positive errno.
    pub fn answer(&mut self, asked: &Asked, result: Result<(), i32>) {
        match result {
            Ok(()) => self.write(asked, ANSWER_DONE, 0, 0),
            Err(errno) => self.write(asked, ANSWER_FAILED, 0, errno.cast_unsigned().into()),
        }
    }

    /// Answers a zone append: its data begins at `place`, in bytes.
    pub fn landed(&mut self, asked: &Asked, place: u64) {
        self.write(asked, ANSWER_LANDED, 0, place);
    }

    /// Answers with the place of the whole request in a backend, in bytes.
    pub fn remap(&mut self, asked: &Asked, backend: u8, place: u64) {
        self.write(asked, ANSWER_REMAP, backend.into(), place);
    }

    /// Answers with pieces of backends: the request is where they say.
    pub fn plan(&mut self, asked: &Asked, pieces: &[Piece]) {
        self.write_pieces(asked, ANSWER_PLAN, pieces);
    }

    /// Asks for pieces to be done; the request comes again when they have been.
    pub fn steps(&mut self, asked: &Asked, pieces: &[Piece]) {
        self.write_pieces(asked, ANSWER_STEPS, pieces);
    }

    /// What became of each of the `count` steps that were asked for last, when they have ended: 0, a
    /// positive errno, or `NOT_BEGUN`.
    pub fn results(&self, asked: &Asked, count: u32) -> impl Iterator<Item = u32> {
        let words = self.channel.words();
        let at = |index| self.channel.layout().piece(asked.tag, index) + PIECE_ERRNO as usize;
        (0..count).map(move |index| words[at(index)].load(Ordering::Relaxed))
    }

    fn write_pieces(&mut self, asked: &Asked, kind: u32, pieces: &[Piece]) {
        for (index, piece) in (0..).zip(pieces) {
            let at = self.channel.layout().piece(asked.tag, index);
            piece.write(&self.channel.words()[at..]);
        }
        let count = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
        self.write(asked, kind, count, 0);
    }

    /// `detail`: an errno, or a place.
    #[expect(clippy::cast_possible_truncation, reason = "its halves")]
    fn write(&mut self, asked: &Asked, kind: u32, count: u32, detail: u64) {
        let head = u32::from(asked.tag.number()) | kind << 16 | count << 24;
        let record = [head, asked.generation, detail as u32, (detail >> 32) as u32];
        let written = self.answers.write(self.channel.words(), record);
        debug_assert!(written, "more answers than requests");
    }

    /// Gives back the room of the requests that were taken and shows the reactor the answers. If it
    /// sleeps, it is woken, unless there is one answer only, which can be committed past it. In this
    /// order: it asks again as soon as it sees an answer, and must find room.
    pub fn flush(&mut self) {
        if self.channel.reactor_seems_asleep() {
            self.flush_past();
        } else {
            self.flush_to_reactor();
        }
    }

    /// The same, whether the reactor sleeps or not: a lone answer is committed past it where it can
    /// be.
    pub fn flush_past(&mut self) {
        if self.answers.unpublished() != 1 {
            return self.flush_to_reactor();
        }
        self.requests.give_back(self.channel.words());
        self.answers.was_published();
        self.channel.show_one();
    }

    /// The same by way of the reactor, whatever there is.
    pub fn flush_to_reactor(&mut self) {
        self.requests.give_back(self.channel.words());
        if self.answers.publish(self.channel.words()) {
            self.channel.wake_sleeping_reactor();
        }
    }
}
