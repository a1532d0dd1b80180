//! Parses the options of a client.

use super::Contexts;
use crate::server::cursor::Cursor;
use crate::wire::{MAX_STRING, OPTION_MAGIC, allocation, bitmap, length};

/// The longest data of an option, in bytes: a name, and many requests for facts.
pub const MAX_OPTION: u32 = 1 << 16;

/// The header of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionHeader {
    /// `option::*`, or a number that no server knows.
    pub option: u32,
    /// The length of the data behind the header, in bytes.
    pub length: u32,
}

impl OptionHeader {
    /// Reads a header. None without the magic number, or with more data than any option has: the
    /// connection must end.
    pub fn parse(bytes: &[u8; length::OPTION]) -> Option<Self> {
        let mut cursor = Cursor(bytes);
        let magic = cursor.bytes(8)?;
        let (option, length) = (cursor.u32()?, cursor.u32()?);
        (magic == OPTION_MAGIC.to_be_bytes() && length <= MAX_OPTION)
            .then_some(Self { option, length })
    }
}

/// The name and the facts asked for, of two bytes each.
pub(super) fn read_info(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut cursor = Cursor(data);
    let name = cursor.string().filter(|name| name.len() <= MAX_STRING)?;
    let count = cursor.u16()?;
    let asked = cursor.bytes(usize::from(count) * 2)?;
    cursor.is_empty().then_some((name, asked))
}

/// The name, and the contexts that the queries are for.
pub(super) fn read_contexts(data: &[u8], sets: bool) -> Option<(&[u8], Contexts)> {
    let mut cursor = Cursor(data);
    let name = cursor.string().filter(|name| name.len() <= MAX_STRING)?;
    let count = cursor.u32()?;
    // A list without queries is for all contexts.
    let all = !sets && count == 0;
    let mut chosen = Contexts { allocation: all, diff: all };
    for _ in 0..count {
        let query = cursor.string().filter(|query| query.len() <= MAX_STRING)?;
        let is = |name: &str| query == name.as_bytes();
        // A list may be for all contexts of a namespace.
        chosen.allocation |= is(allocation::CONTEXT) || !sets && is("base:");
        let space = is("qemu:") || is("qemu:dirty-bitmap:");
        chosen.diff |= is(bitmap::DIFF) || !sets && space;
    }
    cursor.is_empty().then_some((name, chosen))
}
