use std::collections::VecDeque;
use std::io;

use super::*;

/// What a server sends, and what the client has sent.
#[derive(Default)]
struct Wire {
    server: VecDeque<u8>,
    client: Vec<u8>,
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.server.read(buffer)
    }
}

impl Write for Wire {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.client.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn greeting(flags: u16) -> Vec<u8> {
    let mut bytes = MAGIC.to_be_bytes().to_vec();
    bytes.extend(OPTION_MAGIC.to_be_bytes());
    bytes.extend(flags.to_be_bytes());
    bytes
}

fn reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = OPTION_REPLY_MAGIC.to_be_bytes().to_vec();
    bytes.extend([option, kind, u32::try_from(data.len()).unwrap()].map(u32::to_be_bytes).concat());
    bytes.extend(data);
    bytes
}

fn export_info(size: u64, flags: u16) -> Vec<u8> {
    [&info::EXPORT.to_be_bytes()[..], &size.to_be_bytes(), &flags.to_be_bytes()].concat()
}

fn block_info(sizes: [u32; 3]) -> Vec<u8> {
    [info::BLOCK_SIZE.to_be_bytes().to_vec(), sizes.map(u32::to_be_bytes).concat()].concat()
}

fn talk(parts: &[Vec<u8>], name: &str) -> (Result<Export, NegotiateError>, Vec<u8>) {
    let mut wire = Wire { server: parts.concat().into(), client: Vec::new() };
    let result = negotiate(&mut wire, name, false, None).map(|agreed| agreed.export);
    assert!(result.is_err() || wire.server.is_empty(), "{} bytes are left", wire.server.len());
    (result, wire.client)
}

const BOTH: u16 = handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES;
const FLAGS: u16 = export::HAS_FLAGS | export::SEND_FLUSH;

fn modern(facts: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut parts = vec![
        greeting(BOTH),
        reply(option::EXTENDED_HEADERS, option_reply::ERR_UNSUP, &[]),
        reply(option::STRUCTURED_REPLY, option_reply::ACK, &[]),
    ];
    parts.extend(facts.iter().map(|fact| reply(option::GO, option_reply::INFO, fact)));
    parts.push(reply(option::GO, option_reply::ACK, &[]));
    parts
}

#[test]
fn an_export_is_what_the_server_says() {
    let facts = [export_info(1 << 30, FLAGS), vec![0, 77, 1], block_info([512, 4096, 1 << 25])];
    let (result, sent) = talk(&modern(&facts), "data");
    let blocks = Blocks { minimum: 512, preferred: 4096, maximum: 1 << 25 };
    let export = Export { size: 1 << 30, flags: FLAGS, blocks: Some(blocks) };
    assert_eq!(result.unwrap(), export);
    let go = [
        &OPTION_MAGIC.to_be_bytes()[..],
        &[0, 0, 0, 7, 0, 0, 0, 12, 0, 0, 0, 4],
        b"data",
        &[0, 1, 0, 3],
    ];
    assert!(sent.ends_with(&go.concat()), "{sent:?}");
    assert_eq!(sent[..4], [0, 0, 0, 3]);
}

#[test]
fn a_server_without_go_and_structured_replies_serves() {
    for flags in [BOTH, handshake::FIXED_NEWSTYLE] {
        let mut end = [(1_u64 << 20).to_be_bytes().to_vec(), FLAGS.to_be_bytes().to_vec()].concat();
        if flags & handshake::NO_ZEROES == 0 {
            end.extend([0; 124]);
        }
        let parts = [
            greeting(flags),
            reply(option::EXTENDED_HEADERS, option_reply::ERR_UNSUP, b"no"),
            reply(option::STRUCTURED_REPLY, option_reply::ERR_UNSUP, b"no"),
            reply(option::GO, option_reply::ERR_UNSUP, b"no"),
            end,
        ];
        let (result, sent) = talk(&parts, "x");
        let export = Export { size: 1 << 20, flags: FLAGS, blocks: None };
        assert_eq!(result.unwrap(), export);
        assert!(sent.ends_with(&[0, 0, 0, 1, 0, 0, 0, 1, b'x']));
    }
}

#[test]
fn refusals_name_their_reason() {
    for (kind, words) in [
        (option_reply::ERR_UNKNOWN, "the server has no such export ('no data')"),
        (option_reply::ERR_TLS_REQD, "the server serves the export only with TLS ('no data')"),
        (option_reply::ERR_INVALID, "the server refuses the export ('no data')"),
    ] {
        let mut parts = modern(&[]);
        *parts.last_mut().unwrap() = reply(option::GO, kind, b"no\n data");
        assert_eq!(talk(&parts, "").0.unwrap_err().to_string(), words);
    }
}

#[test]
fn servers_that_break_the_protocol_are_refused() {
    let size = || export_info(1 << 20, FLAGS);
    let mut other = modern(&[size()]);
    other[1] = reply(option::GO, option_reply::ACK, &[]);
    let mut endless = modern(&[]);
    endless.splice(3.., std::iter::repeat_n(reply(option::GO, option_reply::INFO, &size()), 1001));
    let mut long = modern(&[size()]);
    long[1] =
        [&OPTION_REPLY_MAGIC.to_be_bytes()[..], &[0, 0, 0, 11, 0, 0, 0, 1, 1, 0, 0, 0]].concat();
    for (parts, words) in [
        (vec![b"SSH-2.0-OpenSSH\r\n".to_vec()], "does not greet"),
        (vec![MAGIC.to_be_bytes().to_vec(), vec![0; 200]], "old style"),
        (vec![greeting(0)], "fixed newstyle"),
        (vec![greeting(BOTH)], "ends the connection"),
        (modern(&[]), "does not say the size"),
        (modern(&[vec![0]]), "wrong length"),
        (modern(&[export_info(1 << 63, FLAGS)]), "beyond 2^63"),
        (modern(&[export_info(1 << 20, 0)]), "no flags"),
        (modern(&[size(), block_info([3, 4096, 1 << 20])]), "contradict"),
        (modern(&[size(), block_info([0, 4096, 1 << 20])]), "contradict"),
        (modern(&[size(), block_info([512, 256, 1 << 20])]), "contradict"),
        (modern(&[size(), block_info([1, 4096, 512])]), "contradict"),
        (other, "something else"),
        (endless, "does not end"),
        (long, "more than 64 KiB"),
    ] {
        let error = talk(&parts, "").0.unwrap_err().to_string();
        assert!(error.contains(words), "{error} for {words}");
    }
}

#[test]
fn with_tls_nothing_but_the_greeting_passes_before() {
    let flags = u32::from(BOTH).to_be_bytes();
    let start =
        [&OPTION_MAGIC.to_be_bytes()[..], &option::STARTTLS.to_be_bytes(), &[0; 4]].concat();
    let before = [&flags[..], &start].concat();
    let server = [greeting(BOTH), reply(option::STARTTLS, option_reply::ACK, &[])];
    let mut wire = Wire { server: server.concat().into(), client: Vec::new() };
    let mut seen = None;
    let mut secure = |wire: &mut Wire| {
        seen = Some((wire.server.len(), wire.client.clone()));
        Err(io::Error::other("no handshake"))
    };
    let error = negotiate(&mut wire, "x", false, Some(&mut secure)).unwrap_err();
    assert_eq!(error.to_string(), "no handshake");
    assert_eq!(wire.client, before, "nothing follows a failed handshake");
    assert_eq!(seen, Some((0, before)));
}

#[test]
fn a_server_without_tls_is_refused_before_anything_is_asked_of_it() {
    for kind in [option_reply::ERR_UNSUP, option_reply::ERR_POLICY] {
        let server = [greeting(BOTH), reply(option::STARTTLS, kind, &[])].concat();
        let mut wire = Wire { server: server.into(), client: Vec::new() };
        let mut secure = |_: &mut Wire| panic!("no TLS");
        let error = negotiate(&mut wire, "x", false, Some(&mut secure)).unwrap_err();
        assert!(matches!(error, NegotiateError::NoTls));
        assert_eq!(wire.client.len(), 4 + length::OPTION);
    }
}

fn agree(parts: &[Vec<u8>]) -> Result<Agreed, NegotiateError> {
    let mut wire = Wire { server: parts.concat().into(), client: Vec::new() };
    negotiate(&mut wire, "x", false, None)
}

#[test]
fn a_server_with_extended_headers_is_asked_for_nothing_else() {
    let mut parts = modern(&[export_info(1 << 20, FLAGS)]);
    parts[1] = reply(option::EXTENDED_HEADERS, option_reply::ACK, &[]);
    let structured = parts.remove(2);
    assert_eq!(agree(&parts).unwrap().headers, Headers::Extended);
    parts[1] = reply(option::EXTENDED_HEADERS, option_reply::ERR_POLICY, &[]);
    parts.insert(2, structured);
    assert_eq!(agree(&parts).unwrap().headers, Headers::Structured);
    parts[2] = reply(option::STRUCTURED_REPLY, option_reply::ERR_UNSUP, &[]);
    assert_eq!(agree(&parts).unwrap().headers, Headers::Simple);
}

#[test]
fn a_server_with_extended_headers_and_without_go_is_refused() {
    let parts = [
        greeting(BOTH),
        reply(option::EXTENDED_HEADERS, option_reply::ACK, &[]),
        reply(option::GO, option_reply::ERR_UNSUP, &[]),
    ];
    let refused = option_reply::ERR_UNSUP;
    let error = agree(&parts).unwrap_err();
    assert!(matches!(error, NegotiateError::Refused { reply, .. } if reply == refused), "{error}");
}

#[test]
fn flags_that_depend_on_the_headers_are_no_facts_of_the_export() {
    let flags = FLAGS | export::SEND_DF | export::BLOCK_STATUS_PAYLOAD;
    let (told, plain) = (export_info(1 << 20, flags), export_info(1 << 20, FLAGS));
    assert_eq!(talk(&modern(&[told]), "x").0.unwrap(), talk(&modern(&[plain]), "x").0.unwrap());
}

/// What a server says of its contexts after `replies` to the choice of one, and what the client has sent.
fn choose(replies: &[Vec<u8>]) -> (Result<Option<u32>, NegotiateError>, Vec<u8>) {
    let mut parts = modern(&[export_info(1 << 20, FLAGS)]);
    parts.splice(3..3, replies.iter().cloned());
    let mut wire = Wire { server: parts.concat().into(), client: Vec::new() };
    let agreed = negotiate(&mut wire, "data", true, None).map(|agreed| agreed.allocation);
    (agreed, wire.client)
}

fn context(id: u32, name: &str) -> Vec<u8> {
    let data = [&id.to_be_bytes()[..], name.as_bytes()].concat();
    reply(option::SET_META_CONTEXT, option_reply::META_CONTEXT, &data)
}

#[test]
fn the_context_of_extents_is_chosen_where_the_server_has_it() {
    let ack = || reply(option::SET_META_CONTEXT, option_reply::ACK, &[]);
    let (chosen, sent) = choose(&[context(9, "base:allocation"), ack()]);
    assert_eq!(chosen.unwrap(), Some(9));
    let asked = [
        &OPTION_MAGIC.to_be_bytes()[..],
        &[0, 0, 0, 10, 0, 0, 0, 31, 0, 0, 0, 4],
        b"data",
        &[0, 0, 0, 1, 0, 0, 0, 15],
        b"base:allocation",
    ];
    assert!(sent.windows(47).any(|part| part == asked.concat()), "{sent:?}");
    assert_eq!(choose(&[ack()]).0.unwrap(), None);
    assert_eq!(choose(&[context(9, "qemu:allocation-depth"), ack()]).0.unwrap(), None);
    let unknown = reply(option::SET_META_CONTEXT, option_reply::ERR_UNSUP, b"no");
    assert_eq!(choose(&[unknown]).0.unwrap(), None);
    let endless = vec![context(9, "base:allocation"); 1001];
    assert!(choose(&endless).0.unwrap_err().to_string().contains("does not end"));
    let short = reply(option::SET_META_CONTEXT, option_reply::META_CONTEXT, &[1]);
    assert!(choose(&[short]).0.unwrap_err().to_string().contains("something else"));
}

#[test]
fn a_server_without_structured_replies_is_not_asked_for_contexts() {
    let mut parts = modern(&[export_info(1 << 20, FLAGS)]);
    parts[2] = reply(option::STRUCTURED_REPLY, option_reply::ERR_UNSUP, &[]);
    let mut wire = Wire { server: parts.concat().into(), client: Vec::new() };
    assert_eq!(negotiate(&mut wire, "data", true, None).unwrap().allocation, None);
}
