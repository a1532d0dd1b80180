//! Requests of the transmission phase, as the client encodes and the server decodes the header.

use crate::wire::{REQUEST_MAGIC, command, length};

/// The header of a request; the data of a write follows on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Of [`wire::flag`](crate::wire::flag).
    pub flags: u16,
    /// Of [`wire::command`](crate::wire::command); from a client, any number.
    pub command: u16,
    /// The client's name for the request, which comes back with the reply.
    pub cookie: u64,
    /// In bytes.
    pub offset: u64,
    /// In bytes.
    pub length: u32,
}

impl Request {
    /// The header as on the wire.
    pub fn encode(&self) -> [u8; length::REQUEST] {
        let mut bytes = [0; length::REQUEST];
        bytes[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.flags.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.command.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_be_bytes());
        bytes[24..].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }

    /// Reads a header. None without the magic number: the client is out of step, and the connection
    /// must end.
    pub fn decode(bytes: &[u8; length::REQUEST]) -> Option<Self> {
        let [m0, m1, m2, m3, f0, f1, c0, c1, rest @ ..] = *bytes;
        let [k0, k1, k2, k3, k4, k5, k6, k7, o0, o1, o2, o3, o4, o5, o6, o7, l0, l1, l2, l3] = rest;
        (u32::from_be_bytes([m0, m1, m2, m3]) == REQUEST_MAGIC).then(|| Self {
            flags: u16::from_be_bytes([f0, f1]),
            command: u16::from_be_bytes([c0, c1]),
            cookie: u64::from_be_bytes([k0, k1, k2, k3, k4, k5, k6, k7]),
            offset: u64::from_be_bytes([o0, o1, o2, o3, o4, o5, o6, o7]),
            length: u32::from_be_bytes([l0, l1, l2, l3]),
        })
    }

    /// The number of bytes that follow the header.
    pub fn payload(&self) -> u32 {
        if self.command == command::WRITE { self.length } else { 0 }
    }

    /// Whether a flag is set.
    pub fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_as_the_specification_draws_it() {
        let request = Request {
            flags: 1,
            command: 6,
            cookie: 0x0102_0304_0506_0708,
            offset: 1 << 40,
            length: 512,
        };
        let mut bytes = request.encode();
        assert_eq!(bytes[..8], [0x25, 0x60, 0x95, 0x13, 0, 1, 0, 6]);
        assert_eq!(bytes[8..16], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(bytes[16..], [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
        assert_eq!(Request::decode(&bytes), Some(request));
        bytes[0] ^= 1;
        assert_eq!(Request::decode(&bytes), None, "without the magic number");
    }

    #[test]
    fn only_a_write_is_followed_by_data() {
        let request = |command| Request { flags: 0, command, cookie: 0, offset: 0, length: 512 };
        assert_eq!(request(command::WRITE).payload(), 512);
        assert_eq!(request(command::WRITE_ZEROES).payload(), 0);
    }
}
