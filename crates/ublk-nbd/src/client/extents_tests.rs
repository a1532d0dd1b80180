use std::collections::VecDeque;

use super::*;
use crate::wire::{SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, command, flag};

const CONTEXT: u32 = 5;
const COOKIE: u64 = 77;

/// What a server sends, and what the client has sent.
struct Wire(VecDeque<u8>, Vec<u8>);

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Wire {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.1.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn ask(parts: &[Vec<u8>]) -> Result<Option<Extent>, String> {
    let request = Request {
        flags: flag::REQ_ONE,
        command: command::BLOCK_STATUS,
        cookie: COOKIE,
        offset: 4096,
        length: 1 << 20,
    };
    let mut wire = Wire(parts.concat().into(), Vec::new());
    let found = first_extent(&mut wire, CONTEXT, &request);
    assert_eq!(wire.1, request.encode());
    assert!(found.is_err() || wire.0.is_empty(), "{} bytes are left", wire.0.len());
    found.map_err(|error| error.to_string())
}

fn chunk_of(cookie: u64, flags: u16, kind: u16, data: &[u32]) -> Vec<u8> {
    let mut bytes = STRUCTURED_REPLY_MAGIC.to_be_bytes().to_vec();
    bytes.extend([flags, kind].map(u16::to_be_bytes).concat());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(u32::try_from(data.len() * 4).unwrap().to_be_bytes());
    bytes.extend(data.iter().flat_map(|word| word.to_be_bytes()));
    bytes
}

fn piece(flags: u16, kind: u16, data: &[u32]) -> Vec<u8> {
    chunk_of(COOKIE, flags, kind, data)
}

fn simple(error: u32) -> Vec<u8> {
    [&SIMPLE_REPLY_MAGIC.to_be_bytes()[..], &error.to_be_bytes(), &COOKIE.to_be_bytes()].concat()
}

#[test]
fn a_reply_brings_one_extent() {
    let extent = Some(Extent { length: 65536, flags: 3 });
    let one = [piece(chunk::DONE, chunk::BLOCK_STATUS, &[CONTEXT, 65536, 3])];
    assert_eq!(ask(&one), Ok(extent));
    let two =
        [piece(0, chunk::BLOCK_STATUS, &[CONTEXT, 65536, 3]), piece(chunk::DONE, chunk::NONE, &[])];
    assert_eq!(ask(&two), Ok(extent));
}

#[test]
fn after_an_error_the_stream_goes_on() {
    let error = [piece(chunk::DONE, chunk::ERROR, &[22, 0, 0])];
    assert_eq!(ask(&error), Ok(None));
    assert_eq!(ask(&[simple(95)]), Ok(None));
    let late = [
        piece(0, chunk::BLOCK_STATUS, &[CONTEXT, 512, 3]),
        piece(chunk::DONE, chunk::ERROR_OFFSET, &[5, 0, 0, 0]),
    ];
    assert_eq!(ask(&late), Ok(None), "an error after an extent");
}

#[test]
fn a_server_that_breaks_the_protocol_is_not_believed() {
    let right = || piece(0, chunk::BLOCK_STATUS, &[CONTEXT, 512, 3]);
    let endless = vec![piece(0, chunk::NONE, &[]); MAX_CHUNKS];
    for (parts, words) in [
        (vec![simple(0)], "another request"),
        (
            vec![chunk_of(COOKIE + 1, chunk::DONE, chunk::BLOCK_STATUS, &[CONTEXT, 512, 3])],
            "another request",
        ),
        (vec![piece(1, chunk::BLOCK_STATUS, &[CONTEXT + 1, 512, 3])], "was not chosen"),
        (vec![piece(1, chunk::BLOCK_STATUS, &[CONTEXT, 0, 3])], "without a byte"),
        (vec![piece(1, chunk::BLOCK_STATUS, &[CONTEXT, 512, 3, 512, 0])], "fits no reply"),
        (vec![piece(1, chunk::BLOCK_STATUS, &[CONTEXT])], "fits no reply"),
        (vec![right(), right()], "fits no reply"),
        (vec![piece(1, chunk::OFFSET_HOLE, &[0, 4096, 512])], "fits no reply"),
        (vec![piece(1, chunk::NONE, &[])], "without an extent"),
        (endless, "without an end"),
        (vec![vec![0x42; 64]], "begin no reply"),
        (vec![right()[..25].to_vec()], "fill"),
        (vec![], "fill"),
    ] {
        let error = ask(&parts).unwrap_err();
        assert!(error.contains(words), "{error} for {words}");
    }
}
