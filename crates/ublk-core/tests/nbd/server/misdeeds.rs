//! What a server does wrong.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;

use ublk_nbd::Headers;
use ublk_nbd::wire::chunk;

use super::replies::{Request, simple};
use super::{Rng, State};

/// What the server does wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misdeed {
    /// Sends a reply that nobody has asked for.
    UnknownCookie,
    /// Answers with the cookie that another request of the same place has had or will have.
    OtherCookie,
    /// Answers twice.
    Twice,
    /// Sends bytes that begin no reply.
    Garbage,
    /// Sends a chunk outside of the read.
    Outside,
    /// Sends a chunk that is longer than the read.
    TooLong,
    /// Sends a byte twice.
    Overlap,
    /// Sends data to a write.
    DataForWrite,
    /// Answers a read with a simple reply, after structured replies were agreed on.
    Simple,
    /// Answers with chunks of these headers, also where others were agreed on.
    Chunks(Headers),
    /// Answers with the offset of another request.
    OtherOffset,
    /// Sends the beginning of a chunk of more than 4 GiB.
    Endless,
    /// Answers with zeros, in place of the data, also to a write.
    Hole,
    /// Sends a chunk of an unknown type.
    UnknownChunk,
    /// Sends half of a reply and ends the connection.
    HalfAReply,
    /// Ends the connection.
    Cut,
    /// Says that the server is ending.
    Ending,
    /// Sends random bytes in place of everything.
    Noise,
    /// Sends the right reply with some bits flipped, and ends the connection: where the length has grown,
    /// the client waits for the rest.
    Flips,
    /// Does anything of the above, or nothing wrong.
    Anything,
    /// Reads on, and answers nothing any more.
    Mute,
    /// Sends half of a reply, reads on, and answers nothing any more.
    MuteMidway,
    /// Does not even read any more.
    Deaf,
    /// Leaves out a byte of a read.
    Gap,
    /// Fails with this error.
    Fails(u32),
    /// Takes the connection and the negotiation, and ends the connection.
    NoService,
}

/// Sends what is wrong; whether the connection ends.
pub(super) fn misbehave(
    state: &State,
    request: &Request,
    misdeed: Misdeed,
    rng: &mut Rng,
    stream: &mut &UnixStream,
) -> io::Result<bool> {
    use Misdeed::{
        Chunks, Cut, DataForWrite, Ending, Endless, Flips, Gap, Garbage, HalfAReply, Noise,
        OtherCookie, OtherOffset, Outside, Overlap, Simple, TooLong, Twice, UnknownChunk,
        UnknownCookie,
    };
    const REST: [Misdeed; 20] = [
        Chunks(Headers::Structured),
        Chunks(Headers::Extended),
        OtherOffset,
        Endless,
        OtherCookie,
        Cut,
        DataForWrite,
        Ending,
        Flips,
        Garbage,
        Gap,
        HalfAReply,
        Noise,
        Outside,
        Overlap,
        Simple,
        TooLong,
        Twice,
        UnknownChunk,
        UnknownCookie,
    ];
    if misdeed == Misdeed::Anything {
        let at = usize::try_from(rng.next(40)).unwrap();
        // A flush has no bytes to leave out or to send twice.
        let other = REST.get(at).filter(|one| request.length > 0 || !matches!(one, Gap | Overlap));
        return match other {
            Some(&other) => misbehave(state, request, other, rng, stream),
            None => {
                let reply = request.reply(state, rng).concat();
                stream.write_all(&reply).map(|()| false)
            }
        };
    }
    let Request { cookie, offset, length, .. } = *request;
    let plain = |request: Request| request.done();
    let data = vec![0x55; length as usize];
    let at = |offset: u64| offset.to_be_bytes();
    // Where simple replies were agreed on, chunks that would be right otherwise.
    let chunked = match request.headers {
        Headers::Simple => Request { headers: Headers::Structured, ..*request },
        _ => *request,
    };
    let right = chunked.reply(state, rng).concat();
    let (bytes, ends) = match misdeed {
        Misdeed::UnknownCookie => (plain(Request { cookie: [0xff; 8], ..*request }), false),
        Misdeed::OtherCookie => {
            let mut other = cookie;
            other[3] ^= 1;
            (plain(Request { cookie: other, ..*request }), false)
        }
        Misdeed::Twice => ([right.clone(), right].concat(), false),
        Misdeed::Garbage => (vec![0x42; 64], false),
        Misdeed::Outside => {
            (chunked.chunk(1, chunk::OFFSET_DATA, &[&at(offset + 512), &data]), false)
        }
        Misdeed::TooLong => {
            (chunked.chunk(1, chunk::OFFSET_DATA, &[&at(offset), &data, &[1; 512]]), false)
        }
        Misdeed::Overlap => {
            let one = chunked.chunk(0, chunk::OFFSET_DATA, &[&at(offset), &data]);
            let two = chunked.chunk(1, chunk::OFFSET_DATA, &[&at(offset), &data[..1]]);
            ([one, two].concat(), false)
        }
        Misdeed::DataForWrite => {
            (chunked.chunk(1, chunk::OFFSET_DATA, &[&at(offset), &data]), false)
        }
        Misdeed::Simple => (simple(0, cookie, &request.data(state)), false),
        Misdeed::Chunks(headers) => {
            (Request { headers, ..*request }.reply(state, rng).concat(), false)
        }
        Misdeed::OtherOffset => {
            let other = Request { offset: offset ^ 512, ..chunked };
            // With extended headers the header has the offset, too.
            (other.chunk(1, chunk::OFFSET_DATA, &[&at(offset), &data]), false)
        }
        Misdeed::Endless => {
            let header = Request { headers: Headers::Extended, ..*request };
            let mut bytes = header.chunk(1, chunk::OFFSET_DATA, &[&at(offset), &data]);
            bytes[27] = 1;
            (bytes, false)
        }
        Misdeed::Hole => {
            let place = [&at(offset)[..], &length.to_be_bytes()].concat();
            (chunked.chunk(1, chunk::OFFSET_HOLE, &[&place]), false)
        }
        Misdeed::UnknownChunk => (chunked.chunk(1, 77, &[&[1; 8]]), false),
        Misdeed::HalfAReply => (right[..right.len() / 2].to_vec(), true),
        Misdeed::Cut => (Vec::new(), true),
        Misdeed::Ending => (request.failure(108), false),
        Misdeed::Noise => {
            let noise = |_| u8::try_from(rng.next(256)).unwrap();
            ((0..4096).map(noise).collect(), false)
        }
        Misdeed::Flips => {
            let mut bytes = right;
            for _ in 0..=rng.next(3) {
                let at = usize::try_from(rng.next(bytes.len().min(40) as u64)).unwrap();
                bytes[at] ^= 1 << rng.next(8);
            }
            (bytes, true)
        }
        Misdeed::Gap => {
            let rest = &data[1..];
            (chunked.chunk(1, chunk::OFFSET_DATA, &[&at(offset + 1), rest]), false)
        }
        Misdeed::Fails(_)
        | Misdeed::NoService
        | Misdeed::Anything
        | Misdeed::Mute
        | Misdeed::MuteMidway
        | Misdeed::Deaf => unreachable!("done before"),
    };
    stream.write_all(&bytes)?;
    Ok(ends)
}
