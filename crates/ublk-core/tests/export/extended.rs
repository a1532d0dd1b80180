//! Clients with extended headers.

use std::io::Read;

use ublk_nbd::Request;

use super::*;
use ublk_core::targets::null::Null;

fn connect(exported: &Exported) -> Client {
    Client::connect(&exported.path, Headers::Extended)
}

/// The 64-bit numbers of a reply behind the context and the count.
fn extents(data: &[u8]) -> Vec<u64> {
    data[8..].chunks(8).map(|word| u64::from_be_bytes(word.try_into().unwrap())).collect()
}

fn is_hung_up(client: &mut Client) -> bool {
    // Not the error of a client that has waited for too long.
    client
        .stream
        .read(&mut [0])
        .map_err(|error| error.kind())
        .map_or_else(|error| error == std::io::ErrorKind::ConnectionReset, |count| count == 0)
}

#[test]
fn block_status_has_extents_of_64_bits() {
    let Some(exported) = memory() else { return };
    let mut client = connect(&exported);
    assert_eq!(client.write(1 << 20, &pattern(4096, 1)), 0);
    client.send(command::BLOCK_STATUS, 0, 5, (512, 32 << 20));
    let reply = client.hear(0);
    assert_eq!((reply.kind, reply.last, reply.cookie), (chunk::BLOCK_STATUS_EXT, true, 5));
    assert_eq!(reply.offset, Some(512));
    assert_eq!(reply.data[..8], [0, 0, 0, 1, 0, 0, 0, 3], "the context, and three extents");
    let words = extents(&reply.data);
    assert_eq!(words[..4], [(1 << 20) - 512, 3, words[2], 0]);
    assert_eq!(words.iter().step_by(2).sum::<u64>(), 32 << 20);
    assert_eq!(words[5], 3, "a hole");
}

#[test]
fn zeros_trims_and_block_status_may_be_longer_than_4_gib() {
    const LONG: u64 = 6 << 30;
    let Some(exported) = serve(Null::new(8 << 30), options()) else { return };
    let mut client = connect(&exported);
    for command in [command::TRIM, command::WRITE_ZEROES] {
        assert_eq!(client.carry_out(command, 0, (1 << 30, LONG)), 0, "{command}");
        let error = client.carry_out(command, 0, (3 << 30, LONG));
        assert_eq!(error, if command == command::TRIM { 22 } else { 28 }, "beyond the end");
    }
    let stats = &exported.device.stats()[0];
    // Each in parts that a block device takes.
    assert_eq!((stats.discards, stats.write_zeroes), (3, 3));
    client.send(command::BLOCK_STATUS, 0, 5, (0, 8 << 30));
    assert_eq!(extents(&client.hear(0).data), [8 << 30, 0]);
    client.send(command::BLOCK_STATUS, 0, 6, (8 << 30, 1 << 63));
    assert_eq!(client.error(0), 22);
}

#[test]
fn data_belongs_to_writes_and_to_nothing_else() {
    let Some(exported) = memory() else { return };
    let mut client = connect(&exported);
    let request = |command, flags, length| Request { flags, command, cookie: 7, offset: 0, length };
    let mut refused = |request: &Request| {
        client.send_as(Headers::Extended, request).unwrap();
        let payload = request.payload(Headers::Extended);
        client.stream.write_all(&vec![1; usize::try_from(payload).unwrap()]).unwrap();
        assert_eq!(client.error(0), 22, "{request:?}");
    };
    for command in [command::READ, command::BLOCK_STATUS, command::FLUSH, command::TRIM, 99] {
        refused(&request(command, flag::PAYLOAD_LEN, 512));
        refused(&request(command, flag::PAYLOAD_LEN, 100_000));
    }
    assert_eq!(client.read(0, 512).unwrap(), [0; 512], "nothing was written");
    for flags in [0, flag::PAYLOAD_LEN] {
        let write = request(command::WRITE, flags, 512);
        client.send_as(Headers::Extended, &write).unwrap();
        client.stream.write_all(&[7; 512]).unwrap();
        assert_eq!(client.error(0), 0, "with data, and as qemu without the flag");
    }
    assert_eq!(client.read(0, 1024).unwrap(), [[7; 512], [0; 512]].concat());
    let endless = request(command::READ, flag::PAYLOAD_LEN, 1 << 40);
    client.send_as(Headers::Extended, &endless).unwrap();
    assert!(is_hung_up(&mut client), "more data than a request may have");
}

#[test]
fn a_request_with_headers_that_were_not_agreed_on_costs_the_connection() {
    let Some(exported) = memory() else { return };
    let flush = Request { flags: 0, command: command::FLUSH, cookie: 7, offset: 0, length: 0 };
    for (agreed, sent) in [
        (Headers::Extended, Headers::Structured),
        (Headers::Structured, Headers::Extended),
        (Headers::Simple, Headers::Extended),
    ] {
        let mut client = Client::connect(&exported.path, agreed);
        client.send_as(agreed, &flush).unwrap();
        assert_eq!(client.error(0), 0);
        client.send_as(sent, &flush).unwrap();
        assert!(is_hung_up(&mut client), "{agreed:?}");
    }
}
