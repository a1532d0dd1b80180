//! Devices on NBD servers, on the simulated kernel, with servers in this process.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ublk_core::device::{BufferMode, Device, DeviceOptions};
use ublk_core::driver::sim::{Client, ClientOp, Faults, Sim, SimConfig};
use ublk_core::error::{Code, Error};
use ublk_core::targets::OnRemote;
use ublk_core::targets::nbd::{self, NbdOptions};
use ublk_core::targets::{Presentation, Target};
use ublk_nbd::Headers;
use ublk_nbd::wire::{command, export, flag};

use common::{assert_nothing_left, assert_serves};
use server::{ALL, Manners, Misdeed, Server, is_durable, lock};

#[path = "../common/mod.rs"]
#[allow(dead_code)]
mod common;
mod extents;
mod lost;
mod mute;
mod server;

/// The headers that a server may offer.
const KINDS: [Headers; 3] = [Headers::Simple, Headers::Structured, Headers::Extended];

fn connect(server: &Server) -> OnRemote {
    connect_within(server, Duration::from_secs(20))
}

fn connect_within(server: &Server, reconnect_timeout: Duration) -> OnRemote {
    let options = NbdOptions { reconnect_timeout, ..NbdOptions::default() };
    nbd::connect(&server.uri(), options, Presentation::default()).unwrap()
}

fn options() -> DeviceOptions {
    DeviceOptions { queues: 1, ..common::options() }
}

fn create(sim: &Sim, target: OnRemote) -> (Device<Sim>, Client) {
    let device = Device::create(sim, target, options()).unwrap();
    let client = sim.client(device.info().id).unwrap();
    (device, client)
}

fn end(sim: &Sim, device: &Device<Sim>, client: Client) {
    drop(client);
    device.close().unwrap();
    assert_nothing_left(sim, device.info().id);
}

fn read(client: &Client, offset: u64, length: u32) -> Result<Vec<u8>, i32> {
    let done = client.run(&ClientOp::Read { offset, length });
    done.result.map(|()| done.data)
}

fn write(client: &Client, offset: u64, data: Vec<u8>) -> Result<(), i32> {
    client.run(&ClientOp::Write { offset, data, fua: false }).result
}

/// A server that sends replies in any order and in pieces, and a kernel that sends and receives in parts.
fn shuffling(seed: u64) -> (Server, Sim) {
    let headers = KINDS[usize::try_from(seed).unwrap() % KINDS.len()];
    let server = Server::new(Manners { shuffles: true, headers, seed, ..Manners::default() });
    let faults = Faults { short: 300, submit: 100, full: 100, ..Faults::none() };
    (server, Sim::new(SimConfig { faults, ..SimConfig::blocking(seed) }))
}

/// A client reads the bytes on the server's disk.
fn assert_shows_disk(client: &Client, server: &Server, seed: u64) {
    let disk = lock(&server.state.disk).clone();
    for (number, piece) in disk.chunks(64 << 10).enumerate() {
        let offset = number as u64 * (64 << 10);
        assert_eq!(read(client, offset, 64 << 10).as_deref(), Ok(piece), "{seed}");
    }
}

#[test]
fn a_server_carries_out_every_operation() {
    for headers in KINDS {
        let server = Server::new(Manners { headers, ..Manners::default() });
        let sim = Sim::new(SimConfig::blocking(1));
        let (device, client) = create(&sim, connect(&server));
        assert_eq!(device.buffers().mode, BufferMode::Copy);
        assert_eq!(*lock(&server.state.agreed), Some(headers));
        assert_serves(&client);
        assert_eq!(lock(&server.state.disk)[..8192], [1; 8192]);
        let zeroes = |no_unmap| ClientOp::WriteZeroes { offset: 4096, length: 4096, no_unmap };
        lock(&server.state.log).clear();
        assert_eq!(client.run(&zeroes(true)).result, Ok(()));
        assert_eq!(client.run(&zeroes(false)).result, Ok(()));
        assert_eq!(client.run(&ClientOp::Discard { offset: 8192, length: 4096 }).result, Ok(()));
        assert_eq!(client.run(&ClientOp::Flush).result, Ok(()));
        let fua = ClientOp::Write { offset: 0, data: vec![7; 512], fua: true };
        assert_eq!(client.run(&fua).result, Ok(()));
        assert_eq!(
            *lock(&server.state.log),
            [
                (command::WRITE_ZEROES, flag::NO_HOLE),
                (command::WRITE_ZEROES, 0),
                (command::TRIM, 0),
                (command::FLUSH, 0),
                (command::WRITE, flag::FUA)
            ]
        );
        let mut expected = vec![7; 512];
        expected.extend([1; 4096 - 512]);
        expected.extend([0; 4096]);
        expected.extend([0xee; 4096]);
        assert_eq!(read(&client, 0, 12288), Ok(expected));
        end(&sim, &device, client);
    }
}

#[test]
fn each_buffer_mode_with_an_address_serves_and_the_others_are_refused() {
    use BufferMode::{Auto, Copy, GetData, Register, UserCopy};
    let server = Server::new(Manners::default());
    for mode in [Copy, GetData, UserCopy] {
        let sim = Sim::new(SimConfig::blocking(2));
        let options = DeviceOptions { buffers: vec![mode], ..common::options() };
        let device = Device::create(&sim, connect(&server), options).unwrap();
        let client = sim.client(device.info().id).unwrap();
        assert_serves(&client);
        end(&sim, &device, client);
    }
    for mode in [Auto, Register] {
        let sim = Sim::new(SimConfig::blocking(2));
        let options = DeviceOptions { buffers: vec![mode], ..options() };
        let error = Device::create(&sim, connect(&server), options).unwrap_err();
        let message = format!(
            "{} and buffers '{mode}' exclude each other",
            connect(&server).remotes()[0].name()
        );
        assert_eq!((error.code, error.message), (Code::InvalidArgument, message));
        assert!(sim.client(0).is_err());
    }
}

#[test]
fn several_queues_need_a_server_that_takes_several_connections() {
    let server = Server::new(Manners::default());
    let sim = Sim::new(SimConfig::blocking(3));
    let device = Device::create(&sim, connect(&server), common::options()).unwrap();
    let client = sim.client(device.info().id).unwrap();
    assert_serves(&client);
    assert_eq!(server.state.connections.load(Ordering::Relaxed), 2);
    end(&sim, &device, client);

    let flags = ALL & !export::CAN_MULTI_CONN;
    let server = Server::new(Manners { flags, ..Manners::default() });
    let error = Device::create(&sim, connect(&server), common::options()).unwrap_err();
    assert!(error.message.ends_with(" and queues 2 exclude each other"), "{error}");
    assert!(error.hint.unwrap().contains("CAN_MULTI_CONN"));
}

#[test]
fn replies_come_in_any_order_and_in_any_pieces() {
    for seed in 0..24 {
        let (server, sim) = shuffling(seed);
        let (device, client) = create(&sim, connect(&server));
        churn(&client, seed, |_| {});
        assert_shows_disk(&client, &server, seed);
        end(&sim, &device, client);
    }
}

/// Writes and reads of all lengths at once, compared with a model; `between` comes between batches.
fn churn(client: &Client, seed: u64, mut between: impl FnMut(usize)) {
    let mut state = seed.wrapping_add(99);
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    let mut model = vec![0_u8; 1 << 20];
    for batch in 0..12 {
        between(batch);
        // At different places, so the order changes nothing.
        let ops: Vec<_> = (0..8_u64)
            .map(|place| {
                let length = 512 * (1 + random(200));
                let offset = place * (128 << 10) + 512 * random(256 - length / 512);
                let byte = u8::try_from(random(4)).unwrap();
                (offset, u32::try_from(length).unwrap(), random(2) == 0, byte)
            })
            .collect();
        let op = |&(offset, length, writes, byte): &(u64, u32, bool, u8)| match writes {
            true => ClientOp::Write { offset, data: vec![byte; length as usize], fua: byte == 1 },
            false => ClientOp::Read { offset, length },
        };
        let transfers = client.begin(&ops.iter().map(op).collect::<Vec<_>>(), false);
        let mut outcomes = vec![None; ops.len()];
        client.finish(transfers, |ended| {
            for (at, outcome) in ended {
                outcomes[at] = Some(outcome);
            }
        });
        for ((offset, length, writes, byte), outcome) in ops.into_iter().zip(outcomes) {
            let begin = usize::try_from(offset).unwrap();
            let range = &mut model[begin..begin + length as usize];
            let data =
                outcome.unwrap().unwrap_or_else(|errno| panic!("seed {seed}: errno {errno}"));
            if writes {
                range.fill(byte);
            } else {
                assert!(data == range, "seed {seed}: {length} bytes at {offset}");
            }
        }
    }
}

#[test]
fn facts_of_the_server_become_the_device() {
    let flags = export::HAS_FLAGS;
    let blocks = Some([4096, 16384, 128 << 10]);
    let server =
        Server::new(Manners { size: (1 << 20) + 512, flags, blocks, ..Manners::default() });
    let target = connect(&server);
    let geometry = target.geometry();
    assert_eq!(geometry.validate(), Ok(()));
    assert_eq!((geometry.size, geometry.logical_block), (1 << 20, 4096));
    assert_eq!((geometry.physical_block, geometry.chunk), (16384, 128 << 10));
    assert!(geometry.discard.is_none() && !geometry.volatile_cache && !geometry.fua);

    let geometry = *connect(&Server::new(Manners::default())).geometry();
    assert_eq!((geometry.logical_block, geometry.physical_block, geometry.chunk), (512, 4096, 0));
    assert!(geometry.discard.is_some() && geometry.volatile_cache && geometry.fua);

    let flags = ALL | export::READ_ONLY | export::ROTATIONAL;
    let server = Server::new(Manners { flags, ..Manners::default() });
    let connect = |read_only| {
        let asked = Presentation { read_only, logical_block: None };
        nbd::connect(&server.uri(), NbdOptions::default(), asked)
    };
    let error = connect(false).unwrap_err();
    assert_eq!((error.code, error.hint.is_some()), (Code::Permission, true));
    let geometry = *connect(true).unwrap().geometry();
    assert!(geometry.read_only && geometry.rotational && geometry.discard.is_none());
}

#[test]
fn servers_that_no_device_can_have_are_refused() {
    let refused = |manners: Manners| {
        let server = Server::new(manners);
        nbd::connect(&server.uri(), NbdOptions::default(), Presentation::default()).unwrap_err()
    };
    let error = refused(Manners { size: 100, ..Manners::default() });
    assert!(error.message.ends_with("holds 100 bytes, less than a block"), "{error}");
    let error = refused(Manners { blocks: Some([8192, 8192, 1 << 20]), ..Manners::default() });
    assert!(error.message.ends_with("has blocks of 8192 bytes, more than 4096"), "{error}");
    let nobody = |uri: &str| -> Error {
        nbd::connect(uri, NbdOptions::default(), Presentation::default()).unwrap_err()
    };
    let error = nobody("nbd+unix:///?socket=/nowhere/at/all");
    assert_eq!((error.code, error.errno), (Code::NoBackend, Some(libc::ENOENT)), "{error}");
    assert_eq!(nobody("nbd://127.0.0.1:1/").errno, Some(libc::ECONNREFUSED));
    assert_eq!(nobody("nbds://127.0.0.1/").code, Code::InvalidArgument);
}

#[test]
fn errors_of_the_server_are_errors_of_requests() {
    for headers in KINDS {
        let server = Server::new(Manners { headers, ..Manners::default() });
        let sim = Sim::new(SimConfig::blocking(5));
        let (device, client) = create(&sim, connect(&server));
        for (error, errno) in
            [(5, libc::EIO), (28, libc::ENOSPC), (75, libc::EIO), (9999, libc::EIO)]
        {
            server.misbehave(command::WRITE, Misdeed::Fails(error), 1);
            assert_eq!(write(&client, 0, vec![1; 512]), Err(errno), "{error}");
            server.misbehave(command::READ, Misdeed::Fails(error), 1);
            assert_eq!(read(&client, 0, 512), Err(errno), "{error}");
        }
        assert_eq!(read(&client, 0, 512), Ok(vec![0; 512]));
        // The first connection has lasted.
        assert_eq!(server.state.connections.load(Ordering::Relaxed), 1);
        end(&sim, &device, client);
    }
}

#[test]
fn after_a_failed_flush_no_flush_succeeds() {
    let server = Server::new(Manners::default());
    let sim = Sim::new(SimConfig::blocking(6));
    let (device, client) = create(&sim, connect(&server));
    assert_eq!(write(&client, 0, vec![1; 512]), Ok(()));
    assert_eq!(client.run(&ClientOp::Flush).result, Ok(()));
    server.misbehave(command::FLUSH, Misdeed::Fails(5), 1);
    assert_eq!(client.run(&ClientOp::Flush).result, Err(libc::EIO));
    assert_eq!(client.run(&ClientOp::Flush).result, Err(libc::EIO));
    let fua = ClientOp::Write { offset: 0, data: vec![7; 512], fua: true };
    assert_eq!(client.run(&fua).result, Err(libc::EIO));
    assert!(lock(&server.state.log).iter().any(|&entry| is_durable(entry)), "it was tried");
    assert_eq!(write(&client, 0, vec![1; 512]), Ok(()));
    end(&sim, &device, client);
}

/// Waits for an event that comes at once unless a thread hangs.
fn until(what: &str, has_come: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !has_come() {
        assert!(Instant::now() < deadline, "not after 20 s: {what}");
        std::thread::yield_now();
    }
}
