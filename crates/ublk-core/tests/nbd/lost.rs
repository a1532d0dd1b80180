//! Connections that are lost, and servers that break the protocol.

use std::sync::atomic::Ordering;
use std::time::Duration;

use ublk_core::driver::sim::{ClientOp, Sim, SimConfig};
use ublk_core::targets::Presentation;
use ublk_core::targets::nbd::{self, NbdOptions};
use ublk_nbd::Headers;
use ublk_nbd::wire::command;

use super::server::{ANY, Manners, Misdeed, Server, lock};
use super::{
    KINDS, assert_shows_disk, churn, connect, connect_within, create, end, read, shuffling, until,
    write,
};

#[test]
fn a_server_that_goes_and_comes_back_costs_no_request() {
    for seed in 0..24 {
        let (server, sim) = shuffling(seed);
        let (device, client) = create(&sim, connect(&server));
        server.state.cuts.store(20, Ordering::Relaxed);
        churn(&client, seed, |batch| match batch % 3 {
            1 => server.hang_up(),
            2 => {
                server.stop();
                server.come_back();
            }
            _ => {}
        });
        server.state.cuts.store(0, Ordering::Relaxed);
        assert_shows_disk(&client, &server, seed);
        assert!(server.state.connections.load(Ordering::Relaxed) > 2);
        end(&sim, &device, client);
    }
}

#[test]
fn a_server_that_breaks_the_protocol_costs_the_connection_and_no_request() {
    use Misdeed::{
        Chunks, Cut, DataForWrite, Ending, Endless, Garbage, HalfAReply, Hole, Noise, OtherCookie,
        OtherOffset, Outside, Overlap, Simple, TooLong, Twice, UnknownChunk, UnknownCookie,
    };
    let both = [UnknownCookie, Garbage, UnknownChunk, HalfAReply, Cut, Ending, Endless, Noise];
    let reads = [Outside, TooLong, Overlap, Twice, Simple].map(|one| (command::READ, one));
    let writes = [DataForWrite, Hole, OtherCookie, Twice].map(|one| (command::WRITE, one));
    let all = || {
        let both = both.iter().flat_map(|&one| [(command::READ, one), (command::WRITE, one)]);
        both.chain(reads).chain(writes)
    };
    let kinds = [(command::READ, Chunks(Headers::Extended))];
    assert_costs_the_connection(Headers::Structured, all().chain(kinds));
    let chunks = Chunks(Headers::Structured);
    let kinds = [OtherOffset, Simple, chunks].map(|one| (command::WRITE, one));
    let kinds = kinds.into_iter().chain([OtherOffset, chunks].map(|one| (command::READ, one)));
    assert_costs_the_connection(Headers::Extended, all().chain(kinds));
}

fn assert_costs_the_connection(headers: Headers, all: impl Iterator<Item = (u16, Misdeed)>) {
    let server = Server::new(Manners { headers, ..Manners::default() });
    let sim = Sim::new(SimConfig::blocking(7));
    let (device, client) = create(&sim, connect(&server));
    let pattern: Vec<_> = (0..16384_u32).map(|at| at.to_ne_bytes()[0]).collect();
    assert_eq!(write(&client, 0, pattern.clone()), Ok(()));
    for (command, misdeed) in all {
        let before = server.state.connections.load(Ordering::Relaxed);
        server.misbehave(command, misdeed, 1);
        match command {
            command::READ => assert!(read(&client, 0, 16384) == Ok(pattern.clone()), "{misdeed:?}"),
            _ => assert_eq!(write(&client, 0, pattern.clone()), Ok(()), "{misdeed:?}"),
        }
        until(&format!("another connection after {misdeed:?} to {command}"), || {
            server.state.connections.load(Ordering::Relaxed) > before
        });
        assert!(read(&client, 0, 16384) == Ok(pattern.clone()), "after {misdeed:?}");
    }
    end(&sim, &device, client);
}

#[test]
fn a_chunk_costs_the_connection_where_simple_replies_were_agreed_on() {
    for chunks in [Headers::Structured, Headers::Extended] {
        let server = Server::new(Manners { headers: Headers::Simple, ..Manners::default() });
        let sim = Sim::new(SimConfig::blocking(14));
        let (device, client) = create(&sim, connect(&server));
        server.misbehave(command::READ, Misdeed::Chunks(chunks), 1);
        assert_eq!(read(&client, 0, 512), Ok(vec![0; 512]));
        assert_eq!(server.state.connections.load(Ordering::Relaxed), 2);
        end(&sim, &device, client);
    }
}

#[test]
fn a_server_that_comes_back_with_other_headers_serves_on() {
    let server = Server::new(Manners::default());
    let sim = Sim::new(SimConfig::blocking(15));
    let (device, client) = create(&sim, connect(&server));
    for headers in KINDS.into_iter().chain(KINDS) {
        *lock(&server.state.offered) = headers;
        server.hang_up();
        assert_eq!(write(&client, 0, vec![headers as u8; 512]), Ok(()));
        assert_eq!(read(&client, 0, 512), Ok(vec![headers as u8; 512]));
        assert_eq!(*lock(&server.state.agreed), Some(headers));
    }
    end(&sim, &device, client);
}

#[test]
fn a_read_whose_reply_leaves_out_a_byte_fails() {
    let server = Server::new(Manners::default());
    let sim = Sim::new(SimConfig::blocking(8));
    let (device, client) = create(&sim, connect(&server));
    for length in [512, 16384] {
        server.misbehave(command::READ, Misdeed::Gap, 1);
        assert_eq!(read(&client, 0, length), Err(libc::EIO));
        assert_eq!(read(&client, 0, length), Ok(vec![0; length as usize]));
    }
    assert_eq!(server.state.connections.load(Ordering::Relaxed), 1, "nothing else is wrong");
    end(&sim, &device, client);
}

#[test]
fn requests_fail_when_the_server_stays_away_and_succeed_when_it_comes_back() {
    let server = Server::new(Manners::default());
    let sim = Sim::new(SimConfig::blocking(9));
    let (device, client) = create(&sim, connect_within(&server, Duration::from_millis(100)));
    assert_eq!(write(&client, 0, vec![1; 512]), Ok(()));
    server.stop();
    assert_eq!(read(&client, 0, 512), Err(libc::EIO));
    assert_eq!(client.run(&ClientOp::Flush).result, Err(libc::EIO), "at once");
    server.come_back();
    until("a read that succeeds", || read(&client, 0, 512) == Ok(vec![1; 512]));
    assert_eq!(client.run(&ClientOp::Flush).result, Ok(()), "nothing was lost");
    end(&sim, &device, client);
}

#[test]
fn a_device_ends_while_its_server_is_away() {
    let server = Server::new(Manners::default());
    let sim = Sim::new(SimConfig::blocking(10));
    let (device, client) = create(&sim, connect(&server));
    server.stop();
    end(&sim, &device, client);
}

#[test]
fn a_request_that_ends_every_connection_fails_after_the_timeout() {
    let server = Server::new(Manners::default());
    let sim = Sim::new(SimConfig::blocking(11));
    let (device, client) = create(&sim, connect_within(&server, Duration::from_millis(300)));
    server.misbehave(command::READ, Misdeed::Garbage, usize::MAX);
    assert_eq!(read(&client, 0, 512), Err(libc::EIO));
    until("a write that succeeds", || write(&client, 0, vec![3; 512]) == Ok(()));
    // Attempts come with pauses between.
    assert!(server.state.connections.load(Ordering::Relaxed) < 30);
    server.misbehave(u16::MAX, Misdeed::NoService, usize::MAX);
    server.hang_up();
    assert_eq!(read(&client, 0, 512), Err(libc::EIO));
    server.behave();
    until("a read that succeeds", || read(&client, 0, 512) == Ok(vec![3; 512]));
    end(&sim, &device, client);
}

/// `UBLK_GARBAGE=600` lets the server misbehave for ten minutes; a second is the default.
#[test]
fn a_hostile_server_breaks_nothing_but_requests() {
    let seconds = std::env::var("UBLK_GARBAGE").ok().and_then(|text| text.parse().ok());
    let end_of_it = std::time::Instant::now() + Duration::from_secs(seconds.unwrap_or(1));
    for seed in 0.. {
        let headers = KINDS[usize::try_from(seed).unwrap() % KINDS.len()];
        let server = Server::new(Manners { headers, seed, ..Manners::default() });
        let sim = Sim::new(SimConfig::blocking(seed));
        let (device, client) = create(&sim, connect_within(&server, Duration::from_millis(200)));
        server.misbehave(ANY, Misdeed::Anything, usize::MAX);
        let (mut good, mut bad) = (0, 0);
        for round in 0..10_u64 {
            let ops: Vec<_> = (0..8)
                .map(|place| {
                    let offset = place * 65536 + round * 512;
                    let length = 512 << ((round + place) % 7);
                    match (round + place) % 3 {
                        0 => ClientOp::Write { offset, data: vec![9; length as usize], fua: false },
                        1 => ClientOp::Read { offset, length },
                        _ => ClientOp::Flush,
                    }
                })
                .collect();
            client.finish(client.begin(&ops, false), |ended| {
                for (_, outcome) in ended {
                    if outcome.is_ok() { good += 1 } else { bad += 1 }
                }
            });
        }
        assert_eq!(good + bad, 80, "each request has ended, seed {seed}");
        server.behave();
        until("a read that succeeds", || read(&client, 0, 4096).is_ok());
        end(&sim, &device, client);
        if std::time::Instant::now() >= end_of_it {
            return;
        }
    }
}

#[test]
fn another_export_in_the_place_of_the_old_one_is_not_taken() {
    let server = Server::new(Manners::default());
    let sim = Sim::new(SimConfig::blocking(12));
    let (device, client) = create(&sim, connect_within(&server, Duration::from_millis(300)));
    let other = Server::new(Manners { size: 1 << 19, ..Manners::default() });
    server.stop();
    let path = |server: &Server| server.uri().split_once("socket=").unwrap().1.to_owned();
    std::fs::rename(path(&other), path(&server)).unwrap();
    assert_eq!(read(&client, 0, 512), Err(libc::EIO));
    assert!(lock(&other.state.log).is_empty(), "no request has reached it");
    assert!(other.state.connections.load(Ordering::Relaxed) > 0);
    end(&sim, &device, client);
}

#[test]
fn requests_fail_in_time_where_a_server_takes_connections_and_says_nothing() {
    let server = Server::new(Manners::default());
    let sim = Sim::new(SimConfig::blocking(13));
    let options = NbdOptions {
        // No attempt ends by itself.
        connect_timeout: Duration::from_secs(86_400),
        reconnect_timeout: Duration::from_millis(100),
        ..NbdOptions::default()
    };
    let target = nbd::connect(&server.uri(), options, Presentation::default()).unwrap();
    let (device, client) = create(&sim, target);
    server.stop();
    let silent = server.keep_silent();
    assert_eq!(read(&client, 0, 512), Err(libc::EIO));
    drop(silent);
    server.come_back();
    end(&sim, &device, client);
}
