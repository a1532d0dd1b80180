//! Requests of a client, and which of them an export answers.

use crate::wire::{REQUEST_MAGIC, command, export, flag, length};

/// A request's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// `flag::*`
    pub flags: u16,
    /// `command::*`, or a number that no server knows.
    pub command: u16,
    /// The client's name for the request.
    pub cookie: u64,
    /// In bytes.
    pub offset: u64,
    /// In bytes; of a write, the length of the data behind the header.
    pub length: u32,
}

impl Request {
    /// Reads a header. None without the magic number: the client is out of step, and the connection
    /// must end.
    pub fn parse(bytes: &[u8; length::REQUEST]) -> Option<Self> {
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

/// The facts of an export that decide which requests are answered.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// In bytes.
    pub size: u64,
    /// The unit of offsets and lengths, in bytes: a power of two.
    pub block: u32,
    /// `export::*`, as told to the client.
    pub flags: u16,
    /// Whether the client has asked for structured replies.
    pub structured: bool,
    /// Whether the client has chosen a metadata context.
    pub contexts: bool,
}

const EPERM: u32 = 1;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;
const EOPNOTSUPP: u32 = 95;

/// The longest read or write, in bytes.
pub const MAX_LENGTH: u32 = crate::wire::MAX_PAYLOAD;

impl Limits {
    /// Whether a request may be carried out.
    ///
    /// # Errors
    /// The error of the reply.
    pub fn check(&self, request: &Request) -> Result<(), u32> {
        let Request { command, offset, length, .. } = *request;
        let told = |flag: u16| self.flags & flag != 0;
        let (known, flags) = match command {
            command::READ => (true, if self.structured { flag::DF } else { 0 }),
            command::WRITE => (true, 0),
            command::FLUSH => (told(export::SEND_FLUSH), 0),
            command::TRIM => (told(export::SEND_TRIM | export::READ_ONLY), 0),
            command::CACHE => (told(export::SEND_CACHE), 0),
            command::WRITE_ZEROES => {
                let fast = if told(export::SEND_FAST_ZERO) { flag::FAST_ZERO } else { 0 };
                (told(export::SEND_WRITE_ZEROES | export::READ_ONLY), flag::NO_HOLE | fast)
            }
            command::BLOCK_STATUS => (self.contexts, flag::REQ_ONE),
            _ => (false, 0),
        };
        if known && command == command::WRITE_ZEROES && request.has(flag::FAST_ZERO) {
            let allowed = told(export::SEND_FAST_ZERO);
            if !allowed {
                return Err(EOPNOTSUPP);
            }
        }
        if !known || request.flags & !(flags | flag::FUA) != 0 {
            return Err(EINVAL);
        }
        let changes = matches!(command, command::WRITE | command::TRIM | command::WRITE_ZEROES);
        if changes && told(export::READ_ONLY) {
            return Err(EPERM);
        }
        if command == command::FLUSH {
            return if offset == 0 && length == 0 { Ok(()) } else { Err(EINVAL) };
        }
        let moves = matches!(command, command::READ | command::WRITE);
        if length == 0 || moves && length > MAX_LENGTH {
            return Err(EINVAL);
        }
        if offset.checked_add(length.into()).is_none_or(|end| end > self.size) {
            let fills = matches!(command, command::WRITE | command::WRITE_ZEROES);
            return Err(if fills { ENOSPC } else { EINVAL });
        }
        let mask = u64::from(self.block) - 1;
        if (offset | u64::from(length)) & mask != 0 {
            return Err(EINVAL);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u16 = export::HAS_FLAGS
        | export::SEND_FLUSH
        | export::SEND_FUA
        | export::SEND_TRIM
        | export::SEND_WRITE_ZEROES
        | export::SEND_CACHE;
    const LIMITS: Limits =
        Limits { size: 1 << 20, block: 512, flags: ALL, structured: true, contexts: true };

    fn request(command: u16, offset: u64, length: u32) -> Request {
        Request { flags: 0, command, cookie: 7, offset, length }
    }

    #[test]
    fn a_header_is_read_in_the_order_of_the_wire() {
        let mut bytes = [0; length::REQUEST];
        bytes[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
        bytes[5] = 1;
        bytes[7] = 1;
        bytes[15] = 9;
        bytes[22] = 2;
        bytes[26] = 2;
        let expected = Request { flags: 1, command: 1, cookie: 9, offset: 512, length: 512 };
        assert_eq!(Request::parse(&bytes), Some(expected));
        assert_eq!(expected.payload(), 512);
        bytes[0] ^= 1;
        assert_eq!(Request::parse(&bytes), None);
    }

    #[test]
    fn every_command_is_answered_within_the_export() {
        for command in
            [command::READ, command::WRITE, command::TRIM, command::CACHE, command::WRITE_ZEROES]
        {
            assert_eq!(LIMITS.check(&request(command, 512, 1024)), Ok(()), "{command}");
        }
        assert_eq!(LIMITS.check(&request(command::FLUSH, 0, 0)), Ok(()));
        assert_eq!(LIMITS.check(&request(command::BLOCK_STATUS, 0, 512)), Ok(()));
    }

    #[test]
    fn a_range_beyond_the_end_has_the_error_of_the_specification() {
        let end = LIMITS.size;
        for (command, error) in [
            (command::READ, EINVAL),
            (command::WRITE, ENOSPC),
            (command::WRITE_ZEROES, ENOSPC),
            (command::TRIM, EINVAL),
            (command::BLOCK_STATUS, EINVAL),
        ] {
            for offset in [end - 512, end, u64::MAX - 511] {
                assert_eq!(LIMITS.check(&request(command, offset, 1024)), Err(error), "{command}");
            }
        }
    }

    #[test]
    fn what_is_not_whole_blocks_or_empty_is_refused() {
        for (offset, length) in [(1, 512), (0, 511), (0, 0), (256, 256)] {
            assert_eq!(LIMITS.check(&request(command::READ, offset, length)), Err(EINVAL));
        }
    }

    #[test]
    fn a_read_only_export_refuses_changes_as_forbidden() {
        let limits = Limits { flags: ALL | export::READ_ONLY, ..LIMITS };
        for command in [command::WRITE, command::TRIM, command::WRITE_ZEROES] {
            assert_eq!(limits.check(&request(command, 0, 512)), Err(EPERM), "{command}");
        }
        assert_eq!(limits.check(&request(command::READ, 0, 512)), Ok(()));
    }

    #[test]
    fn flags_and_commands_that_were_not_offered_are_refused() {
        let with = |command, flags| Request { flags, ..request(command, 0, 512) };
        assert_eq!(LIMITS.check(&with(command::READ, flag::DF)), Ok(()));
        let simple = Limits { structured: false, ..LIMITS };
        assert_eq!(simple.check(&with(command::READ, flag::DF)), Err(EINVAL));
        assert_eq!(LIMITS.check(&with(command::WRITE, flag::NO_HOLE)), Err(EINVAL));
        assert_eq!(LIMITS.check(&with(command::WRITE, flag::FUA)), Ok(()));
        let fast = with(command::WRITE_ZEROES, flag::FAST_ZERO);
        assert_eq!(LIMITS.check(&fast), Err(EOPNOTSUPP));
        let quick = Limits { flags: ALL | export::SEND_FAST_ZERO, ..LIMITS };
        assert_eq!(quick.check(&fast), Ok(()));
        let none = Limits { contexts: false, ..LIMITS };
        assert_eq!(none.check(&request(command::BLOCK_STATUS, 0, 512)), Err(EINVAL));
        assert_eq!(LIMITS.check(&request(99, 0, 512)), Err(EINVAL));
    }
}
