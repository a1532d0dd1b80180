//! Which ranges take space, as servers say.

use super::*;

use ublk_core::allocation::Allocation;

const DATA: Allocation = Allocation { length: 0, hole: false, zero: false, changed: false };
const HOLE: Allocation = Allocation { hole: true, zero: true, ..DATA };

fn of(length: u64, state: Allocation) -> Allocation {
    Allocation { length, ..state }
}

/// A server with 64 KiB of data at 128 KiB, and holes around the data.
fn sparse(manners: Manners) -> Server {
    let server = Server::new(manners);
    lock(&server.state.disk)[128 << 10..192 << 10].fill(7);
    server
}

fn ask(target: &OnRemote, offset: u64) -> Allocation {
    target.allocation(offset, (1 << 20) - offset).unwrap()
}

fn connections(server: &Server) -> usize {
    server.state.connections.load(Ordering::Relaxed)
}

#[test]
fn ranges_have_the_state_that_the_server_says() {
    for headers in [Headers::Structured, Headers::Extended] {
        let server = sparse(Manners { headers, ..Manners::default() });
        let target = connect(&server);
        assert_eq!(ask(&target, 0), of(128 << 10, HOLE));
        assert_eq!(ask(&target, 128 << 10), of(64 << 10, DATA));
        assert_eq!(ask(&target, 132 << 10), of(60 << 10, DATA), "32 bits, with extended headers");
        assert_eq!(target.allocation(192 << 10, 4096).unwrap(), of(4096, HOLE));
        assert_eq!(ask(&target, 192 << 10), of((1 << 20) - (192 << 10), HOLE));
        // What has been written shows at once.
        lock(&server.state.disk)[0] = 1;
        assert_eq!(ask(&target, 0), of(512, DATA), "the extent ends inside the block");
        assert_eq!(connections(&server), 2, "one for all questions");
    }
}

#[test]
fn the_part_of_an_extent_in_a_block_counts_for_nothing() {
    let server = sparse(Manners { blocks: Some([4096, 4096, 1 << 20]), ..Manners::default() });
    let target = connect(&server);
    lock(&server.state.disk)[8192 + 100] = 1;
    assert_eq!(ask(&target, 0), of(8192, HOLE));
    assert_eq!(ask(&target, 8192), of(4096, DATA), "a hole of 100 bytes");
}

#[test]
fn a_server_that_may_hide_writes_from_other_connections_is_not_asked() {
    for (flags, state) in [
        (ALL & !export::CAN_MULTI_CONN, DATA),
        (ALL & !export::CAN_MULTI_CONN | export::READ_ONLY, HOLE),
    ] {
        let server = sparse(Manners { flags, ..Manners::default() });
        let asked = Presentation { read_only: true, ..Presentation::default() };
        let target = nbd::connect(&server.uri(), NbdOptions::default(), asked).unwrap();
        assert_eq!(Allocation { length: 0, ..ask(&target, 0) }, state, "{flags:x}");
    }
}

#[test]
fn where_the_server_does_not_say_all_ranges_take_space() {
    for manners in [
        Manners { extents: false, ..Manners::default() },
        Manners { headers: Headers::Simple, ..Manners::default() },
    ] {
        let server = sparse(manners);
        let target = connect(&server);
        assert_eq!(ask(&target, 0), of(1 << 20, DATA));
        let before = connections(&server);
        assert_eq!(ask(&target, 0), of(1 << 20, DATA));
        assert_eq!(connections(&server), before, "not asked again at once");
    }
    let server = sparse(Manners::default());
    let target = connect(&server);
    server.misbehave(command::BLOCK_STATUS, Misdeed::Fails(22), 1);
    assert_eq!(ask(&target, 0), of(1 << 20, DATA));
    assert_eq!(ask(&target, 0), of(128 << 10, HOLE), "one error is of one question");
}

#[test]
fn no_answer_that_breaks_the_protocol_is_believed() {
    use Misdeed::{
        Chunks, Cut, DataForWrite, Endless, Garbage, HalfAReply, Hole, OtherCookie, OtherOffset,
        Simple, UnknownChunk,
    };
    let all = [Cut, DataForWrite, Garbage, HalfAReply, Hole, OtherCookie, Simple, UnknownChunk]
        .into_iter()
        .flat_map(|one| [(Headers::Structured, one), (Headers::Extended, one)]);
    let others = [
        (Headers::Structured, Chunks(Headers::Extended)),
        (Headers::Extended, Chunks(Headers::Structured)),
        (Headers::Extended, OtherOffset),
        (Headers::Extended, Endless),
    ];
    for (headers, misdeed) in all.chain(others) {
        let server = sparse(Manners { headers, ..Manners::default() });
        let target = connect(&server);
        server.misbehave(command::BLOCK_STATUS, misdeed, 1);
        assert_eq!(ask(&target, 0), of(1 << 20, DATA), "{misdeed:?}, {headers:?}");
    }
    let server = sparse(Manners::default());
    let target = connect(&server);
    server.misbehave(command::BLOCK_STATUS, Misdeed::Twice, 1);
    assert_eq!(ask(&target, 0), of(128 << 10, HOLE));
    assert_eq!(ask(&target, 128 << 10), of(64 << 10, DATA), "not the second answer to the first");
}

#[test]
fn a_silent_server_is_given_up() {
    let server = sparse(Manners::default());
    let connect_timeout = Duration::from_millis(100);
    let options = NbdOptions { connect_timeout, ..NbdOptions::default() };
    let target = nbd::connect(&server.uri(), options, Presentation::default()).unwrap();
    server.misbehave(command::BLOCK_STATUS, Misdeed::Mute, 1);
    assert_eq!(ask(&target, 0), of(1 << 20, DATA));
}

#[test]
fn a_server_that_has_been_away_is_asked_anew() {
    let server = sparse(Manners::default());
    let sim = Sim::new(SimConfig::blocking(1));
    let target = connect(&server);
    assert_eq!(ask(&target, 0), of(128 << 10, HOLE));
    server.stop();
    server.come_back();
    assert_eq!(ask(&target, 0), of(128 << 10, HOLE));
    let before = connections(&server);
    let (device, client) = create(&sim, target);
    assert_eq!(read(&client, 0, 512), Ok(vec![0; 512]));
    assert_eq!(connections(&server), before + 1);
    end(&sim, &device, client);
}

#[test]
fn a_connection_for_questions_makes_room_for_one_of_a_session() {
    let server = sparse(Manners::default());
    let target = connect(&server);
    assert_eq!(ask(&target, 0), of(128 << 10, HOLE));
    let sim = Sim::new(SimConfig::blocking(1));
    let (device, client) = create(&sim, target);
    let state = &server.state;
    let present = |count| move || state.present.load(Ordering::Relaxed) == count;
    until("two connections", present(2));
    server.misbehave(command::READ, Misdeed::Cut, 1);
    assert_eq!(read(&client, 0, 512), Ok(vec![0; 512]));
    until("one connection", present(1));
    end(&sim, &device, client);
}
