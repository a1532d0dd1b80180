//! Exports on the real io_uring, without a ublk device: clients of the NBD protocol in front, memory behind.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use ublk_core::device::{Device, DeviceOptions};
use ublk_core::driver::Driver;
use ublk_core::driver::RingSize;
use ublk_core::driver::linux::Linux;
use ublk_core::driver::nbd::{Address, Export, Nbd};
use ublk_core::targets::Target;
use ublk_core::targets::delay::{Delay, Delays};
use ublk_core::targets::error::AlwaysFails;
use ublk_core::targets::file::File;
use ublk_core::targets::linear::Linear;
use ublk_core::targets::native::Native;
use ublk_core::targets::striped::Striped;
use ublk_nbd::Headers;
use ublk_nbd::wire::{chunk, command, export, flag};

use client::Client;

mod client;
mod extended;

const SIZE: u64 = 64 << 20;

/// An export of a target, and the path of the socket.
struct Exported {
    device: Device<Nbd>,
    path: PathBuf,
}

fn socket() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("ublk-export-{}-{number}", std::process::id()))
}

fn at(path: &Path) -> Export {
    let address = Address::Unix(path.into());
    let (name, description) = ("disk".into(), "a disk".into());
    Export { address, name, description, read_only: false, connections: 16, tls: None }
}

/// None where the machine has no io_uring for this user.
fn serve<T: Target>(target: T, options: DeviceOptions) -> Option<Exported> {
    let size = RingSize { submissions: 8, completions: 8, tells_of_work: false };
    // Without io_uring there is nothing to test, and no device either.
    Linux::new().ring(size).ok()?;
    let path = socket();
    let device = Device::export(at(&path), || Ok(target), options).unwrap();
    Some(Exported { device, path })
}

fn options() -> DeviceOptions {
    DeviceOptions { pin: false, depth: 32, max_io_bytes: 64 << 10, ..DeviceOptions::default() }
}

fn memory() -> Option<Exported> {
    serve(File::in_memory(SIZE).unwrap(), options())
}

fn pattern(length: u32, seed: u8) -> Vec<u8> {
    let byte =
        |at: u32| at.to_le_bytes().into_iter().fold(seed, |sum, byte| sum.wrapping_mul(31) ^ byte);
    (0..length).map(byte).collect()
}

#[test]
fn what_a_client_writes_is_read_again_in_every_kind_of_reply_and_length() {
    let Some(exported) = memory() else { return };
    for headers in [Headers::Structured, Headers::Simple, Headers::Extended] {
        let mut client = Client::connect(&exported.path, headers);
        assert_eq!(client.size, SIZE);
        for (offset, length) in [(0, 512), (4096, 4096), (512, 65536), (1 << 20, 5 << 20)] {
            let data = pattern(length, headers as u8);
            assert_eq!(client.write(offset, &data), 0);
            assert!(client.read(offset, length).unwrap() == data, "{length} at {offset}");
        }
    }
    exported.device.close().unwrap();
    assert!(!exported.path.exists());
}

#[test]
fn many_requests_at_once_are_all_answered() {
    let Some(exported) = memory() else { return };
    let mut client = Client::connect(&exported.path, Headers::Structured);
    for round in 0..50_u64 {
        for cookie in 0..100 {
            client.send(command::READ, 0, round << 32 | cookie, (cookie * 4096, 4096));
        }
        let mut cookies: Vec<_> = (0..100).map(|_| client.hear(0).cookie).collect();
        cookies.sort_unstable();
        assert!(cookies.into_iter().eq((0..100).map(|cookie| round << 32 | cookie)));
    }
    let stats = exported.device.stats();
    assert_eq!(stats[0].reads, 5000);
}

#[test]
fn commands_that_make_no_sense_are_refused_and_the_connection_goes_on() {
    let Some(exported) = memory() else { return };
    let mut client = Client::connect(&exported.path, Headers::Structured);
    for (command, place, error) in [
        (command::READ, (SIZE, 512), 22),
        (command::READ, (1, 512), 22),
        (99, (0, 512), 22),
        (command::WRITE_ZEROES, (SIZE - 512, 1024), 28),
        (command::READ, (0, 0xffff_fe00), 22),
    ] {
        assert_eq!(client.carry_out(command, 0, place), error, "{command} {place:?}");
    }
    assert_eq!(client.write(SIZE - 512, &[1; 4096]), 28, "the data is skipped");
    assert_eq!(client.carry_out(command::READ, flag::DF, (0, 1 << 20)), 75, "not in one chunk");
    assert_eq!(client.read(0, 512).unwrap(), [0; 512]);
}

#[test]
fn zeros_flushes_and_durable_writes_are_carried_out() {
    let Some(exported) = memory() else { return };
    let mut client = Client::connect(&exported.path, Headers::Simple);
    assert_eq!(client.write(0, &pattern(1 << 20, 3)), 0);
    assert_eq!(client.carry_out(command::FLUSH, 0, (0, 0)), 0);
    // Memory writes zeros as data.
    assert_eq!(client.flags & export::SEND_FAST_ZERO, 0);
    assert_eq!(client.carry_out(command::WRITE_ZEROES, flag::FUA, (4096, 512 << 10)), 0);
    let data = client.read(0, 1 << 20).unwrap();
    let expected = pattern(1 << 20, 3);
    assert!(data[..4096] == expected[..4096] && data[528_384..] == expected[528_384..]);
    assert!(data[4096..528_384].iter().all(|&byte| byte == 0));
    assert_eq!(client.carry_out(command::CACHE, 0, (0, 1 << 20)), 0);
}

#[test]
fn block_status_tells_holes_from_data() {
    let Some(exported) = memory() else { return };
    let mut client = Client::connect(&exported.path, Headers::Structured);
    assert_eq!(client.write(1 << 20, &pattern(4096, 1)), 0);
    client.send(command::BLOCK_STATUS, 0, 5, (0, 32 << 20));
    let reply = client.hear(0);
    assert_eq!((reply.kind, reply.last, reply.cookie), (chunk::BLOCK_STATUS, true, 5));
    let words: Vec<_> =
        reply.data.chunks(4).map(|word| u32::from_be_bytes(word.try_into().unwrap())).collect();
    assert_eq!(words[..4], [1, 1 << 20, 3, words[3]]);
    assert_eq!(words[4], 0, "data");
    assert_eq!(words[6], 3, "a hole");
    client.send(command::BLOCK_STATUS, flag::REQ_ONE, 6, (0, 32 << 20));
    assert_eq!(client.hear(0).data.len(), 12);
    let mut simple = Client::connect(&exported.path, Headers::Simple);
    assert_eq!(simple.carry_out(command::BLOCK_STATUS, 0, (0, 512)), 22, "no context was chosen");
}

#[test]
fn a_client_that_takes_no_replies_holds_no_other_up_and_not_the_end() {
    let Some(exported) = memory() else { return };
    let mut greedy: Vec<_> =
        (0..3).map(|_| Client::connect(&exported.path, Headers::Structured)).collect();
    for client in &mut greedy {
        client.stream.set_write_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
        for cookie in 0..2000_u64 {
            let bytes = [
                &0x2560_9513_u32.to_be_bytes()[..],
                &[0; 4],
                &cookie.to_be_bytes(),
                &[0; 8],
                &65536_u32.to_be_bytes(),
            ]
            .concat();
            if client.stream.write_all(&bytes).is_err() {
                break;
            }
        }
    }
    let mut other = Client::connect(&exported.path, Headers::Structured);
    for at in 0..100 {
        assert_eq!(other.write(at * 4096, &pattern(4096, 9)), 0);
        assert_eq!(other.read(at * 4096, 4096).unwrap(), pattern(4096, 9));
    }
    exported.device.close().unwrap();
    let mut end = [0; 1];
    assert!(!matches!(other.stream.read(&mut end), Ok(count) if count > 0));
}

#[test]
fn a_request_under_way_ends_well_at_the_end_and_later_requests_are_told_of_the_end() {
    let image = Native::File(File::in_memory(SIZE).unwrap());
    let waits = Delays { read: 500_000, ..Delays::default() };
    let Some(exported) = serve(Delay::new(image, waits), options()) else { return };
    let Exported { device, path } = exported;
    let mut client = Client::connect(&path, Headers::Structured);
    client.send(command::READ, 0, 0, (0, 512));
    assert_eq!(client.carry_out(command::TRIM, 0, (1, 1)), 22, "the read is under way");
    let end = std::thread::spawn(move || device.close());
    let mut told = 0;
    for cookie in 1.. {
        // The connection may have ended with the reply to the read.
        let _ended = client.try_send(command::TRIM, 0, cookie, (1, 1));
        match client.hear(0) {
            reply if reply.cookie == 0 => {
                assert_eq!(reply.kind, chunk::OFFSET_DATA);
                break;
            }
            reply => told = u32::from_be_bytes(reply.data[..4].try_into().unwrap()),
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(told, 108);
    end.join().unwrap().unwrap();
}

#[test]
fn an_error_in_a_long_read_never_becomes_data() {
    let parts = || {
        let good = Native::File(File::in_memory(1 << 20).unwrap());
        let bad = Native::Error(AlwaysFails::new(1 << 20));
        Linear::new(vec![good, bad]).unwrap()
    };
    let Some(exported) = serve(parts(), options()) else { return };
    let mut client = Client::connect(&exported.path, Headers::Structured);
    assert_eq!(client.read(0, 2 << 20), Err(5));
    assert_eq!(client.read(0, 1 << 20).unwrap().len(), 1 << 20);
    let mut simple = Client::connect(&exported.path, Headers::Simple);
    assert_eq!(simple.read(1 << 20, 1 << 20), Err(5));
    // The header of a simple reply has promised the data: the connection ends.
    simple.send(command::READ, 0, 9, (0, 2 << 20));
    let mut bytes = Vec::new();
    let ended = simple.stream.read_to_end(&mut bytes);
    assert!(ended.is_ok() && bytes.len() < 16 + (2 << 20), "{} bytes", bytes.len());
    assert!(bytes[16..].iter().all(|&byte| byte == 0));
    assert_eq!(client.read(0, 512).unwrap(), [0; 512]);
}

#[test]
fn parts_of_a_long_read_that_end_in_any_order_are_one_reply() {
    let memory = || Native::File(File::in_memory(4 << 20).unwrap());
    let waits = Delays { read: 20_000, ..Delays::default() };
    let parts = vec![Native::Delay(Delay::new(memory(), waits)), memory()];
    let Some(exported) = serve(Striped::new(parts, 64 << 10).unwrap(), options()) else { return };
    let data = pattern(1 << 20, 5);
    for headers in [Headers::Structured, Headers::Simple, Headers::Extended] {
        let mut client = Client::connect(&exported.path, headers);
        assert_eq!(client.write(0, &data), 0);
        assert!(client.read(0, 1 << 20).unwrap() == data, "{headers:?}");
    }
}

#[test]
fn a_client_that_goes_in_the_middle_of_a_write_leaves_nothing() {
    let Some(exported) = memory() else { return };
    for _ in 0..200 {
        let mut client = Client::connect(&exported.path, Headers::Structured);
        client.send(command::READ, 0, 1, (0, 65536));
        client.send(command::WRITE, 0, 2, (0, 65536));
        client.stream.write_all(&[7; 1000]).unwrap();
    }
    let mut client = Client::connect(&exported.path, Headers::Structured);
    assert_eq!(client.read(0, 65536).unwrap(), [0; 65536], "no part of a write is carried out");
    drop(client);
    exported.device.close().unwrap();
}

#[test]
fn more_connections_than_allowed_are_refused_until_another_ends() {
    let Some(exported) = memory() else { return };
    let mut clients: Vec<_> =
        (0..16).map(|_| Client::connect(&exported.path, Headers::Structured)).collect();
    for client in &mut clients {
        client.read(0, 512).unwrap();
    }
    let mut stream = Client::dial(&exported.path);
    let mut greeting = [0; 18];
    stream.read_exact(&mut greeting).unwrap();
    stream.write_all(&3_u32.to_be_bytes()).unwrap();
    let mut one_more = Client { stream, headers: Headers::Simple, flags: 0, size: 0 };
    let replies = one_more.ask(ublk_nbd::wire::option::GO, &[0; 6]);
    assert_eq!(replies[0].0, ublk_nbd::wire::option_reply::ERR_POLICY);
    clients.pop();
    while one_more.ask(ublk_nbd::wire::option::GO, &[0; 6]).len() == 1 {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert_eq!(one_more.read(0, 512).unwrap(), [0; 512]);
}

#[test]
fn a_socket_of_a_dead_server_is_replaced_and_nothing_else_is() {
    let Some(exported) = memory() else { return };
    let busy = Nbd::bind(at(&exported.path)).unwrap_err();
    assert_eq!(busy.code, ublk_core::error::Code::Busy);
    let plain = socket();
    std::fs::write(&plain, "data").unwrap();
    let refused = Nbd::bind(at(&plain)).unwrap_err();
    assert_eq!(refused.code, ublk_core::error::Code::InvalidArgument);
    assert_eq!(std::fs::read(&plain).unwrap(), b"data");
    std::fs::remove_file(&plain).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&plain).unwrap());
    drop(Nbd::bind(at(&plain)).unwrap());
    assert!(!plain.exists(), "a socket that was never served is removed again");
}

#[test]
fn long_reads_of_a_client_with_simple_replies_never_mix() {
    let memory = || Native::File(File::in_memory(4 << 20).unwrap());
    let waits = Delays { read: 50_000, ..Delays::default() };
    let parts = vec![memory(), Native::Delay(Delay::new(memory(), waits))];
    let Some(exported) = serve(Striped::new(parts, 64 << 10).unwrap(), options()) else { return };
    let data = pattern(256 << 10, 6);
    let mut client = Client::connect(&exported.path, Headers::Simple);
    assert_eq!(client.write(0, &data), 0);
    // The first part of each read is ready at once, the second one is slow.
    let places: [u32; 3] = [0, 128 << 10, 0];
    for (cookie, place) in (0..).zip(places) {
        client.send(command::READ, 0, cookie, (place.into(), 128 << 10));
    }
    client.send(command::READ, 0, 3, (0, 512));
    for cookie in 0..4 {
        let mut head = [0; 16];
        client.stream.read_exact(&mut head).unwrap();
        assert_eq!(head[..8], [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0], "reply {cookie}");
        let place = places.get(usize::from(head[15])).map_or(0, |&place| place as usize);
        let mut bytes = vec![0; if head[15] == 3 { 512 } else { 128 << 10 }];
        client.stream.read_exact(&mut bytes).unwrap();
        assert!(bytes == data[place..][..bytes.len()], "reply {cookie}");
    }
}
