//! A plain client of the NBD protocol, which sends what it is told to.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use ublk_nbd::wire::{
    EXTENDED_REPLY_MAGIC, OPTION_MAGIC, OPTION_REPLY_MAGIC, SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC, chunk, command, flag, option, option_reply,
};
use ublk_nbd::{Headers, Request};

/// A chunk of a reply, or a simple reply.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) kind: u16,
    pub(crate) last: bool,
    pub(crate) cookie: u64,
    /// Of an extended header.
    pub(crate) offset: Option<u64>,
    pub(crate) data: Vec<u8>,
}

pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    pub(crate) headers: Headers,
    pub(crate) flags: u16,
    pub(crate) size: u64,
}

impl Client {
    /// A connection before the negotiation.
    pub(crate) fn dial(path: &Path) -> UnixStream {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    pub(crate) fn connect(path: &Path, headers: Headers) -> Self {
        let mut this = Self { stream: Self::dial(path), headers, flags: 0, size: 0 };
        let mut greeting = [0; 18];
        this.stream.read_exact(&mut greeting).unwrap();
        this.stream.write_all(&3_u32.to_be_bytes()).unwrap();
        if headers.have_chunks() {
            let extended = headers == Headers::Extended;
            let option = if extended { option::EXTENDED_HEADERS } else { option::STRUCTURED_REPLY };
            assert_eq!(this.ask(option, &[]), [(option_reply::ACK, vec![])]);
            let name = b"base:allocation";
            let count = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 15];
            this.ask(option::SET_META_CONTEXT, &[&count[..], name].concat());
        }
        // Connections that have ended may be on their way out.
        let mut replies = this.ask(option::GO, &[0; 6]);
        while replies[0].0 == option_reply::ERR_POLICY {
            std::thread::sleep(Duration::from_millis(1));
            replies = this.ask(option::GO, &[0; 6]);
        }
        let (_, export) = &replies[0];
        this.size = u64::from_be_bytes(export[2..10].try_into().unwrap());
        this.flags = u16::from_be_bytes(export[10..12].try_into().unwrap());
        this
    }

    /// The replies to an option, up to the last.
    pub(crate) fn ask(&mut self, option: u32, data: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let length = u32::try_from(data.len()).unwrap();
        let header = [OPTION_MAGIC.to_be_bytes().as_slice(), &option.to_be_bytes()].concat();
        self.stream.write_all(&[&header, &length.to_be_bytes()[..], data].concat()).unwrap();
        let mut replies = Vec::new();
        loop {
            let mut head = [0; 20];
            self.stream.read_exact(&mut head).unwrap();
            assert_eq!(head[..8], OPTION_REPLY_MAGIC.to_be_bytes());
            let kind = u32::from_be_bytes(head[12..16].try_into().unwrap());
            let length = u32::from_be_bytes(head[16..].try_into().unwrap());
            let mut data = vec![0; length as usize];
            self.stream.read_exact(&mut data).unwrap();
            replies.push((kind, data));
            if kind == option_reply::ACK || kind & option_reply::ERROR != 0 {
                return replies;
            }
        }
    }

    pub(crate) fn send(&mut self, command: u16, flags: u16, cookie: u64, place: (u64, u64)) {
        self.try_send(command, flags, cookie, place).unwrap();
    }

    pub(crate) fn try_send(
        &mut self,
        command: u16,
        flags: u16,
        cookie: u64,
        place: (u64, u64),
    ) -> io::Result<()> {
        let (offset, length) = place;
        let writes = self.headers == Headers::Extended && command == command::WRITE;
        let flags = flags | if writes { flag::PAYLOAD_LEN } else { 0 };
        self.send_as(self.headers, &Request { flags, command, cookie, offset, length })
    }

    /// Sends a header, right or wrong.
    pub(crate) fn send_as(&mut self, headers: Headers, request: &Request) -> io::Result<()> {
        self.stream.write_all(&request.encode_as(headers))
    }

    /// The next reply; `length` bytes follow a simple reply without an error.
    pub(crate) fn hear(&mut self, length: u32) -> Chunk {
        let mut magic = [0; 4];
        self.stream.read_exact(&mut magic).unwrap();
        let extended = self.headers == Headers::Extended;
        if !extended && magic == SIMPLE_REPLY_MAGIC.to_be_bytes() {
            let mut head = [0; 12];
            self.stream.read_exact(&mut head).unwrap();
            let error = u32::from_be_bytes(head[..4].try_into().unwrap());
            let mut data = vec![0; if error == 0 { length as usize } else { 0 }];
            self.stream.read_exact(&mut data).unwrap();
            let kind = if error == 0 { chunk::NONE } else { chunk::ERROR };
            let data = if error == 0 { data } else { head[..4].to_vec() };
            let cookie = u64::from_be_bytes(head[4..].try_into().unwrap());
            return Chunk { kind, last: true, cookie, offset: None, data };
        }
        let agreed = if extended { EXTENDED_REPLY_MAGIC } else { STRUCTURED_REPLY_MAGIC };
        assert_eq!(magic, agreed.to_be_bytes());
        let mut head = vec![0; if extended { 28 } else { 16 }];
        self.stream.read_exact(&mut head).unwrap();
        let (head, length) = head.split_last_chunk().unwrap();
        let length = u32::from_be_bytes(*length);
        let mut data = vec![0; length as usize];
        self.stream.read_exact(&mut data).unwrap();
        Chunk {
            kind: u16::from_be_bytes(head[2..4].try_into().unwrap()),
            last: head[1] & 1 != 0,
            cookie: u64::from_be_bytes(head[4..12].try_into().unwrap()),
            offset: extended.then(|| u64::from_be_bytes(head[12..20].try_into().unwrap())),
            data,
        }
    }

    /// Sends a request and hears the error of the reply; 0: none.
    pub(crate) fn carry_out(&mut self, command: u16, flags: u16, place: (u64, u64)) -> u32 {
        self.send(command, flags, 7, place);
        self.error(0)
    }

    pub(crate) fn error(&mut self, length: u32) -> u32 {
        let reply = self.hear(length);
        assert!(reply.last, "{reply:?}");
        if reply.kind & chunk::ERROR_BIT == 0 {
            return 0;
        }
        u32::from_be_bytes(reply.data[..4].try_into().unwrap())
    }

    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) -> u32 {
        self.send(command::WRITE, 0, 8, (offset, data.len() as u64));
        self.stream.write_all(data).unwrap();
        self.error(0)
    }

    /// Reads, in any number of chunks.
    pub(crate) fn read(&mut self, offset: u64, length: u32) -> Result<Vec<u8>, u32> {
        self.send(command::READ, 0, 9, (offset, length.into()));
        let mut bytes = vec![0xee; length as usize];
        loop {
            let reply = self.hear(length);
            assert_eq!((reply.cookie, reply.offset.unwrap_or(offset)), (9, offset));
            match reply.kind {
                chunk::NONE if reply.last && !reply.data.is_empty() => return Ok(reply.data),
                chunk::NONE => {}
                chunk::OFFSET_DATA => {
                    let at = u64::from_be_bytes(reply.data[..8].try_into().unwrap()) - offset;
                    let at = usize::try_from(at).unwrap();
                    let data = &reply.data[8..];
                    bytes[at..at + data.len()].copy_from_slice(data);
                }
                _ => return Err(u32::from_be_bytes(reply.data[..4].try_into().unwrap())),
            }
            if reply.last {
                return Ok(bytes);
            }
        }
    }
}
