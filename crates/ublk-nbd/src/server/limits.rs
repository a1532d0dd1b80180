//! Which requests of a client an export carries out.

use crate::wire::{command, export, flag};
use crate::{Headers, Request};

/// The facts of an export that decide which requests are answered.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// In bytes.
    pub size: u64,
    /// The unit of offsets and lengths, in bytes: a power of two.
    pub block: u32,
    /// `export::*`, as told to the client.
    pub flags: u16,
    /// The headers agreed on with the client.
    pub headers: Headers,
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
    /// Checks that the export may carry out a request.
    ///
    /// # Errors
    /// The error of the reply, an errno of Linux.
    pub fn check(&self, request: &Request) -> Result<(), u32> {
        let Request { command, offset, length, .. } = *request;
        let told = |flag: u16| self.flags & flag != 0;
        let (known, flags) = match command {
            command::READ => (true, if self.headers.have_chunks() { flag::DF } else { 0 }),
            command::WRITE if self.headers == Headers::Extended => (true, flag::PAYLOAD_LEN),
            command::WRITE => (true, 0),
            command::FLUSH => (told(export::SEND_FLUSH), 0),
            command::TRIM => (told(export::SEND_TRIM | export::READ_ONLY), 0),
            command::CACHE => (told(export::SEND_CACHE), 0),
            command::WRITE_ZEROES => {
                let known = told(export::SEND_WRITE_ZEROES | export::READ_ONLY);
                (known, flag::NO_HOLE | flag::FAST_ZERO)
            }
            command::BLOCK_STATUS => (self.contexts, flag::REQ_ONE),
            _ => (false, 0),
        };
        let fast = command == command::WRITE_ZEROES && request.has(flag::FAST_ZERO);
        if known && fast && !told(export::SEND_FAST_ZERO) {
            return Err(EOPNOTSUPP);
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
        if length == 0 || moves && length > MAX_LENGTH.into() {
            return Err(EINVAL);
        }
        if offset.checked_add(length).is_none_or(|end| end > self.size) {
            let fills = matches!(command, command::WRITE | command::WRITE_ZEROES);
            return Err(if fills { ENOSPC } else { EINVAL });
        }
        let mask = u64::from(self.block) - 1;
        if (offset | length) & mask != 0 {
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
    const LIMITS: Limits = Limits {
        size: 1 << 20,
        block: 512,
        flags: ALL,
        headers: Headers::Structured,
        contexts: true,
    };

    fn request(command: u16, offset: u64, length: u64) -> Request {
        Request { flags: 0, command, cookie: 7, offset, length }
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
    fn a_range_without_whole_blocks_is_refused() {
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
        let simple = Limits { headers: Headers::Simple, ..LIMITS };
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

    #[test]
    fn with_extended_headers_only_writes_have_a_payload() {
        let limits = Limits { headers: Headers::Extended, ..LIMITS };
        let with = |command, flags| limits.check(&Request { flags, ..request(command, 0, 512) });
        assert_eq!(with(command::WRITE, flag::PAYLOAD_LEN), Ok(()));
        assert_eq!(with(command::WRITE, flag::PAYLOAD_LEN | flag::FUA), Ok(()));
        assert_eq!(with(command::WRITE, 0), Ok(()), "as qemu writes");
        assert_eq!(with(command::READ, flag::DF), Ok(()));
        for command in [command::READ, command::TRIM, command::WRITE_ZEROES, command::BLOCK_STATUS]
        {
            assert_eq!(with(command, 0), Ok(()), "{command}");
            assert_eq!(with(command, flag::PAYLOAD_LEN), Err(EINVAL), "{command}");
        }
        let write = Request { flags: flag::PAYLOAD_LEN, ..request(command::WRITE, 0, 512) };
        assert_eq!(LIMITS.check(&write), Err(EINVAL), "the flag needs extended headers");
    }

    #[test]
    fn a_length_of_more_than_32_bits_is_checked_like_any_other() {
        let limits = Limits { size: 6 << 32, headers: Headers::Extended, ..LIMITS };
        for command in [command::TRIM, command::WRITE_ZEROES, command::BLOCK_STATUS] {
            assert_eq!(limits.check(&request(command, 1 << 32, 5 << 32)), Ok(()), "{command}");
            let beyond = limits.check(&request(command, 2 << 32, 5 << 32));
            let fills = command == command::WRITE_ZEROES;
            assert_eq!(beyond, Err(if fills { ENOSPC } else { EINVAL }), "{command}");
            let wraps = limits.check(&request(command, 512, u64::MAX - 511));
            assert_eq!(wraps, beyond, "{command}");
        }
        assert_eq!(limits.check(&request(command::READ, 0, 1 << 32)), Err(EINVAL));
    }
}
