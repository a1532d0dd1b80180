use super::*;
use crate::server::cursor::Cursor;
use crate::wire::OPTION_REPLY_MAGIC;

const EXPORT: Export<'_> = Export {
    name: "disk",
    description: "a disk",
    size: 1 << 30,
    flags: export::HAS_FLAGS | export::SEND_FLUSH | export::SEND_DF,
    blocks: [512, 4096, 32 << 20],
    tells_diff: false,
    tls: false,
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
fn extended_headers_take_the_place_of_structured_replies() {
    let mut state = begun();
    let mut ask = |option, data: &[u8]| {
        let (step, replies) = answer(&mut state, option, data);
        (step, kinds(&replies), state.headers)
    };
    let ack = |headers| (Step::Continue, vec![option_reply::ACK], headers);
    let refused = |kind, headers| (Step::Continue, vec![kind], headers);
    let invalid = refused(option_reply::ERR_INVALID, Headers::Simple);
    assert_eq!(ask(option::EXTENDED_HEADERS, &[1]), invalid);
    assert_eq!(ask(option::STRUCTURED_REPLY, &[]), ack(Headers::Structured));
    assert_eq!(ask(option::EXTENDED_HEADERS, &[]), ack(Headers::Extended));
    let required = refused(option_reply::ERR_EXT_HEADER_REQD, Headers::Extended);
    assert_eq!(ask(option::STRUCTURED_REPLY, &[]), required);
    let context = queries("", &["base:allocation"]);
    assert_eq!(ask(option::SET_META_CONTEXT, &context).1.len(), 2);
    assert_eq!(ask(option::GO, &named("", &[0, 0])).0, Step::Transmit);
    assert_eq!(ask(option::EXPORT_NAME, b"disk").0, Step::Close);
}

#[test]
fn a_list_of_contexts_chooses_none() {
    let mut state = Negotiation { headers: Headers::Structured, ..begun() };
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
        let mut state = Negotiation { headers: Headers::Structured, ..begun() };
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
fn only_clients_with_replies_in_chunks_hear_of_one_chunk() {
    let flags = |headers| Negotiation { headers, ..begun() }.flags(&EXPORT);
    assert_eq!(flags(Headers::Structured) & export::SEND_DF, export::SEND_DF);
    assert_eq!(flags(Headers::Extended) & export::SEND_DF, export::SEND_DF);
    assert_eq!(flags(Headers::Simple) & export::SEND_DF, 0);
}

#[test]
fn data_cut_anywhere_is_refused_and_never_a_panic() {
    let go = named("disk", &[0, 1, 0, 3]);
    let set = queries("disk", &["base:allocation"]);
    for (option, data) in [(option::GO, go), (option::SET_META_CONTEXT, set)] {
        for end in 0..data.len() {
            let mut state = Negotiation { headers: Headers::Structured, ..begun() };
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
        let headers = if next() < 128 { Headers::Structured } else { Headers::Simple };
        let mut state = Negotiation { headers, ..begun() };
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

#[test]
fn an_export_with_tls_tells_nothing_before_tls() {
    let export = Export { tls: true, ..EXPORT };
    let mut state = begun();
    let mut ask = |option, data: &[u8]| {
        let mut replies = Vec::new();
        (state.answer(&export, option, data, &mut replies), kinds(&replies))
    };
    let required = (Step::Continue, vec![option_reply::ERR_TLS_REQD]);
    assert_eq!(ask(option::GO, &named("", &[0, 0])), required);
    assert_eq!(ask(option::INFO, &named("", &[0, 0])), required);
    assert_eq!(ask(option::LIST, &[]), required);
    assert_eq!(ask(option::STRUCTURED_REPLY, &[]), required);
    assert_eq!(ask(option::EXTENDED_HEADERS, &[]), required);
    assert_eq!(ask(option::SET_META_CONTEXT, &queries("", &["base:allocation"])), required);
    assert_eq!(ask(77, &[]), required);
    assert_eq!(ask(option::EXPORT_NAME, b""), (Step::Close, vec![]));
    assert_eq!(ask(option::ABORT, &[]), (Step::Close, vec![option_reply::ACK]));
    let invalid = (Step::Continue, vec![option_reply::ERR_INVALID]);
    assert_eq!(ask(option::STARTTLS, &[1]), invalid);
    assert_eq!(ask(option::STARTTLS, &[]), (Step::Secure, vec![option_reply::ACK]));
    assert_eq!(ask(option::STARTTLS, &[]), invalid, "once");
    assert_eq!(ask(option::GO, &named("", &[0, 0])).0, Step::Transmit);
    let (step, replies) = answer(&mut begun(), option::STARTTLS, &[]);
    assert_eq!((step, kinds(&replies)), (Step::Continue, vec![option_reply::ERR_UNSUP]));
}
