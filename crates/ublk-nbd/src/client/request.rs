//! Requests of the transmission phase.

use crate::wire::{REQUEST_MAGIC, length};

/// A request; the data of a write follows on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Of [`wire::flag`](crate::wire::flag).
    pub flags: u16,
    /// Of [`wire::command`](crate::wire::command).
    pub command: u16,
    /// Comes back with the reply.
    pub cookie: u64,
    /// In bytes.
    pub offset: u64,
    /// In bytes.
    pub length: u32,
}

impl Request {
    /// The request as on the wire.
    pub fn to_bytes(&self) -> [u8; length::REQUEST] {
        let mut bytes = [0; length::REQUEST];
        bytes[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.flags.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.command.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_be_bytes());
        bytes[24..].copy_from_slice(&self.length.to_be_bytes());
        bytes
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
        let bytes = request.to_bytes();
        assert_eq!(bytes[..8], [0x25, 0x60, 0x95, 0x13, 0, 1, 0, 6]);
        assert_eq!(bytes[8..16], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(bytes[16..], [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
    }
}
