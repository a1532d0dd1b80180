use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

use io_uring::squeue::Entry;
use ublk_nbd::Headers;
use ublk_nbd::client::{Address, Export};
use ublk_nbd::wire::{EXTENDED_REPLY_MAGIC, SIMPLE_REPLY_MAGIC, export, length};

use super::*;
use crate::remote::nbd::NbdOptions;
use crate::remote::nbd::status::Status;
use crate::tag::Tag;
use crate::targets::Durability;

const LIMIT: u64 = 5;

/// Notes which entries a session has pushed; nobody carries the entries out.
#[derive(Default)]
struct Pushed(Vec<u8>);

impl Entries for Pushed {
    unsafe fn push(&mut self, _entry: Entry, number: u8) -> io::Result<()> {
        self.0.push(number);
        Ok(())
    }
}

/// A connected session, and its peer.
fn session() -> (NbdSession, UnixStream) {
    session_within(NbdOptions::default().reconnect_timeout)
}

fn session_within(reconnect_timeout: Duration) -> (NbdSession, UnixStream) {
    let (ours, peer) = UnixStream::pair().unwrap();
    let answer_timeout = Duration::from_secs(LIMIT);
    let remote = Nbd {
        address: Address::parse("nbd+unix:///?socket=/nowhere/at/all").unwrap(),
        export: Export { size: 4096, flags: export::HAS_FLAGS, blocks: None },
        options: NbdOptions { reconnect_timeout, answer_timeout, ..NbdOptions::default() },
        first: Mutex::new(None),
        durability: Durability::of(1),
        status: Status::default(),
    };
    let socket = Socket::new(OwnedFd::from(ours));
    (NbdSession::new(Arc::new(remote), Some(socket), 4).unwrap(), peer)
}

/// Gives the session a flush to do, and returns the numbers of the entries that the session pushes.
fn flush_as(session: &mut NbdSession, tag: Tag) -> Vec<u8> {
    let ticket = Ticket { tag, step: 0 };
    let (kind, offset, length, memory) = (StepKind::Sync, 0, 0, ptr::null_mut());
    // SAFETY: a flush has no memory.
    unsafe { session.start(Job { ticket, kind, offset, length, memory }) };
    push(session)
}

fn flush(session: &mut NbdSession) {
    flush_as(session, Tag::new(0));
}

fn push(session: &mut NbdSession) -> Vec<u8> {
    let mut pushed = Pushed::default();
    session.push(&mut pushed).unwrap();
    pushed.0
}

/// The entry that sends has sent `requests` requests without data.
fn sent(session: &mut NbdSession, requests: usize) {
    session.completed(SEND, i32::try_from(requests * length::REQUEST).unwrap());
}

/// A simple reply without data arrives.
fn reply(session: &mut NbdSession, cookie: u64) {
    let mut bytes = SIMPLE_REPLY_MAGIC.to_be_bytes().to_vec();
    bytes.extend(0_u32.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    receive(session, &bytes);
}

/// Bytes arrive.
fn receive(session: &mut NbdSession, bytes: &[u8]) {
    // SAFETY: the session's buffer begins there and is empty, and nobody carries an entry out.
    unsafe { session.memory.base().copy_from(bytes.as_ptr(), bytes.len()) };
    session.completed(RECEIVE, i32::try_from(bytes.len()).unwrap());
}

/// The cookie of the request number `generation` of a slot.
fn cookie(generation: u64, slot: u64) -> u64 {
    generation << 32 | slot
}

fn answers(session: &mut NbdSession) -> Vec<(u16, i32)> {
    std::iter::from_fn(|| session.answer())
        .map(|(ticket, result)| (ticket.tag.number(), result))
        .collect()
}

fn is_up(session: &NbdSession) -> bool {
    matches!(session.link, Link::Up(_))
}

fn tick(session: &mut NbdSession, times: u64) {
    (0..times).for_each(|_| session.tick());
}

#[test]
fn a_connection_is_given_up_once_it_has_brought_nothing_for_longer_than_the_limit() {
    let (mut session, _peer) = session();
    flush(&mut session);
    tick(&mut session, LIMIT);
    assert!(is_up(&session));
    tick(&mut session, 1);
    assert!(!is_up(&session));
}

#[test]
fn a_byte_begins_the_limit_anew() {
    let (mut session, _peer) = session();
    flush(&mut session);
    tick(&mut session, LIMIT);
    let byte = SIMPLE_REPLY_MAGIC.to_be_bytes()[0];
    // SAFETY: the session's buffer begins there, and nobody carries an entry out.
    unsafe { session.memory.base().write(byte) };
    session.completed(RECEIVE, 1);
    tick(&mut session, LIMIT);
    assert!(is_up(&session));
    tick(&mut session, 1);
    assert!(!is_up(&session));
}

#[test]
fn a_connection_without_requests_may_be_silent() {
    let (mut session, _peer) = session();
    session.push(&mut Pushed::default()).unwrap();
    tick(&mut session, 10 * LIMIT);
    assert!(is_up(&session));
    flush(&mut session);
    tick(&mut session, LIMIT);
    assert!(is_up(&session), "the limit begins with the request");
}

#[test]
fn a_closed_session_pushes_nothing() {
    let (mut session, _peer) = session();
    session.push(&mut Pushed::default()).unwrap();
    session.completed(RECEIVE, 0);
    assert!(matches!(session.link, Link::Away { .. }));
    session.close();
    assert!(session.is_idle());
    let mut pushed = Pushed::default();
    session.push(&mut pushed).unwrap();
    assert_eq!(pushed.0, []);
}

#[test]
fn a_reply_that_comes_before_the_request_is_sent_answers_once_the_entry_has_ended() {
    let (mut session, _peer) = session();
    flush(&mut session);
    reply(&mut session, cookie(1, 0));
    assert_eq!(answers(&mut session), [], "the entry still names memory of the job");
    assert!(is_up(&session));
    sent(&mut session, 1);
    assert_eq!(answers(&mut session), [(0, 0)]);
}

#[test]
fn a_second_reply_costs_the_connection_before_and_after_the_request_is_sent() {
    for early in [true, false] {
        let (mut session, _peer) = session();
        flush(&mut session);
        if !early {
            sent(&mut session, 1);
        }
        reply(&mut session, cookie(1, 0));
        push(&mut session);
        assert!(is_up(&session));
        reply(&mut session, cookie(1, 0));
        assert!(!is_up(&session), "early: {early}");
    }
}

#[test]
fn a_reply_with_the_cookie_of_an_earlier_request_answers_nothing() {
    let (mut session, _peer) = session();
    for generation in 1..=2 {
        flush(&mut session);
        sent(&mut session, 1);
        reply(&mut session, cookie(1, 0));
        let expected: &[_] = if generation == 1 { &[(0, 0)] } else { &[] };
        assert_eq!(answers(&mut session), expected);
    }
    assert!(!is_up(&session));
}

#[test]
fn a_flush_names_no_place_whatever_the_job_says() {
    let (mut session, _peer) = session();
    let (ours, _peer) = UnixStream::pair().unwrap();
    let mut socket = Socket::new(OwnedFd::from(ours));
    socket.agree(Headers::Extended);
    session.go_up(socket);
    let ticket = Ticket { tag: Tag::new(0), step: 0 };
    let (kind, offset, length, memory) = (StepKind::Sync, 4096, 512, ptr::null_mut());
    // SAFETY: a flush has no memory.
    unsafe { session.start(Job { ticket, kind, offset, length, memory }) };
    push(&mut session);
    let expected = Request { flags: 0, command: 3, cookie: cookie(1, 0), offset: 0, length: 0 };
    // SAFETY: where the session's headers begin, and nobody carries an entry out.
    let sent = unsafe { session.memory.base().add(receiving::BUFFER).cast::<[u8; 32]>().read() };
    assert_eq!(Request::decode_extended(&sent), Some(expected));
    session.completed(SEND, 32);
    let mut reply = EXTENDED_REPLY_MAGIC.to_be_bytes().to_vec();
    reply.extend([0, 1, 0, 0]);
    reply.extend([cookie(1, 0), 0, 0].map(u64::to_be_bytes).concat());
    receive(&mut session, &reply);
    assert_eq!(answers(&mut session), [(0, 512)]);
}

#[test]
fn a_lost_connection_lets_every_request_wait_again_once_no_entry_is_in_flight() {
    let (mut session, _peer) = session();
    flush_as(&mut session, Tag::new(0));
    sent(&mut session, 1);
    flush_as(&mut session, Tag::new(1));
    flush_as(&mut session, Tag::new(2));
    session.completed(RECEIVE, 0);
    assert!(matches!(session.link, Link::Broken { .. }), "an entry sends request 1");
    assert!(!session.is_idle() && push(&mut session).is_empty());
    session.completed(SEND, -libc::EPIPE);
    assert_eq!(push(&mut session), [NEWS]);
    let waiting: Vec<_> = std::iter::from_fn(|| session.table.next())
        .map(|(number, cookie, job)| (number, cookie >> 32, job.ticket.tag.number()))
        .collect();
    assert_eq!(waiting, [(0, 2, 0), (1, 2, 1), (2, 1, 2)], "the one never sent comes last");
    assert_eq!(answers(&mut session), []);
}

#[test]
fn a_session_is_idle_once_each_entry_has_ended() {
    let (mut session, mut peer) = session();
    assert!(session.is_idle());
    flush(&mut session);
    assert!(!session.is_idle());
    sent(&mut session, 1);
    assert!(!session.is_idle(), "an entry receives");
    reply(&mut session, cookie(1, 0));
    assert_eq!(push(&mut session), [RECEIVE]);
    session.close();
    assert!(!session.is_idle(), "an entry receives");
    peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut heard = Vec::new();
    peer.read_to_end(&mut heard).unwrap();
    assert_eq!(heard.len(), length::REQUEST, "a goodbye, and the end");
    session.completed(RECEIVE, 0);
    assert!(session.is_idle() && push(&mut session).is_empty());
    assert_eq!(answers(&mut session), [(0, 0)]);
}

#[test]
fn a_session_that_waits_for_a_connection_is_idle_once_the_poll_has_ended() {
    let (mut session, _peer) = session();
    push(&mut session);
    session.completed(RECEIVE, -libc::ECONNRESET);
    assert_eq!(push(&mut session), [NEWS]);
    session.close();
    assert!(!session.is_idle(), "a poll is in flight");
    session.completed(NEWS, 1);
    assert!(session.is_idle() && push(&mut session).is_empty());
}

#[test]
fn pauses_grow_while_no_connection_brings_a_reply() {
    let (mut session, _peer) = session();
    let lose = |session: &mut NbdSession| {
        let (ours, _peer) = UnixStream::pair().unwrap();
        session.link = Link::Up(Socket::new(OwnedFd::from(ours)));
        push(session);
        session.completed(SEND, -libc::EPIPE);
        session.completed(RECEIVE, 0);
        session.pause.as_millis()
    };
    flush(&mut session);
    let pauses: Vec<_> = (0..8).map(|_| lose(&mut session)).collect();
    assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 500, 500]);
    let (ours, _peer) = UnixStream::pair().unwrap();
    session.link = Link::Up(Socket::new(OwnedFd::from(ours)));
    push(&mut session);
    sent(&mut session, 1);
    reply(&mut session, cookie(9, 0));
    assert_eq!(session.pause, Duration::ZERO);
}

#[test]
fn no_pause_is_longer_than_a_quarter_of_the_time_for_reconnection() {
    let (mut session, _peer) = session_within(Duration::from_millis(60));
    let pauses: Vec<_> = (0..4)
        .map(|_| {
            push(&mut session);
            session.completed(RECEIVE, 0);
            let (ours, _peer) = UnixStream::pair().unwrap();
            session.link = Link::Up(Socket::new(OwnedFd::from(ours)));
            session.pause.as_millis()
        })
        .collect();
    assert_eq!(pauses, [10, 20, 30, 30], "each is twice the last pause, which was 15 ms at most");
}
