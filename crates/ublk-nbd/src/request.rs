//! Requests of the transmission phase, as the client encodes and the server decodes the header.

use crate::Headers;
use crate::wire::{EXTENDED_REQUEST_MAGIC, REQUEST_MAGIC, command, flag, length};

/// The header of a request; the data of a write follows on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Of [`wire::flag`](crate::wire::flag). With extended headers, the flag `PAYLOAD_LEN` says that `length` bytes
    /// follow the header.
    pub flags: u16,
    /// Of [`wire::command`](crate::wire::command); from a client, any number.
    pub command: u16,
    /// The client's name for the request, which comes back with the reply.
    pub cookie: u64,
    /// In bytes.
    pub offset: u64,
    /// In bytes; below 4 GiB without extended headers.
    pub length: u64,
}

impl Request {
    /// The header of 28 bytes, as on the wire. The length must be below 4 GiB.
    #[expect(clippy::cast_possible_truncation, reason = "the caller's duty")]
    pub fn encode(&self) -> [u8; length::REQUEST] {
        debug_assert!(u32::try_from(self.length).is_ok(), "needs extended headers");
        let mut bytes = [0; length::REQUEST];
        bytes[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
        bytes[4..24].copy_from_slice(&self.middle());
        bytes[24..].copy_from_slice(&(self.length as u32).to_be_bytes());
        bytes
    }

    /// The extended header of 32 bytes, as on the wire.
    pub fn encode_extended(&self) -> [u8; length::EXTENDED_REQUEST] {
        let mut bytes = [0; length::EXTENDED_REQUEST];
        bytes[..4].copy_from_slice(&EXTENDED_REQUEST_MAGIC.to_be_bytes());
        bytes[4..24].copy_from_slice(&self.middle());
        bytes[24..].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }

    /// The header as on the wire of a connection with these headers.
    pub fn encode_as(&self, headers: Headers) -> Vec<u8> {
        match headers {
            Headers::Simple | Headers::Structured => self.encode().to_vec(),
            Headers::Extended => self.encode_extended().to_vec(),
        }
    }

    /// What both headers have between magic number and length.
    fn middle(&self) -> [u8; 20] {
        let mut bytes = [0; 20];
        bytes[..2].copy_from_slice(&self.flags.to_be_bytes());
        bytes[2..4].copy_from_slice(&self.command.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.cookie.to_be_bytes());
        bytes[12..].copy_from_slice(&self.offset.to_be_bytes());
        bytes
    }

    /// Reads a header of 28 bytes. None without the magic number: the client is out of step, and the connection
    /// must end.
    pub fn decode(bytes: &[u8; length::REQUEST]) -> Option<Self> {
        let [m0, m1, m2, m3, rest @ .., l0, l1, l2, l3] = *bytes;
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        (u32::from_be_bytes([m0, m1, m2, m3]) == REQUEST_MAGIC)
            .then(|| Self::of(rest, length.into()))
    }

    /// Reads an extended header. None without the magic number: the client is out of step, and the connection must
    /// end.
    pub fn decode_extended(bytes: &[u8; length::EXTENDED_REQUEST]) -> Option<Self> {
        let [m0, m1, m2, m3, rest @ .., l0, l1, l2, l3, l4, l5, l6, l7] = *bytes;
        let length = u64::from_be_bytes([l0, l1, l2, l3, l4, l5, l6, l7]);
        (u32::from_be_bytes([m0, m1, m2, m3]) == EXTENDED_REQUEST_MAGIC)
            .then(|| Self::of(rest, length))
    }

    /// Whether bytes, too few for a header, may be the beginning of a request with these headers.
    pub fn may_begin(bytes: &[u8], headers: Headers) -> bool {
        let magic = match headers {
            Headers::Simple | Headers::Structured => REQUEST_MAGIC,
            Headers::Extended => EXTENDED_REQUEST_MAGIC,
        };
        bytes.iter().zip(magic.to_be_bytes()).all(|(&byte, expected)| byte == expected)
    }

    fn of(middle: [u8; 20], length: u64) -> Self {
        let [f0, f1, c0, c1, rest @ ..] = middle;
        let [k0, k1, k2, k3, k4, k5, k6, k7, o0, o1, o2, o3, o4, o5, o6, o7] = rest;
        Self {
            flags: u16::from_be_bytes([f0, f1]),
            command: u16::from_be_bytes([c0, c1]),
            cookie: u64::from_be_bytes([k0, k1, k2, k3, k4, k5, k6, k7]),
            offset: u64::from_be_bytes([o0, o1, o2, o3, o4, o5, o6, o7]),
            length,
        }
    }

    /// The number of bytes that follow the header.
    ///
    /// With extended headers, the specification wants the flag `PAYLOAD_LEN` of each write. The client of qemu (8.2 to
    /// at least 10.0) sends writes without the flag and with data, and the server of qemu takes them.
    pub fn payload(&self, headers: Headers) -> u64 {
        let flagged = headers == Headers::Extended && self.has(flag::PAYLOAD_LEN);
        if flagged || self.command == command::WRITE { self.length } else { 0 }
    }

    /// Whether a flag is set.
    pub fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: Request = Request {
        flags: 1,
        command: 6,
        cookie: 0x0102_0304_0506_0708,
        offset: 1 << 40,
        length: 512,
    };

    #[test]
    fn a_request_is_as_the_specification_draws_it() {
        let mut bytes = REQUEST.encode();
        assert_eq!(bytes[..8], [0x25, 0x60, 0x95, 0x13, 0, 1, 0, 6]);
        assert_eq!(bytes[8..16], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(bytes[16..], [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
        assert_eq!(Request::decode(&bytes), Some(REQUEST));
        bytes[0] ^= 1;
        assert_eq!(Request::decode(&bytes), None, "without the magic number");
    }

    #[test]
    fn an_extended_request_has_a_length_of_64_bits() {
        let request = Request { length: 5 << 32, ..REQUEST };
        let mut bytes = request.encode_extended();
        assert_eq!(bytes[..8], [0x21, 0xe4, 0x1c, 0x71, 0, 1, 0, 6]);
        assert_eq!(bytes[8..24], REQUEST.encode()[8..24]);
        assert_eq!(bytes[24..], [0, 0, 0, 5, 0, 0, 0, 0]);
        assert_eq!(Request::decode_extended(&bytes), Some(request));
        bytes[0] ^= 1;
        assert_eq!(Request::decode_extended(&bytes), None, "without the magic number");
    }

    #[test]
    fn a_header_of_the_other_kind_shows_at_its_first_bytes() {
        let (short, long) = (REQUEST.encode(), REQUEST.encode_extended());
        for count in 0..=4 {
            assert!(Request::may_begin(&short[..count], Headers::Structured));
            assert!(Request::may_begin(&long[..count], Headers::Extended));
            assert_eq!(Request::may_begin(&long[..count], Headers::Simple), count == 0);
            assert_eq!(Request::may_begin(&short[..count], Headers::Extended), count == 0);
        }
    }

    #[test]
    fn data_follows_a_write_or_with_extended_headers_the_flag() {
        let payload =
            |command, flags, headers| Request { command, flags, ..REQUEST }.payload(headers);
        for headers in [Headers::Simple, Headers::Structured] {
            assert_eq!(payload(command::WRITE, 0, headers), 512);
            assert_eq!(payload(command::WRITE_ZEROES, flag::PAYLOAD_LEN, headers), 0);
        }
        for command in [command::WRITE, command::WRITE_ZEROES] {
            assert_eq!(payload(command, flag::PAYLOAD_LEN, Headers::Extended), 512);
        }
        assert_eq!(payload(command::WRITE, 0, Headers::Extended), 512, "as qemu writes");
        assert_eq!(payload(command::WRITE_ZEROES, 0, Headers::Extended), 0);
    }
}
