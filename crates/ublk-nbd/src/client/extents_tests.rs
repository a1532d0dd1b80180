use std::collections::VecDeque;

use super::*;
use crate::wire::{SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, command, flag};

const CONTEXT: u32 = 5;
const COOKIE: u64 = 77;
const OFFSET: u64 = 4096;

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
    ask_with(Headers::Structured, parts)
}

fn ask_with(headers: Headers, parts: &[Vec<u8>]) -> Result<Option<Extent>, String> {
    let request = Request {
        flags: flag::REQ_ONE,
        command: command::BLOCK_STATUS,
        cookie: COOKIE,
        offset: OFFSET,
        length: 1 << 20,
    };
    let mut wire = Wire(parts.concat().into(), Vec::new());
    let found = first_extent(&mut wire, headers, CONTEXT, &request);
    assert_eq!(wire.1, request.encode_as(headers));
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

/// A chunk with an extended header.
fn long(offset: u64, flags: u16, kind: u16, data: &[u32]) -> Vec<u8> {
    let mut bytes = EXTENDED_REPLY_MAGIC.to_be_bytes().to_vec();
    bytes.extend([flags, kind].map(u16::to_be_bytes).concat());
    bytes.extend([COOKIE, offset, data.len() as u64 * 4].map(u64::to_be_bytes).concat());
    bytes.extend(data.iter().flat_map(|word| word.to_be_bytes()));
    bytes
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

#[test]
fn with_extended_headers_an_extent_has_32_or_64_bits() {
    let ask = |parts: &[Vec<u8>]| ask_with(Headers::Extended, parts);
    for count in [0, 1] {
        let data = [CONTEXT, count, 5, 65536, 0, 3];
        let extent = Some(Extent { length: (5 << 32) + 65536, flags: 3 });
        assert_eq!(ask(&[long(OFFSET, 1, chunk::BLOCK_STATUS_EXT, &data)]), Ok(extent));
    }
    let short = long(OFFSET, 0, chunk::BLOCK_STATUS, &[CONTEXT, 65536, 3]);
    let end = long(OFFSET, 1, chunk::NONE, &[]);
    assert_eq!(ask(&[short, end]), Ok(Some(Extent { length: 65536, flags: 3 })));
    assert_eq!(ask(&[long(OFFSET, 1, chunk::ERROR, &[22, 0, 0])]), Ok(None));
}

#[test]
fn replies_with_the_headers_that_were_not_agreed_on_are_not_believed() {
    let data = [CONTEXT, 1, 0, 65536, 0, 3];
    let (short, wide) = (chunk::BLOCK_STATUS, chunk::BLOCK_STATUS_EXT);
    for (headers, part, words) in [
        (Headers::Structured, long(OFFSET, 1, wide, &data), "another request"),
        (Headers::Structured, piece(1, wide, &data), "fits no reply"),
        (Headers::Extended, piece(1, short, &[CONTEXT, 512, 3]), "another request"),
        (Headers::Extended, simple(22), "another request"),
        (Headers::Extended, long(OFFSET + 512, 1, wide, &data), "another request"),
        (Headers::Extended, long(OFFSET, 1, wide, &[CONTEXT, 2, 0, 512, 0, 3]), "a count"),
        (Headers::Extended, long(OFFSET, 1, wide, &[CONTEXT, 1, 0, 0, 0, 3]), "without a byte"),
        (Headers::Extended, long(OFFSET, 1, wide, &[9, 1, 0, 512, 0, 3]), "was not chosen"),
        (Headers::Extended, long(OFFSET, 1, wide, &[CONTEXT, 1, 0, 512]), "fits no reply"),
    ] {
        let error = ask_with(headers, &[part]).unwrap_err();
        assert!(error.contains(words), "{error} for {words}");
    }
}
