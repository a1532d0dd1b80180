//! The peer beyond a bridge: answers requests late and in any order, cuts requests in pieces, or has the
//! engine run steps before the answer.

use std::collections::HashMap;
use std::time::Duration;

use ublk_core::bridge::{Asked, Bridge, BridgeOptions, Peer, Piece, layout};
use ublk_core::driver::sim::Rng;
use ublk_core::tag::Tag;
use ublk_core::targets::Op;

use crate::scenario::{SECTOR, Scenario};

const MAX_PIECES: u8 = 4;

/// A bridge without a clock, so no request is overdue.
pub(crate) fn bridge(scenario: &Scenario) -> Bridge {
    let (queues, depth) = (scenario.queues, scenario.depth);
    let timeout = Duration::from_secs(30);
    let options = BridgeOptions { queues, depth, max_pieces: MAX_PIECES, timeout };
    Bridge::unwatched(&options).unwrap()
}

/// The answering ends of a device's queues.
pub(crate) struct Answering {
    peers: Vec<Peer>,
    /// Questions without an answer, by queue.
    asked: Vec<(usize, Asked)>,
    /// The question of each tag whose steps run, and the number of the steps.
    stepping: HashMap<(usize, Tag), (u8, u32)>,
}

impl Answering {
    pub(crate) fn new(bridge: &Bridge) -> Self {
        let peers = bridge.channels().iter().map(|channel| Peer::new(channel.clone())).collect();
        Self { peers, asked: Vec::new(), stepping: HashMap::new() }
    }

    /// Answers some questions in any order, at least one. Returns whether there was a question.
    pub(crate) fn answer(&mut self, rng: &mut Rng) -> bool {
        for (queue, peer) in self.peers.iter_mut().enumerate() {
            while let Some(asked) = peer.take() {
                self.asked.push((queue, asked));
            }
        }
        if self.asked.is_empty() {
            return false;
        }
        for _ in 0..=rng.index(self.asked.len()) {
            let (queue, asked) = self.asked.swap_remove(rng.index(self.asked.len()));
            self.answer_one(queue, &asked, rng);
            if rng.chance(300) {
                self.peers[queue].flush_past();
            }
        }
        for peer in &mut self.peers {
            peer.flush();
            // The peer may go to sleep, and the bridge must wake the peer.
            peer.may_sleep();
        }
        true
    }

    fn answer_one(&mut self, queue: usize, asked: &Asked, rng: &mut Rng) {
        let peer = &mut self.peers[queue];
        if u32::from(asked.kind) != layout::KIND_STEPPED {
            match rng.chance(300) {
                true => self.step(queue, asked, asked.kind, rng),
                false if rng.chance(300) => peer.remap(asked, 0, asked.offset),
                false => peer.plan(asked, &cut(asked, asked.kind, rng)),
            }
            return;
        }
        let (kind, steps) = self.stepping[&(queue, asked.tag)];
        let failed = peer.results(asked, steps).find(|&errno| errno != 0);
        match failed {
            None if rng.chance(300) => self.step(queue, asked, kind, rng),
            None => peer.answer(asked, Ok(())),
            Some(_) if rng.chance(250) => peer.remap(asked, 0, asked.offset),
            Some(_) if rng.chance(300) => peer.plan(asked, &cut(asked, kind, rng)),
            Some(errno) => peer.answer(asked, Err(errno.cast_signed())),
        }
    }

    fn step(&mut self, queue: usize, asked: &Asked, kind: u8, rng: &mut Rng) {
        let pieces = cut(asked, kind, rng);
        let count = u32::try_from(pieces.len()).unwrap();
        self.stepping.insert((queue, asked.tag), (kind, count));
        self.peers[queue].steps(asked, &pieces);
    }
}

/// Pieces of a request, in any order; each piece has the same offset on the disk as on the device.
fn cut(asked: &Asked, kind: u8, rng: &mut Rng) -> Vec<Piece> {
    let op = Op::of(kind).unwrap();
    let sectors = asked.length as usize / SECTOR;
    let mut ends: Vec<_> =
        (1..MAX_PIECES).map(|_| 1 + rng.index(sectors)).chain([sectors]).collect();
    ends.sort_unstable();
    ends.dedup();
    let mut from = 0;
    let mut pieces: Vec<_> = ends
        .into_iter()
        .map(|end| {
            let at = u32::try_from(from * SECTOR).unwrap();
            let length = u32::try_from((end - from) * SECTOR).unwrap();
            from = end;
            let offset = asked.offset + u64::from(at);
            Piece { backend: 0, op: op.number().into(), at, length, offset }
        })
        .collect();
    if rng.chance(300) {
        pieces.reverse();
    }
    pieces
}
