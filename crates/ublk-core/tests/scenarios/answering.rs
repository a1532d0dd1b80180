//! Who answers beyond a bridge: one that takes its time, cuts requests in pieces, or runs steps
//! before it says that it is done.

use std::collections::HashMap;
use std::time::Duration;

use ublk_core::bridge::{Asked, Bridge, BridgeOptions, Peer, Piece, layout};
use ublk_core::driver::sim::Rng;
use ublk_core::target::Op;

use crate::scenario::{SECTOR, Scenario};

const MAX_PIECES: u8 = 4;

/// A bridge without a clock: nothing is overdue.
pub(crate) fn bridge(scenario: &Scenario) -> Bridge {
    let (queues, depth) = (scenario.queues, scenario.depth);
    let (timeout, grace) = (Duration::from_secs(30), Duration::from_secs(5));
    let options = BridgeOptions { queues, depth, max_pieces: MAX_PIECES, timeout, grace };
    Bridge::unwatched(&options).unwrap()
}

/// The answering ends of a device's queues.
pub(crate) struct Answering {
    peers: Vec<Peer>,
    /// What has been asked and not been answered, by queue.
    asked: Vec<(usize, Asked)>,
    /// What each tag is asked for, while its steps run.
    kinds: HashMap<(usize, u16), u8>,
}

impl Answering {
    pub(crate) fn new(bridge: &Bridge) -> Self {
        let peers = bridge.channels().iter().map(|channel| Peer::new(channel.clone())).collect();
        Self { peers, asked: Vec::new(), kinds: HashMap::new() }
    }

    /// Answers some of what it is asked, in any order, but something at least. Whether it was asked.
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
        }
        for peer in &mut self.peers {
            peer.flush();
            // It may go to sleep, and must be woken then.
            peer.may_sleep();
        }
        true
    }

    fn answer_one(&mut self, queue: usize, asked: &Asked, rng: &mut Rng) {
        let peer = &mut self.peers[queue];
        if u32::from(asked.kind) != layout::KIND_STEPPED {
            let pieces = cut(asked, asked.kind, rng);
            if rng.chance(300) {
                self.kinds.insert((queue, asked.tag), asked.kind);
                peer.steps(asked, &pieces);
            } else {
                peer.plan(asked, &pieces);
            }
            return;
        }
        let kind = self.kinds[&(queue, asked.tag)];
        match asked.errno {
            0 if rng.chance(300) => peer.steps(asked, &cut(asked, kind, rng)),
            0 => peer.answer(asked, Ok(())),
            _ if rng.chance(500) => peer.plan(asked, &cut(asked, kind, rng)),
            errno => peer.answer(asked, Err(errno)),
        }
    }
}

/// Pieces that a request is made of, in any order, all where they are on the device.
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
