//! Both ends of a channel, with and without threads.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::*;
use crate::tag::Tag;

const DEPTH: u16 = 4;

fn bridge() -> Bridge {
    Bridge::unwatched(&BridgeOptions { queues: 1, depth: DEPTH, max_pieces: 2, timeout: TICK * 8 })
        .unwrap()
}

fn silent() -> Bell {
    Box::new(|| {})
}

fn ask(number: u32) -> Ask {
    Ask { op: 0, flags: 0, length: 4096, offset: u64::from(number) << 33, whole: 4096 }
}

/// What the bridge has to tell after `ticks`.
fn told_after(bridge: &Bridge, ticks: u32) -> Vec<Report> {
    let told = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&told);
    bridge.listen(Box::new(move |report| list.lock().unwrap().push(report)));
    (0..ticks).for_each(|_| bridge.tick());
    told.lock().unwrap().clone()
}

#[test]
fn a_request_is_asked_and_answered() {
    let bridge = bridge();
    let mut port = Port::new(Arc::clone(bridge.channel(0)), silent());
    let mut peer = Peer::new(Arc::clone(bridge.channel(0)));
    assert!(
        port.ask(
            Tag::new(3),
            Ask { op: 1, flags: 2, length: 512, offset: 0x1_2345_6789, whole: 512 }
        )
    );
    assert_eq!(peer.take(), None, "not before it is flushed");
    port.flush();
    let asked = peer.take().unwrap();
    assert_eq!((asked.tag, asked.kind, asked.flags), (Tag::new(3), 1, 2));
    assert_eq!((asked.length, asked.offset), (512, 0x1_2345_6789));
    peer.answer(&asked, Err(libc::ENOSPC));
    peer.flush();
    assert_eq!(port.next(), Some((Tag::new(3), Body::Failed(libc::ENOSPC))));
    assert_eq!(port.next(), None);
}

#[test]
fn a_late_or_second_answer_is_reported_and_never_taken_for_the_next_request() {
    let bridge = bridge();
    let mut port = Port::new(Arc::clone(bridge.channel(0)), silent());
    let mut peer = Peer::new(Arc::clone(bridge.channel(0)));
    port.ask(Tag::new(0), ask(1));
    port.flush();
    let first = peer.take().unwrap();
    peer.answer(&first, Ok(()));
    peer.answer(&first, Ok(()));
    peer.flush();
    assert_eq!(port.next(), Some((Tag::new(0), Body::Done)));
    assert_eq!(port.next(), None, "the second answer finds nobody waiting");
    port.ask(Tag::new(0), ask(2));
    port.flush();
    peer.answer(&first, Ok(()));
    peer.flush();
    assert_eq!(port.next(), None, "the third is for the request before");
    let kinds: Vec<_> = told_after(&bridge, 1).iter().map(|report| report.kind).collect();
    assert_eq!(kinds, [ReportKind::Late, ReportKind::Late]);
    let second = peer.take().unwrap();
    peer.answer(&second, Ok(()));
    peer.flush();
    assert_eq!(port.next(), Some((Tag::new(0), Body::Done)));
}

#[test]
fn a_request_that_nobody_answers_is_overdue_in_time_and_only_then() {
    let bridge = bridge();
    let rung = Arc::new(AtomicUsize::new(0));
    let bell = Arc::clone(&rung);
    let count: Bell = Box::new(move || {
        bell.fetch_add(1, Ordering::Relaxed);
    });
    let mut port = Port::new(Arc::clone(bridge.channel(0)), count);
    let mut peer = Peer::new(Arc::clone(bridge.channel(0)));
    port.ask(Tag::new(1), ask(0));
    port.flush();
    peer.take().unwrap();
    peer.flush();
    (0..8).for_each(|_| bridge.tick());
    assert!(port.has_overdue() && rung.load(Ordering::Relaxed) > 0);
    assert_eq!(port.next_overdue(Tag::new(0)), None, "the first tick may have come at once");
    assert!(!port.has_overdue());
    bridge.tick();
    assert_eq!(port.next_overdue(Tag::new(0)), Some((Tag::new(1), libc::ETIMEDOUT)));
    assert_eq!(port.next_overdue(Tag::new(2)), None);
    assert_eq!(told_after(&bridge, 1)[0].kind, ReportKind::TimedOut);
}

#[test]
fn the_time_of_a_request_goes_on_while_its_bytes_are_fetched_and_its_steps_run() {
    let bridge = bridge();
    let mut port = Port::new(Arc::clone(bridge.channel(0)), silent());
    let mut peer = Peer::new(Arc::clone(bridge.channel(0)));
    port.announce(Tag::new(1), ask(0));
    (0..4).for_each(|_| bridge.tick());
    assert!(port.resume(Tag::new(1), false));
    port.flush();
    let asked = peer.take().unwrap();
    peer.steps(&asked, &[Piece::default()]);
    peer.flush();
    assert_eq!(port.next(), Some((Tag::new(1), Body::Steps(1))));
    (0..5).for_each(|_| bridge.tick());
    assert_eq!(port.next_overdue(Tag::new(0)), None, "it is not the peer's turn");
    assert!(port.resume(Tag::new(1), false));
    assert_eq!(port.next_overdue(Tag::new(0)), Some((Tag::new(1), libc::ETIMEDOUT)));
}

#[test]
fn nobody_is_asked_once_the_peer_is_gone() {
    let bridge = bridge();
    let mut port = Port::new(Arc::clone(bridge.channel(0)), silent());
    port.ask(Tag::new(2), ask(0));
    port.flush();
    bridge.abandon();
    assert!(port.has_overdue());
    assert_eq!(port.next_overdue(Tag::new(0)), Some((Tag::new(2), libc::EIO)));
    assert!(!port.ask(Tag::new(2), ask(1)));
    assert!(told_after(&bridge, 5).is_empty());
}

#[test]
fn a_peer_that_does_not_come_is_reported_once_and_so_is_its_return() {
    let bridge = bridge();
    let mut port = Port::new(Arc::clone(bridge.channel(0)), silent());
    let mut peer = Peer::new(Arc::clone(bridge.channel(0)));
    bridge.tick();
    port.ask(Tag::new(0), ask(0));
    port.flush();
    let kinds = |ticks| told_after(&bridge, ticks).iter().map(|one| one.kind).collect::<Vec<_>>();
    assert_eq!(kinds(1), []);
    assert_eq!(kinds(5), [ReportKind::Blocked]);
    peer.take().unwrap();
    peer.flush();
    assert_eq!(kinds(1), [ReportKind::Unblocked(7 * 250)]);
    assert_eq!(kinds(4), [], "it may take as long as it likes with what it has taken");
}

#[test]
fn a_peer_that_never_comes_fills_its_ring_and_is_asked_no_more() {
    let bridge = bridge();
    let mut port = Port::new(Arc::clone(bridge.channel(0)), silent());
    for number in 0..u32::from(DEPTH) * 2 {
        assert!(port.ask(Tag::new(0), ask(number)));
    }
    assert!(!port.ask(Tag::new(0), ask(0)));
}

#[test]
fn a_buffer_that_the_peer_may_still_use_is_replaced() {
    let bridge = bridge();
    bridge.channel(0).make_buffers(4096).unwrap();
    let mut port = Port::new(Arc::clone(bridge.channel(0)), silent());
    let mut peer = Peer::new(Arc::clone(bridge.channel(0)));
    let old = bridge.channel(0).buffer(Tag::new(1)).unwrap();
    let new = port.renew_buffer(Tag::new(1)).unwrap();
    assert_ne!(old.base(), new.base());
    port.ask(Tag::new(1), ask(0));
    port.ask(Tag::new(2), ask(0));
    port.flush();
    assert_eq!((peer.take().unwrap().epoch, peer.take().unwrap().epoch), (1, 0));
}

/// Random batches, with ends that sleep whenever they may; a wake-up that is lost hangs it.
fn converse(peer_waits: impl Fn(&mut Peer) + Sync) {
    const COUNT: u32 = 30_000;
    let bridge = bridge();
    let channel = bridge.channel(0);
    let reactor = thread::current();
    let mut port = Port::new(Arc::clone(channel), Box::new(move || reactor.unpark()));
    thread::scope(|scope| {
        let answering = scope.spawn(|| {
            let mut peer = Peer::new(Arc::clone(channel));
            let mut answered = 0;
            while answered < COUNT {
                while let Some(asked) = peer.take() {
                    peer.answer(&asked, Err((asked.offset >> 33) as i32 + 1));
                    answered += 1;
                    if asked.offset.is_multiple_of(3) {
                        peer.flush();
                    }
                }
                peer.flush();
                if answered < COUNT {
                    peer_waits(&mut peer);
                }
            }
        });
        let target = answering.thread().clone();
        channel.attach_peer(Box::new(move || target.unpark()));
        let mut free: Vec<_> = Tag::all(DEPTH).collect();
        let (mut asked, mut seen) = (0, HashSet::new());
        while seen.len() < COUNT as usize {
            port.awake();
            while let Some((tag, Body::Failed(number))) = port.next() {
                assert!(seen.insert(number), "{number} answered twice");
                free.push(tag);
            }
            port.answered();
            while asked < COUNT
                && let Some(tag) = free.pop()
            {
                assert!(port.ask(tag, ask(asked)));
                asked += 1;
            }
            port.flush();
            if port.may_sleep() && seen.len() < COUNT as usize {
                thread::park();
            }
        }
    });
}

#[test]
fn ends_that_sleep_in_their_event_loop_lose_no_wake_up() {
    converse(|peer| {
        if peer.may_sleep() {
            thread::park();
        }
    });
}

#[test]
fn ends_that_sleep_in_a_call_lose_no_wake_up() {
    let timeouts = AtomicU32::new(0);
    converse(|peer| {
        if !peer.wait(Duration::from_secs(20)) {
            timeouts.fetch_add(1, Ordering::Relaxed);
        }
    });
    assert_eq!(timeouts.into_inner(), 0);
}

#[test]
fn who_looks_in_vain_for_long_sleeps_at_once_and_finds_what_comes() {
    let bridge = bridge();
    let channel = bridge.channel(0);
    let mut port = Port::new(Arc::clone(channel), silent());
    let mut sleeper = Sleeper::new(Arc::clone(channel), Duration::from_micros(50));
    assert!(!sleeper.wait(Duration::from_micros(50)));
    port.ask(Tag::new(1), ask(0));
    port.flush();
    assert!(sleeper.look() && sleeper.wait(Duration::from_secs(20)));
    let mut never = Sleeper::new(Arc::clone(channel), Duration::ZERO);
    assert!(!never.look() && never.wait(Duration::from_secs(20)));
}
