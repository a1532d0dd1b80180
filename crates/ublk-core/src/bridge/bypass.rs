//! Commits past the reactor: the peer's thread commits an answer that would only wake the reactor.
//!
//! A commit past the reactor saves a sleep and a wake-up of the reactor per request where requests come one
//! by one. The reactor hears of the commit at the next wake-up for another reason: the answer lies in the
//! reactor's ring, marked as committed. The peer writes the mark before the commit, so the reactor has read
//! the answer by the time of the tag's next request.

use std::fmt;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::channel::Channel;
use super::layout::{
    ANSWER_COMMITTED, ANSWER_DONE, ANSWER_ERRNO, ANSWER_FAILED, ANSWER_GENERATION, ANSWER_HEAD,
    ANSWERS_TAIL, OWES_ANSWER, OWES_CALL,
};
use super::lock;
use crate::tag::Tag;

/// Commits requests in the peer's thread.
pub(crate) trait Commit: Send {
    /// Whether the reactor allows commits past the reactor now.
    fn may_commit(&self) -> bool;

    /// The result in the commit of a request that the peer has failed with this errno.
    fn failure(&self, errno: i32) -> i32;

    /// Commits a request. The kernel copies the data of the tag's next request to and from `memory`. False
    /// when the kernel refuses the commit, and the request stays with the server.
    ///
    /// # Errors
    /// When the fate of the request is unknown: no further commit may follow.
    fn commit(&mut self, tag: Tag, result: i32, memory: *mut u8) -> io::Result<bool>;
}

/// The word of a tag without a request at the peer.
const OVER: u64 = u64::MAX;

/// The way past the reactor.
pub(super) struct Bypass {
    /// Per tag: the generation of the request at the peer, and the result that commits all bytes of the
    /// request. The side that swaps [`OVER`] into the word ends the request.
    asked: Box<[AtomicU64]>,
    way: Mutex<Way>,
}

#[derive(Default)]
struct Way {
    commit: Option<Box<dyn Commit>>,
    /// Commits that the kernel has refused, for the reactor.
    refused: Vec<(Tag, i32)>,
}

impl Bypass {
    pub(super) fn new(depth: u16) -> Self {
        let asked = (0..depth).map(|_| AtomicU64::new(OVER)).collect();
        Self { asked, way: Mutex::default() }
    }

    /// Notes that the peer has a request.
    #[inline]
    pub(super) fn asked(&self, tag: Tag, generation: u32, whole: u32) {
        // Relaxed: the peer reads the word after the request, and the request is published later.
        let asked = u64::from(generation) << 32 | u64::from(whole);
        self.asked[tag.index()].store(asked, Ordering::Relaxed);
    }

    /// Notes that the reactor has the peer's answer.
    #[inline]
    pub(super) fn over(&self, tag: Tag) {
        // Relaxed: the peer answers a request once.
        self.asked[tag.index()].store(OVER, Ordering::Relaxed);
    }

    /// Takes the right to end the request of this generation; at most one caller gets the right. Returns the
    /// result that commits all bytes of the request.
    pub(super) fn claim(&self, tag: Tag, generation: u32) -> Option<i32> {
        let word = self.asked.get(tag.index())?;
        let asked = word.load(Ordering::Relaxed);
        if asked == OVER || asked >> 32 != u64::from(generation) {
            return None;
        }
        // Relaxed: of two callers one succeeds, and each side learns of the other's next steps by the ring of
        // answers.
        word.compare_exchange(asked, OVER, Ordering::Relaxed, Ordering::Relaxed).ok()?;
        #[expect(clippy::cast_possible_truncation, reason = "its lower half")]
        Some((asked as u32).cast_signed())
    }

    pub(super) fn open(&self, commit: Box<dyn Commit>) {
        lock(&self.way).commit = Some(commit);
    }

    /// Ends the commits past the reactor; returns after the commit under way.
    pub(super) fn close(&self) {
        lock(&self.way).commit = None;
    }

    /// Takes the commits that the kernel has refused.
    #[cold]
    pub(super) fn take_refused(&self) -> Vec<(Tag, i32)> {
        std::mem::take(&mut lock(&self.way).refused)
    }
}

impl Channel {
    /// For the peer: pays a debt to the reactor, one of `OWES_*`.
    pub fn pay(&self, debt: u32) {
        match debt {
            OWES_CALL => self.wake_reactor(),
            OWES_ANSWER => self.show_one(),
            _ => {}
        }
    }

    /// For the peer: shows the reactor one more answer, the first that the reactor has not been shown. Commits
    /// the request here if the reactor sleeps and the answer says only how the request has ended.
    pub fn show_one(&self) {
        let words = self.words();
        // Relaxed, here and below: the peer's own words.
        let tail = words[ANSWERS_TAIL as usize].load(Ordering::Relaxed);
        // Sequentially consistent: the record is written before the tail, and the tail before the look at the
        // word that says whether the reactor sleeps; see `Writer::publish`.
        let show = || words[ANSWERS_TAIL as usize].store(tail.wrapping_add(1), Ordering::SeqCst);
        let record = &words[self.layout().answers.place(tail)..];
        let word = |index: u32| record[index as usize].load(Ordering::Relaxed);
        let (head, generation) = (word(ANSWER_HEAD), word(ANSWER_GENERATION));
        #[expect(clippy::cast_possible_truncation, reason = "cut out of the word")]
        let (tag, kind) = (Tag::new(head as u16), head >> 16 & 0xff);
        let ends = kind == ANSWER_DONE || kind == ANSWER_FAILED;
        let mut way = lock(&self.bypass.way);
        let commit = way.commit.as_mut();
        let claimed = commit
            .filter(|commit| ends && commit.may_commit())
            .zip(self.buffer(tag))
            .and_then(|way| Some((way, self.bypass.claim(tag, generation)?)));
        let Some(((commit, memory), whole)) = claimed else {
            drop(way);
            show();
            self.wake_sleeping_reactor();
            return;
        };
        let errno = word(ANSWER_ERRNO).cast_signed();
        let result = if kind == ANSWER_DONE { whole } else { commit.failure(errno) };
        record[ANSWER_HEAD as usize]
            .store(u32::from(tag.number()) | ANSWER_COMMITTED << 16, Ordering::Relaxed);
        show();
        match commit.commit(tag, result, memory.base()) {
            Ok(true) => return,
            Ok(false) => {}
            Err(_) => way.commit = None,
        }
        way.refused.push((tag, result));
        drop(way);
        self.ask_to_look();
    }
}

impl fmt::Debug for Bypass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bypass").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use super::super::port::{Ask, Body, Port};
    use super::super::{Asked, Bridge, BridgeOptions, Peer, TICK};
    use super::*;

    type Committed = Arc<Mutex<Vec<(Tag, i32)>>>;

    /// Writes down what it commits, and says `answer`.
    struct Book {
        committed: Committed,
        answer: fn() -> io::Result<bool>,
        busy: Arc<AtomicBool>,
    }

    impl Commit for Book {
        fn may_commit(&self) -> bool {
            !self.busy.load(Ordering::Relaxed)
        }

        fn failure(&self, errno: i32) -> i32 {
            -100 - errno
        }

        fn commit(&mut self, tag: Tag, result: i32, memory: *mut u8) -> io::Result<bool> {
            assert!(!memory.is_null());
            self.committed.lock().unwrap().push((tag, result));
            (self.answer)()
        }
    }

    struct Rig {
        bridge: Bridge,
        port: Port,
        peer: Peer,
        committed: Committed,
        busy: Arc<AtomicBool>,
    }

    impl Rig {
        fn new(answer: fn() -> io::Result<bool>) -> Self {
            let timeout = TICK * 2;
            let options = BridgeOptions { queues: 1, depth: 4, max_pieces: 2, timeout };
            let bridge = Bridge::unwatched(&options).unwrap();
            let channel = bridge.channel(0);
            channel.make_buffers(4096).unwrap();
            let port = Port::new(Arc::clone(channel), Box::new(|| {}));
            let peer = Peer::new(Arc::clone(channel));
            let (committed, busy) = (Committed::default(), Arc::<AtomicBool>::default());
            let (book, idle) = (Arc::clone(&committed), Arc::clone(&busy));
            port.open_bypass(Box::new(Book { committed: book, answer, busy: idle }));
            Self { bridge, port, peer, committed, busy }
        }

        fn asked(&mut self, tag: Tag) -> Asked {
            let ask = Ask { op: 0, flags: 0, length: 4096, offset: 0, whole: 4096 };
            assert!(self.port.ask(tag, ask));
            self.port.flush();
            self.peer.take().unwrap()
        }

        fn answer(&mut self, asked: &Asked, result: Result<(), i32>) {
            self.peer.answer(asked, result);
            self.peer.flush_past();
        }

        fn committed(&self) -> Vec<(Tag, i32)> {
            self.committed.lock().unwrap().clone()
        }
    }

    #[test]
    fn a_lone_answer_is_committed_where_it_is_given_and_then_told() {
        let mut rig = Rig::new(|| Ok(true));
        for (tag, result, commit) in [(Tag::new(1), Ok(()), 4096), (Tag::new(2), Err(5), -105)] {
            let asked = rig.asked(tag);
            rig.answer(&asked, result);
            assert_eq!(rig.committed().last(), Some(&(tag, commit)));
            let errno = result.err().unwrap_or(0);
            assert_eq!(rig.port.next(), Some((tag, Body::Committed(errno))));
        }
        assert_eq!((rig.port.next(), rig.port.has_overdue()), (None, false));
    }

    #[test]
    fn what_says_more_than_how_a_request_ends_is_the_reactors() {
        let mut rig = Rig::new(|| Ok(true));
        let asked = rig.asked(Tag::new(0));
        rig.peer.plan(&asked, &[]);
        rig.peer.flush_past();
        assert_eq!(rig.port.next(), Some((Tag::new(0), Body::Plan(0))));
        let (first, second) = (rig.asked(Tag::new(0)), rig.asked(Tag::new(1)));
        rig.peer.answer(&first, Ok(()));
        rig.peer.answer(&second, Ok(()));
        rig.peer.flush_past();
        assert_eq!(
            rig.port.next(),
            Some((Tag::new(0), Body::Done)),
            "of several it commits all at once"
        );
        assert_eq!(rig.port.next(), Some((Tag::new(1), Body::Done)));
        assert_eq!(rig.committed(), []);
    }

    #[test]
    fn a_reactor_that_minds_or_is_about_to_go_commits_by_itself() {
        let mut rig = Rig::new(|| Ok(true));
        let asked = rig.asked(Tag::new(0));
        rig.busy.store(true, Ordering::Relaxed);
        rig.answer(&asked, Ok(()));
        assert_eq!(rig.port.next(), Some((Tag::new(0), Body::Done)));
        rig.busy.store(false, Ordering::Relaxed);
        rig.port.close_bypass();
        let asked = rig.asked(Tag::new(0));
        rig.answer(&asked, Ok(()));
        assert_eq!(rig.port.next(), Some((Tag::new(0), Body::Done)));
        assert_eq!(rig.committed(), []);
    }

    #[test]
    fn what_the_kernel_refuses_is_left_to_the_reactor() {
        let mut rig = Rig::new(|| Ok(false));
        let asked = rig.asked(Tag::new(3));
        rig.answer(&asked, Ok(()));
        assert_eq!(rig.port.next(), Some((Tag::new(3), Body::Committed(0))));
        assert!(rig.port.has_overdue(), "it is to look");
        assert_eq!(rig.port.take_refused(), [(Tag::new(3), 4096)]);
        assert_eq!(rig.port.take_refused(), []);
    }

    #[test]
    fn a_way_that_fails_is_not_taken_again() {
        let mut rig = Rig::new(|| Err(io::Error::from_raw_os_error(libc::EAGAIN)));
        let asked = rig.asked(Tag::new(0));
        rig.answer(&asked, Ok(()));
        assert_eq!(rig.port.take_refused(), [(Tag::new(0), 4096)]);
        assert_eq!(rig.port.next(), Some((Tag::new(0), Body::Committed(0))));
        let asked = rig.asked(Tag::new(0));
        rig.answer(&asked, Ok(()));
        assert_eq!(rig.port.next(), Some((Tag::new(0), Body::Done)));
        assert_eq!(rig.committed().len(), 1);
    }

    #[test]
    fn a_request_is_ended_by_one_side_only() {
        let mut rig = Rig::new(|| Ok(true));
        let late = rig.asked(Tag::new(0));
        (0..3).for_each(|_| rig.bridge.tick());
        assert_eq!(rig.port.next_overdue(Tag::new(0)), Some((Tag::new(0), libc::ETIMEDOUT)));
        rig.answer(&late, Ok(()));
        assert_eq!((rig.committed(), rig.port.next()), (vec![], None));

        let asked = rig.asked(Tag::new(1));
        (0..3).for_each(|_| rig.bridge.tick());
        rig.answer(&asked, Ok(()));
        assert_eq!(
            rig.port.next_overdue(Tag::new(0)),
            None,
            "it has been committed, which is still to be read"
        );
        rig.answer(&asked, Ok(()));
        assert_eq!(rig.committed(), [(Tag::new(1), 4096)], "once");
        assert_eq!(rig.port.next(), Some((Tag::new(1), Body::Committed(0))));
        assert_eq!(rig.port.next(), None);
    }

    #[test]
    fn it_is_closed_when_the_reactor_lets_go() {
        let Rig { port, mut peer, committed, bridge, .. } = Rig::new(|| Ok(true));
        assert_eq!(Arc::strong_count(&committed), 2);
        drop(port);
        assert_eq!(Arc::strong_count(&committed), 1);
        peer.flush_past();
        drop(bridge);
    }
}
