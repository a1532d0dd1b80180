//! The negotiation of a connection, option by option.

use super::cursor::Cursor;
use crate::wire::{
    MAGIC, MAX_STRING, OPTION_MAGIC, OPTION_REPLY_MAGIC, allocation, bitmap, export, handshake,
    info, length, option, option_reply,
};

/// The length of [`greeting`], in bytes.
pub const GREETING: usize = 18;
/// The longest data of an option, in bytes: a name, and many requests for facts.
pub const MAX_OPTION: u32 = 1 << 16;
/// The number of the context `base:allocation` in replies.
pub const ALLOCATION: u32 = 1;
/// The number of the context `qemu:dirty-bitmap:diff` in replies.
pub const DIFF: u32 = 2;

/// Facts of the only export.
#[derive(Clone, Copy, Debug)]
pub struct Export<'a> {
    /// The name; the empty name means the same export.
    pub name: &'a str,
    /// For people.
    pub description: &'a str,
    /// In bytes.
    pub size: u64,
    /// `export::*`, of a client with structured replies.
    pub flags: u16,
    /// Whether the export has the context `qemu:dirty-bitmap:diff`.
    pub tells_diff: bool,
    /// The smallest, the preferred and the largest length of a request, in bytes.
    pub blocks: [u32; 3],
}

/// The outcome of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The next option follows.
    Continue,
    /// Requests follow.
    Transmit,
    /// The connection ends.
    Close,
}

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

/// The first bytes of a server.
pub fn greeting() -> [u8; GREETING] {
    let flags = handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES;
    let mut bytes = [0; GREETING];
    bytes[..8].copy_from_slice(&MAGIC.to_be_bytes());
    bytes[8..16].copy_from_slice(&OPTION_MAGIC.to_be_bytes());
    bytes[16..].copy_from_slice(&flags.to_be_bytes());
    bytes
}

/// An error reply to an option, in place of the answer; `kind` is one of `option_reply::ERR_*`.
pub fn refusal(option: u32, kind: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    Replies { option, bytes: &mut bytes }.error(kind);
    bytes
}

/// A choice of metadata contexts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contexts {
    /// `base:allocation`
    pub allocation: bool,
    /// `qemu:dirty-bitmap:diff`
    pub diff: bool,
}

impl Contexts {
    /// Whether no context is chosen.
    pub fn are_none(self) -> bool {
        self == Self::default()
    }

    /// The numbers and names of the chosen contexts.
    fn named(self) -> impl Iterator<Item = (u32, &'static str)> {
        let all =
            [(self.allocation, ALLOCATION, allocation::CONTEXT), (self.diff, DIFF, bitmap::DIFF)];
        all.into_iter().filter(|(chosen, ..)| *chosen).map(|(_, id, name)| (id, name))
    }
}

/// The state of a negotiation, and the choices of the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Negotiation {
    no_zeroes: bool,
    /// Whether the client has asked for structured replies.
    pub structured: bool,
    /// The contexts chosen by the client.
    pub contexts: Contexts,
}

impl Negotiation {
    /// Begins with the client's answer to the [`greeting`]. None for unknown flags: the connection
    /// must end.
    pub fn new(client: u32) -> Option<Self> {
        let fixed = u32::from(handshake::FIXED_NEWSTYLE);
        let no_zeroes = u32::from(handshake::NO_ZEROES);
        (client & !(fixed | no_zeroes) == 0)
            .then(|| Self { no_zeroes: client & no_zeroes != 0, ..Self::default() })
    }

    /// The transmission flags told to this client.
    pub fn flags(&self, export: &Export<'_>) -> u16 {
        if self.structured { export.flags } else { export.flags & !export::SEND_DF }
    }

    /// Answers an option with `replies`.
    pub fn answer(
        &mut self,
        export: &Export<'_>,
        option: u32,
        data: &[u8],
        replies: &mut Vec<u8>,
    ) -> Step {
        let mut replies = Replies { option, bytes: replies };
        match option {
            option::EXPORT_NAME => return self.export_name(export, data, &mut replies),
            option::ABORT => {
                replies.ack();
                return Step::Close;
            }
            option::LIST if !data.is_empty() => replies.error(option_reply::ERR_INVALID),
            option::LIST => {
                replies.server(export);
                replies.ack();
            }
            option::INFO | option::GO => {
                if self.info(export, data, &mut replies) && option == option::GO {
                    return Step::Transmit;
                }
            }
            option::STRUCTURED_REPLY if !data.is_empty() => {
                replies.error(option_reply::ERR_INVALID);
            }
            option::STRUCTURED_REPLY => {
                self.structured = true;
                replies.ack();
            }
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => {
                self.contexts(export, data, &mut replies);
            }
            _ => replies.error(option_reply::ERR_UNSUP),
        }
        Step::Continue
    }

    /// Has no error reply: a client with a wrong name is sent away.
    fn export_name(&self, export: &Export<'_>, data: &[u8], replies: &mut Replies<'_>) -> Step {
        if !export.is_named(data) {
            return Step::Close;
        }
        replies.bytes.extend_from_slice(&export.size.to_be_bytes());
        replies.bytes.extend_from_slice(&self.flags(export).to_be_bytes());
        if !self.no_zeroes {
            replies.bytes.extend_from_slice(&[0; 124]);
        }
        Step::Transmit
    }

    /// Whether the client may go on to requests.
    fn info(&self, export: &Export<'_>, data: &[u8], replies: &mut Replies<'_>) -> bool {
        let Some((name, asked)) = read_info(data) else {
            replies.error(option_reply::ERR_INVALID);
            return false;
        };
        if !export.is_named(name) {
            replies.error(option_reply::ERR_UNKNOWN);
            return false;
        }
        let asks = |kind: u16| asked.chunks_exact(2).any(|one| one == kind.to_be_bytes());
        replies
            .info(info::EXPORT, &[&export.size.to_be_bytes(), &self.flags(export).to_be_bytes()]);
        if asks(info::NAME) {
            replies.info(info::NAME, &[export.name.as_bytes()]);
        }
        if asks(info::DESCRIPTION) {
            replies.info(info::DESCRIPTION, &[export.description.as_bytes()]);
        }
        let [least, preferred, most] = export.blocks.map(u32::to_be_bytes);
        replies.info(info::BLOCK_SIZE, &[&least, &preferred, &most]);
        replies.ack();
        true
    }

    fn contexts(&mut self, export: &Export<'_>, data: &[u8], replies: &mut Replies<'_>) {
        let sets = replies.option == option::SET_META_CONTEXT;
        if sets {
            // A failed choice leaves the client without contexts.
            self.contexts = Contexts::default();
        }
        let Some((name, chosen)) = read_contexts(data, sets).filter(|_| self.structured) else {
            return replies.error(option_reply::ERR_INVALID);
        };
        if !export.is_named(name) {
            return replies.error(option_reply::ERR_UNKNOWN);
        }
        let chosen = Contexts { diff: chosen.diff && export.tells_diff, ..chosen };
        for (id, name) in chosen.named() {
            let id = if sets { id } else { 0 };
            replies.reply(option_reply::META_CONTEXT, &[&id.to_be_bytes(), name.as_bytes()]);
        }
        if sets {
            self.contexts = chosen;
        }
        replies.ack();
    }
}

impl Export<'_> {
    fn is_named(&self, name: &[u8]) -> bool {
        name.is_empty() || name == self.name.as_bytes()
    }
}

/// The name and the facts asked for, of two bytes each.
fn read_info(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut cursor = Cursor(data);
    let name = cursor.string().filter(|name| name.len() <= MAX_STRING)?;
    let count = cursor.u16()?;
    let asked = cursor.bytes(usize::from(count) * 2)?;
    cursor.is_empty().then_some((name, asked))
}

/// The name, and the contexts that the queries are for.
fn read_contexts(data: &[u8], sets: bool) -> Option<(&[u8], Contexts)> {
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

/// The replies to an option.
struct Replies<'a> {
    option: u32,
    bytes: &'a mut Vec<u8>,
}

impl Replies<'_> {
    fn reply(&mut self, kind: u32, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let length = u32::try_from(length).unwrap_or_default();
        self.bytes.extend_from_slice(&OPTION_REPLY_MAGIC.to_be_bytes());
        self.bytes.extend_from_slice(&self.option.to_be_bytes());
        self.bytes.extend_from_slice(&kind.to_be_bytes());
        self.bytes.extend_from_slice(&length.to_be_bytes());
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
    }

    fn ack(&mut self) {
        self.reply(option_reply::ACK, &[]);
    }

    fn error(&mut self, kind: u32) {
        self.reply(kind, &[]);
    }

    fn info(&mut self, kind: u16, parts: &[&[u8]]) {
        let kind = kind.to_be_bytes();
        let parts: Vec<&[u8]> = [&kind[..]].into_iter().chain(parts.iter().copied()).collect();
        self.reply(option_reply::INFO, &parts);
    }

    fn server(&mut self, export: &Export<'_>) {
        let name = export.name.as_bytes();
        let length = u32::try_from(name.len()).unwrap_or_default().to_be_bytes();
        self.reply(option_reply::SERVER, &[&length, name, export.description.as_bytes()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPORT: Export<'_> = Export {
        name: "disk",
        description: "a disk",
        size: 1 << 30,
        flags: export::HAS_FLAGS | export::SEND_FLUSH | export::SEND_DF,
        blocks: [512, 4096, 32 << 20],
        tells_diff: false,
    };

    fn begun() -> Negotiation {
        Negotiation::new(3).unwrap()
    }

    fn answer(state: &mut Negotiation, option: u32, data: &[u8]) -> (Step, Vec<u8>) {
        let mut replies = Vec::new();
        let step = state.answer(&EXPORT, option, data, &mut replies);
        (step, replies)
    }

    /// The types of the replies.
    fn kinds(mut replies: &[u8]) -> Vec<u32> {
        let mut kinds = Vec::new();
        while !replies.is_empty() {
            let mut cursor = Cursor(replies);
            assert_eq!(cursor.bytes(8).unwrap(), OPTION_REPLY_MAGIC.to_be_bytes());
            cursor.u32().unwrap();
            kinds.push(cursor.u32().unwrap());
            cursor.string().unwrap();
            replies = cursor.0;
        }
        kinds
    }

    fn named(name: &str, rest: &[u8]) -> Vec<u8> {
        let length = u32::try_from(name.len()).unwrap();
        [&length.to_be_bytes(), name.as_bytes(), rest].concat()
    }

    fn queries(name: &str, queries: &[&str]) -> Vec<u8> {
        let count = u32::try_from(queries.len()).unwrap().to_be_bytes();
        let rest = queries.iter().flat_map(|query| named(query, &[]));
        named(name, &count.into_iter().chain(rest).collect::<Vec<_>>())
    }

    #[test]
    fn go_tells_the_facts_and_begins_requests() {
        let asked = [0, 3, 0, 1, 0, 2, 0, 3];
        let (step, replies) = answer(&mut begun(), option::GO, &named("disk", &asked));
        assert_eq!(step, Step::Transmit);
        let info = option_reply::INFO;
        assert_eq!(kinds(&replies), [info, info, info, info, option_reply::ACK]);
        let (step, _) = answer(&mut begun(), option::INFO, &named("", &[0, 0]));
        assert_eq!(step, Step::Continue);
    }

    #[test]
    fn another_export_is_unknown() {
        let (step, replies) = answer(&mut begun(), option::GO, &named("other", &[0, 0]));
        assert_eq!((step, kinds(&replies)), (Step::Continue, vec![option_reply::ERR_UNKNOWN]));
        assert_eq!(answer(&mut begun(), option::EXPORT_NAME, b"other").0, Step::Close);
    }

    #[test]
    fn export_name_ends_with_zeroes_unless_both_sides_do_without() {
        let length = |client| {
            let mut state = Negotiation::new(client).unwrap();
            answer(&mut state, option::EXPORT_NAME, b"").1.len()
        };
        assert_eq!((length(1), length(3)), (134, 10));
    }

    #[test]
    fn contexts_are_for_clients_with_structured_replies() {
        let mut state = begun();
        let data = queries("disk", &["other:context", "base:allocation"]);
        let (_, replies) = answer(&mut state, option::SET_META_CONTEXT, &data);
        assert_eq!(kinds(&replies), [option_reply::ERR_INVALID]);
        assert!(state.contexts.are_none());
        answer(&mut state, option::STRUCTURED_REPLY, &[]);
        let (_, replies) = answer(&mut state, option::SET_META_CONTEXT, &data);
        assert_eq!(kinds(&replies), [option_reply::META_CONTEXT, option_reply::ACK]);
        assert!(state.contexts.allocation);
        let none = queries("disk", &["base:"]);
        let (_, replies) = answer(&mut state, option::SET_META_CONTEXT, &none);
        assert_eq!((kinds(&replies), state.contexts.are_none()), (vec![option_reply::ACK], true));
    }

    #[test]
    fn a_list_of_contexts_chooses_none() {
        let mut state = Negotiation { structured: true, ..begun() };
        for asked in [&[][..], &["base:"], &["base:allocation"]] {
            let data = queries("", asked);
            let (_, replies) = answer(&mut state, option::LIST_META_CONTEXT, &data);
            assert_eq!(kinds(&replies), [option_reply::META_CONTEXT, option_reply::ACK]);
        }
        assert!(state.contexts.are_none());
    }

    #[test]
    fn only_an_export_with_a_base_has_the_context_of_changes() {
        let both = queries("", &["qemu:dirty-bitmap:diff", "base:allocation"]);
        for tells_diff in [false, true] {
            let export = Export { tells_diff, ..EXPORT };
            let mut state = Negotiation { structured: true, ..begun() };
            let mut replies = Vec::new();
            state.answer(&export, option::SET_META_CONTEXT, &both, &mut replies);
            assert_eq!(state.contexts, Contexts { allocation: true, diff: tells_diff });
            assert_eq!(kinds(&replies).len(), 2 + usize::from(tells_diff));
            for (query, count) in [("qemu:", 1), ("qemu:dirty-bitmap:", 1), ("base:", 1)] {
                let mut replies = Vec::new();
                let data = queries("", &[query]);
                state.answer(&export, option::LIST_META_CONTEXT, &data, &mut replies);
                let hidden = usize::from(!tells_diff && query != "base:");
                assert_eq!(kinds(&replies).len(), 1 + count - hidden, "{query}");
            }
        }
    }

    #[test]
    fn only_clients_with_structured_replies_hear_of_one_chunk() {
        let flags = |structured| Negotiation { structured, ..begun() }.flags(&EXPORT);
        assert_eq!(flags(true) & export::SEND_DF, export::SEND_DF);
        assert_eq!(flags(false) & export::SEND_DF, 0);
    }

    #[test]
    fn data_cut_anywhere_is_refused_and_never_a_panic() {
        let go = named("disk", &[0, 1, 0, 3]);
        let set = queries("disk", &["base:allocation"]);
        for (option, data) in [(option::GO, go), (option::SET_META_CONTEXT, set)] {
            for end in 0..data.len() {
                let mut state = Negotiation { structured: true, ..begun() };
                let (step, replies) = answer(&mut state, option, &data[..end]);
                let refused = (Step::Continue, vec![option_reply::ERR_INVALID]);
                assert_eq!((step, kinds(&replies)), refused, "{option} cut at {end}");
            }
        }
    }

    #[test]
    fn random_options_are_answered_with_whole_replies() {
        let mut seed = 1_u64;
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed.to_be_bytes()[0]
        };
        for _ in 0..20_000 {
            let mut state = Negotiation { structured: next() < 128, ..begun() };
            let option = u32::from(next() % 14);
            let length = next() % 40;
            let data: Vec<u8> = (0..length).map(|_| next() % 8).collect();
            let (_, replies) = answer(&mut state, option, &data);
            if option != option::EXPORT_NAME {
                kinds(&replies);
            }
        }
    }

    #[test]
    fn a_header_without_the_magic_number_or_with_too_much_data_ends_the_connection() {
        let header = |magic: u64, length: u32| {
            let bytes = [&magic.to_be_bytes()[..], &7_u32.to_be_bytes(), &length.to_be_bytes()];
            OptionHeader::parse(&bytes.concat().try_into().unwrap())
        };
        assert_eq!(header(OPTION_MAGIC, 5), Some(OptionHeader { option: 7, length: 5 }));
        assert_eq!(header(OPTION_MAGIC + 1, 5), None);
        assert_eq!(header(OPTION_MAGIC, u32::MAX), None);
        assert!(Negotiation::new(4).is_none());
    }
}
