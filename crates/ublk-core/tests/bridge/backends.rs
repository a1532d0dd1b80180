//! Requests whose bytes are on backends.

use std::sync::atomic::{AtomicU64, Ordering};

use ublk_core::bridge::Piece;
use ublk_core::bridge::layout::{KIND_STEPPED, NOT_BEGUN};
use ublk_core::driver::sim::Trouble;
use ublk_core::targets::delay::{Delay, Delays};
use ublk_core::targets::error::AlwaysFails;
use ublk_core::targets::striped::Striped;

use super::*;

const EIO: u32 = libc::EIO.cast_unsigned();

const MODES: [(BufferMode, bool); 4] = [
    (BufferMode::Auto, false),
    (BufferMode::Register, false),
    (BufferMode::Register, true),
    (BufferMode::Copy, false),
];

/// Halves of each request on one disk each.
fn halves(asked: &Asked) -> [Piece; 2] {
    let half = asked.length / 2;
    let piece = |backend, at, length| Piece {
        backend,
        op: asked.kind.into(),
        at,
        length,
        offset: asked.offset + u64::from(at),
    };
    [piece(0, 0, half), piece(1, half, asked.length - half)]
}

#[test]
fn a_plan_puts_bytes_where_it_says_in_each_buffer_mode() {
    for (mode, split_register) in MODES {
        let sim = Sim::new(SimConfig::blocking(3));
        let disks = [sim.file(SIZE), sim.file(SIZE)];
        let bridge = bridge(Duration::from_secs(60));
        let target = target(&bridge, &[Op::Read, Op::Write], &disks);
        let _answering = Answering::start(&bridge, |peer, asked| peer.plan(asked, &halves(asked)));
        let options = DeviceOptions { split_register, ..options(mode) };
        serve(&sim, target, options, assert_serves);
        assert_eq!(disks[0].contents()[..8192], [[1; 4096], [0; 4096]].concat());
        assert_eq!(disks[1].contents()[..8192], [[0; 4096], [1; 4096]].concat());
        assert_eq!(disks[0].durable(), disks[0].contents(), "a flush reaches the backends");
    }
}

#[test]
fn steps_run_one_after_another_in_each_buffer_mode() {
    for (mode, split_register) in MODES {
        let sim = Sim::new(SimConfig::blocking(4));
        let disks = [sim.file(SIZE), sim.file(SIZE)];
        let bridge = bridge(Duration::from_secs(60));
        let target = target(&bridge, &[Op::Read, Op::Write], &disks);
        let rounds: [AtomicU64; DEPTH as usize * 2] = Default::default();
        // A mirror, one disk after the other.
        let _answering = Answering::start(&bridge, move |peer, asked| {
            let slot = usize::from(peer.channel().queue() * DEPTH) + asked.tag.index();
            let round = if u32::from(asked.kind) == KIND_STEPPED {
                assert_eq!(peer.results(asked, 1).next(), Some(0));
                rounds[slot].fetch_add(1, Ordering::Relaxed) + 1
            } else {
                rounds[slot].store(u64::from(asked.kind) << 8, Ordering::Relaxed);
                u64::from(asked.kind) << 8
            };
            let (op, round) = ((round >> 8) as u32, round & 0xff);
            if round == if op == u32::from(WRITE) { 2 } else { 1 } {
                return peer.answer(asked, Ok(()));
            }
            let (length, offset) = (asked.length, asked.offset);
            peer.steps(asked, &[Piece { backend: round as u32, op, at: 0, length, offset }]);
        });
        let options = DeviceOptions { split_register, ..options(mode) };
        serve(&sim, target, options, assert_serves);
        assert_eq!(disks[0].contents(), disks[1].contents());
    }
}

#[test]
fn a_step_that_fails_tells_and_the_request_goes_on() {
    for (mode, split_register) in MODES {
        let sim = Sim::new(SimConfig::blocking(5));
        let disks = [sim.file(SIZE), sim.file(SIZE)];
        disks[0].set_trouble(Trouble { reads: Some(libc::EIO), ..Trouble::default() });
        let bridge = bridge(Duration::from_secs(60));
        let target = target(&bridge, &[Op::Read, Op::Write], &disks);
        let _answering = Answering::start(&bridge, |peer, asked| {
            let piece = |backend, asked: &Asked| {
                let (length, offset) = (asked.length, asked.offset);
                Piece { backend, op: READ.into(), at: 0, length, offset }
            };
            if u32::from(asked.kind) == KIND_STEPPED {
                assert_eq!(peer.results(asked, 1).next(), Some(EIO));
                peer.plan(asked, &[piece(1, asked)]);
            } else {
                peer.steps(asked, &[piece(0, asked)]);
            }
        });
        let options = DeviceOptions { split_register, ..options(mode) };
        serve(&sim, target, options, |client| {
            let read = client.run(&ClientOp::Read { offset: 0, length: 4096 });
            assert_eq!((read.result, read.data), (Ok(()), vec![0; 4096]));
        });
    }
}

/// The kernel refuses it where it lends pages. In memory of the server's nothing else would: the
/// backend's bytes took the place of the client's before these were stored.
#[test]
fn a_step_against_the_way_of_its_request_is_refused_in_each_buffer_mode() {
    let copying = [BufferMode::UserCopy, BufferMode::GetData].map(|mode| (mode, false));
    for (mode, split_register) in MODES.into_iter().chain(copying) {
        let sim = Sim::new(SimConfig::blocking(5));
        let disks = [sim.file(SIZE), sim.file(SIZE)];
        disks[0].store(0, &[9; 4096]);
        let bridge = bridge(Duration::from_secs(60));
        let target = target(&bridge, &[Op::Read, Op::Write], &disks);
        let _answering = Answering::start(&bridge, |peer, asked| {
            let (length, offset) = (asked.length, asked.offset);
            let piece = |backend, op: u8| Piece { backend, op: op.into(), at: 0, length, offset };
            if u32::from(asked.kind) != KIND_STEPPED {
                let other = if asked.kind == READ { WRITE } else { READ };
                // A write reads disk 0; a read, at another place, writes to it.
                return peer.steps(asked, &[piece(0, other)]);
            }
            let refused = peer.results(asked, 1).next() == Some(libc::EINVAL.cast_unsigned());
            match (refused, offset) {
                (false, _) => peer.answer(asked, Err(libc::EBADMSG)),
                (true, 0) => peer.plan(asked, &[piece(1, WRITE)]),
                (true, _) => peer.plan(asked, &[piece(1, READ)]),
            }
        });
        let options = DeviceOptions { split_register, ..options(mode) };
        serve(&sim, target, options, |client| {
            let write = ClientOp::Write { offset: 0, data: vec![7; 4096], fua: false };
            assert_eq!(client.run(&write).result, Ok(()), "{mode}");
            let read = client.run(&ClientOp::Read { offset: 4096, length: 4096 });
            assert_eq!((read.result, read.data), (Ok(()), vec![0; 4096]), "{mode}");
        });
        assert_eq!(disks[1].contents()[..4096], [7; 4096], "the client's bytes, {mode}");
        assert_eq!(disks[0].contents()[..8192], [[9; 4096], [0; 4096]].concat(), "{mode}");
    }
}

#[test]
fn of_steps_that_run_together_each_has_its_own_result() {
    for (mode, split_register) in MODES {
        let sim = Sim::new(SimConfig::blocking(10));
        let disks = [sim.file(SIZE), sim.file(SIZE)];
        disks[0].set_trouble(Trouble { writes: Some(libc::EIO), ..Trouble::default() });
        let bridge = bridge(Duration::from_secs(60));
        let delays = Delays { write: 1000, ..Delays::default() };
        let backends = vec![
            Native::File(file(&disks[0])),
            Native::File(file(&disks[1])),
            Native::Delay(Delay::new(Native::File(file(&disks[1])), delays)),
            Native::Error(AlwaysFails::new(SIZE as u64)),
        ];
        let target = handler(&bridge, &[Op::Read, Op::Write], backends);
        let heard = Arc::new(Mutex::new(Vec::new()));
        let results = Arc::clone(&heard);
        let _answering = Answering::start(&bridge, move |peer, asked| {
            if u32::from(asked.kind) == KIND_STEPPED {
                results.lock().unwrap().extend(peer.results(asked, 4));
                return peer.answer(asked, Ok(()));
            }
            let (op, length) = (WRITE.into(), asked.length);
            let piece = |backend| Piece { backend, op, at: 0, length, offset: 0 };
            peer.steps(asked, &[piece(0), piece(1), piece(2), piece(3)]);
        });
        let options = DeviceOptions { split_register, ..options(mode) };
        serve(&sim, target, options, |client| {
            let write = ClientOp::Write { offset: 0, data: vec![7; 4096], fua: false };
            assert_eq!(client.run(&write).result, Ok(()));
        });
        assert_eq!(*heard.lock().unwrap(), [EIO, 0, NOT_BEGUN, EIO], "{mode}");
        assert_eq!(disks[1].contents()[..4096], [7; 4096]);
    }
}

/// The bytes of a long request, each block another.
fn blocks(count: u8) -> Vec<u8> {
    (1..=count).flat_map(|block| [block; 4096]).collect()
}

/// Two disks in stripes of 4 KiB, so that a plan of this handler holds 8 blocks.
fn striped(bridge: &Arc<Bridge>, disks: &[SimDisk]) -> Handler {
    let files = disks.iter().map(|disk| Native::File(file(disk))).collect();
    let stripes = Native::Striped(Striped::new(files, 4096).unwrap());
    handler(bridge, &[Op::Read, Op::Write], vec![stripes])
}

#[test]
fn a_piece_on_more_stripes_than_a_plan_has_steps_is_done_as_a_whole() {
    const LENGTH: u32 = 12 * 4096;
    for (mode, split_register) in MODES {
        for steps in [false, true] {
            let sim = Sim::new(SimConfig::blocking(11));
            let disks = [sim.file(SIZE), sim.file(SIZE)];
            let bridge = bridge(Duration::from_secs(60));
            let target = striped(&bridge, &disks);
            let _answering = Answering::start(&bridge, move |peer, asked| {
                let (length, offset) = (asked.length, asked.offset);
                let piece = |op: u8| [Piece { backend: 0, op: op.into(), at: 0, length, offset }];
                if u32::from(asked.kind) == KIND_STEPPED {
                    assert_eq!(peer.results(asked, 1).next(), Some(0));
                    return peer.answer(asked, Ok(()));
                }
                match steps {
                    true => peer.steps(asked, &piece(asked.kind)),
                    false => peer.plan(asked, &piece(asked.kind)),
                }
            });
            let options = DeviceOptions { split_register, ..options(mode) };
            serve(&sim, target, options, |client| {
                let write = ClientOp::Write { offset: 4096, data: blocks(12), fua: false };
                assert_eq!(client.run(&write).result, Ok(()), "{mode}");
                let read = client.run(&ClientOp::Read { offset: 4096, length: LENGTH });
                assert_eq!((read.result, read.data), (Ok(()), blocks(12)), "{mode}");
            });
        }
    }
}

#[test]
fn a_failure_in_the_midst_of_such_a_piece_ends_its_request_or_is_the_result_of_its_step() {
    for steps in [false, true] {
        let sim = Sim::new(SimConfig::blocking(12));
        let disks = [sim.file(SIZE), sim.file(SIZE)];
        disks[1].set_trouble(Trouble { writes: Some(libc::EIO), ..Trouble::default() });
        let bridge = bridge(Duration::from_secs(60));
        let target = striped(&bridge, &disks);
        let heard = Arc::new(Mutex::new(Vec::new()));
        let results = Arc::clone(&heard);
        let _answering = Answering::start(&bridge, move |peer, asked| {
            let piece = |at, blocks: u32| {
                let (op, length, offset) = (WRITE.into(), blocks * 4096, u64::from(at));
                Piece { backend: 0, op, at, length, offset }
            };
            let pieces = [piece(0, 12), piece(0, 1)];
            if u32::from(asked.kind) == KIND_STEPPED {
                results.lock().unwrap().extend(peer.results(asked, 2));
                return peer.answer(asked, Err(libc::ENOSPC));
            }
            if steps { peer.steps(asked, &pieces) } else { peer.plan(asked, &pieces) }
        });
        serve(&sim, target, options(BufferMode::Copy), |client| {
            let write = ClientOp::Write { offset: 0, data: blocks(12), fua: false };
            let expected = if steps { libc::ENOSPC } else { libc::EIO };
            assert_eq!(client.run(&write).result, Err(expected));
        });
        let expected: &[u32] = if steps { &[EIO, NOT_BEGUN] } else { &[] };
        assert_eq!(*heard.lock().unwrap(), expected);
    }
}

#[test]
fn a_plan_that_does_not_fit_fails_its_request_and_is_reported() {
    let sim = Sim::new(SimConfig::blocking(6));
    let disks = [sim.file(SIZE), sim.file(SIZE)];
    let bridge = bridge(Duration::from_secs(60));
    let target = target(&bridge, &[Op::Read], &disks);
    let _answering = Answering::start(&bridge, |peer, asked| peer.plan(asked, &halves(asked)[..1]));
    let reports = listen(&bridge);
    let device = Device::create(&sim, target, options(BufferMode::Auto)).unwrap();
    let client = sim.client(device.info().id).unwrap();
    let read = client.run(&ClientOp::Read { offset: 0, length: 4096 });
    assert_eq!(read.result, Err(libc::EIO));
    bridge.tick();
    assert!(matches!(reports.lock().unwrap()[0].kind, ReportKind::Misfit(_)));
}
