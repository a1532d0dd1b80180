//! An NBD server in this process, with manners that a test chooses.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{env, fs, process, thread};

use ublk_nbd::wire::{
    MAGIC, OPTION_MAGIC, OPTION_REPLY_MAGIC, REQUEST_MAGIC, SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC, chunk, command, export, flag, handshake, info, option, option_reply,
};

/// The flags of a server that can do everything.
pub(crate) const ALL: u16 = export::HAS_FLAGS
    | export::SEND_FLUSH
    | export::SEND_FUA
    | export::SEND_TRIM
    | export::SEND_WRITE_ZEROES
    | export::CAN_MULTI_CONN;

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
    /// Leaves out a byte of a read.
    Gap,
    /// Fails with this error.
    Fails(u32),
    /// Takes the connection and the negotiation, and ends the connection.
    NoService,
}

/// Stands for every command.
pub(crate) const ANY: u16 = u16::MAX - 1;

/// A server's manners.
pub(crate) struct Manners {
    pub(crate) size: u64,
    pub(crate) flags: u16,
    pub(crate) blocks: Option<[u32; 3]>,
    /// Offers structured replies.
    pub(crate) structured: bool,
    /// Holds replies back to send them in another order, and cuts reads into pieces.
    pub(crate) shuffles: bool,
    pub(crate) seed: u64,
}

impl Default for Manners {
    fn default() -> Self {
        Self { size: 1 << 20, flags: ALL, blocks: None, structured: true, shuffles: false, seed: 1 }
    }
}

/// What a server and its connections share.
pub(crate) struct State {
    pub(crate) manners: Manners,
    pub(crate) disk: Mutex<Vec<u8>>,
    /// Commands carried out, in order.
    pub(crate) log: Mutex<Vec<(u16, u16)>>,
    /// The misdeed of requests of this command, and how often.
    misdeed: Mutex<Option<(u16, Misdeed, usize)>>,
    pub(crate) connections: AtomicUsize,
    /// One request in so many ends the connection; 0: none.
    pub(crate) cuts: AtomicU64,
    open: Mutex<Vec<UnixStream>>,
    ended: AtomicBool,
}

pub(crate) struct Server {
    pub(crate) state: Arc<State>,
    path: PathBuf,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    pub(crate) fn new(manners: Manners) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("ublk-nbd-{}-{number}", process::id()));
        let size = usize::try_from(manners.size).unwrap();
        let state = State {
            disk: Mutex::new(vec![0; size]),
            manners,
            log: Mutex::default(),
            misdeed: Mutex::default(),
            connections: AtomicUsize::new(0),
            cuts: AtomicU64::new(0),
            open: Mutex::default(),
            ended: AtomicBool::new(false),
        };
        let this = Self { state: Arc::new(state), path };
        this.listen();
        this
    }

    pub(crate) fn uri(&self) -> String {
        format!("nbd+unix:///x?socket={}", self.path.display())
    }

    fn listen(&self) {
        let _nothing = fs::remove_file(&self.path);
        let listener = UnixListener::bind(&self.path).unwrap();
        let state = Arc::clone(&self.state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                if state.ended.load(Ordering::Relaxed) {
                    return;
                }
                state.connections.fetch_add(1, Ordering::Relaxed);
                lock(&state.open).push(stream.try_clone().unwrap());
                let state = Arc::clone(&state);
                thread::spawn(move || {
                    let _end = serve(&state, &stream);
                    let _gone = stream.shutdown(std::net::Shutdown::Both);
                });
            }
        });
    }

    /// Nobody listens any more, and all connections end.
    pub(crate) fn stop(&self) {
        self.state.ended.store(true, Ordering::Relaxed);
        let _woken = UnixStream::connect(&self.path);
        let _nothing = fs::remove_file(&self.path);
        self.hang_up();
    }

    /// All connections end.
    pub(crate) fn hang_up(&self) {
        for stream in lock(&self.state.open).drain(..) {
            let _gone = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Listens again after [`stop`](Self::stop).
    pub(crate) fn come_back(&self) {
        self.state.ended.store(false, Ordering::Relaxed);
        self.listen();
    }

    /// The next `times` requests of `command` meet with `misdeed`.
    pub(crate) fn misbehave(&self, command: u16, misdeed: Misdeed, times: usize) {
        *lock(&self.state.misdeed) = Some((command, misdeed, times));
    }

    pub(crate) fn behave(&self) {
        *lock(&self.state.misdeed) = None;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Rng(u64);

impl Rng {
    fn next(&mut self, below: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

fn serve(state: &State, stream: &UnixStream) -> io::Result<()> {
    let mut stream = stream;
    let structured = negotiate(state, &mut stream)?;
    let number = state.connections.load(Ordering::Relaxed) as u64;
    let mut rng = Rng(state.manners.seed.wrapping_mul(977).wrapping_add(number));
    if state.misdeed_of(u16::MAX).is_some() {
        return Ok(());
    }
    let mut held: Vec<Vec<u8>> = Vec::new();
    loop {
        // What is held back goes out once nothing else comes.
        if !held.is_empty() && (held.len() > 6 || rng.next(3) == 0 || !is_readable(stream)) {
            let at = usize::try_from(rng.next(held.len() as u64)).unwrap();
            stream.write_all(&held.swap_remove(at))?;
            continue;
        }
        let mut header = [0; 28];
        stream.read_exact(&mut header)?;
        assert_eq!(header[..4], REQUEST_MAGIC.to_be_bytes());
        let flags = u16::from_be_bytes([header[4], header[5]]);
        let command = u16::from_be_bytes([header[6], header[7]]);
        let cookie: [u8; 8] = header[8..16].try_into().unwrap();
        let offset = u64::from_be_bytes(header[16..24].try_into().unwrap());
        let length = u32::from_be_bytes(header[24..].try_into().unwrap());
        let mut data = vec![0; if command == command::WRITE { length as usize } else { 0 }];
        stream.read_exact(&mut data)?;
        if command == command::DISC {
            return Ok(());
        }
        let cuts = state.cuts.load(Ordering::Relaxed);
        let cut = cuts > 0 && rng.next(cuts) == 0;
        if cut && rng.next(2) == 0 {
            return Ok(());
        }
        let request = Request { flags, command, cookie, offset, length };
        let misdeed = state.misdeed_of(command);
        if let Some(Misdeed::Fails(error)) = misdeed {
            stream.write_all(&request.failure(structured, error))?;
            continue;
        }
        state.carry_out(&request, &data);
        if cut {
            return Ok(());
        }
        if let Some(misdeed) = misdeed {
            if misdeed_bytes(state, &request, misdeed, &mut rng, &mut stream)? {
                return Ok(());
            }
            continue;
        }
        let pieces = request.reply(state, structured, &mut rng);
        if state.manners.shuffles {
            held.extend(merge_last(pieces, &mut rng));
        } else {
            stream.write_all(&pieces.concat())?;
        }
    }
}

/// The pieces of a reply whose last one must come last: in any order but for that.
fn merge_last(mut pieces: Vec<Vec<u8>>, rng: &mut Rng) -> Vec<Vec<u8>> {
    let last = pieces.pop().unwrap_or_default();
    for at in (1..pieces.len()).rev() {
        pieces.swap(at, usize::try_from(rng.next(at as u64 + 1)).unwrap());
    }
    pieces.push(last);
    vec![pieces.concat()]
}

fn is_readable(stream: &UnixStream) -> bool {
    use std::os::fd::AsRawFd;
    let mut poll = libc::pollfd { fd: stream.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one struct of ours.
    unsafe { libc::poll(&raw mut poll, 1, 1) > 0 }
}

struct Request {
    flags: u16,
    command: u16,
    cookie: [u8; 8],
    offset: u64,
    length: u32,
}

impl State {
    /// The misdeed that a request of `command` meets with; each counts once.
    fn misdeed_of(&self, command: u16) -> Option<Misdeed> {
        let mut misdeed = lock(&self.misdeed);
        let (wanted, what, times) = misdeed.as_mut()?;
        let meant = *wanted == command || *wanted == ANY && command != u16::MAX;
        if !meant || *times == 0 {
            return None;
        }
        *times -= 1;
        Some(*what)
    }

    fn carry_out(&self, request: &Request, data: &[u8]) {
        let mut disk = lock(&self.disk);
        let range = usize::try_from(request.offset).unwrap()..;
        let range = range.start..range.start + request.length as usize;
        match request.command {
            command::WRITE => disk[range].copy_from_slice(data),
            command::WRITE_ZEROES => disk[range].fill(0),
            command::TRIM => disk[range].fill(0xee),
            command::FLUSH => assert_eq!((request.offset, request.length), (0, 0)),
            command::READ => {}
            other => panic!("command {other}"),
        }
        lock(&self.log).push((request.command, request.flags));
    }
}

fn chunk(flags: u16, kind: u16, cookie: [u8; 8], data: &[&[u8]]) -> Vec<u8> {
    let data = data.concat();
    let mut bytes = STRUCTURED_REPLY_MAGIC.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(cookie);
    bytes.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend(data);
    bytes
}

fn simple(error: u32, cookie: [u8; 8], data: &[u8]) -> Vec<u8> {
    let mut bytes = SIMPLE_REPLY_MAGIC.to_be_bytes().to_vec();
    bytes.extend(error.to_be_bytes());
    bytes.extend(cookie);
    bytes.extend(data);
    bytes
}

impl Request {
    fn failure(&self, structured: bool, error: u32) -> Vec<u8> {
        if !structured {
            return simple(error, self.cookie, &[]);
        }
        let message = b"on purpose";
        let length = u16::try_from(message.len()).unwrap().to_be_bytes();
        chunk(chunk::DONE, chunk::ERROR, self.cookie, &[&error.to_be_bytes(), &length, message])
    }

    fn data(&self, state: &State) -> Vec<u8> {
        let begin = usize::try_from(self.offset).unwrap();
        lock(&state.disk)[begin..begin + self.length as usize].to_vec()
    }

    /// The pieces of the reply, the last one last.
    fn reply(&self, state: &State, structured: bool, rng: &mut Rng) -> Vec<Vec<u8>> {
        let cookie = self.cookie;
        match (self.command, structured) {
            (command::READ, false) => vec![simple(0, cookie, &self.data(state))],
            (command::READ, true) => {
                let data = self.data(state);
                let count = if state.manners.shuffles { 1 + rng.next(6) } else { 1 };
                let mut ends: Vec<_> =
                    (1..count).map(|_| rng.next(u64::from(self.length))).chain([0]).collect();
                ends.push(self.length.into());
                ends.sort_unstable();
                ends.dedup();
                let mut pieces: Vec<_> = ends
                    .windows(2)
                    .map(|ends| {
                        let range =
                            usize::try_from(ends[0]).unwrap()..usize::try_from(ends[1]).unwrap();
                        let offset = (self.offset + ends[0]).to_be_bytes();
                        if data[range.clone()].iter().all(|&byte| byte == 0) {
                            let length = u32::try_from(range.len()).unwrap().to_be_bytes();
                            return chunk(0, chunk::OFFSET_HOLE, cookie, &[&offset, &length]);
                        }
                        chunk(0, chunk::OFFSET_DATA, cookie, &[&offset, &data[range]])
                    })
                    .collect();
                if pieces.len() == 1 && rng.next(2) == 0 {
                    // The only piece is the last one.
                    pieces[0][5] |= 1;
                } else {
                    pieces.push(chunk(chunk::DONE, chunk::NONE, cookie, &[]));
                }
                pieces
            }
            (_, true) if rng.next(2) == 0 => vec![chunk(chunk::DONE, chunk::NONE, cookie, &[])],
            _ => vec![simple(0, cookie, &[])],
        }
    }
}

/// Sends what is wrong; whether the connection ends.
fn misdeed_bytes(
    state: &State,
    request: &Request,
    misdeed: Misdeed,
    rng: &mut Rng,
    stream: &mut &UnixStream,
) -> io::Result<bool> {
    use Misdeed::{
        Cut, DataForWrite, Ending, Flips, Gap, Garbage, HalfAReply, Noise, OtherCookie, Outside,
        Overlap, TooLong, Twice, UnknownChunk, UnknownCookie,
    };
    const REST: [Misdeed; 15] = [
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
            Some(&other) => misdeed_bytes(state, request, other, rng, stream),
            None => {
                let reply = request.reply(state, state.manners.structured, rng).concat();
                stream.write_all(&reply).map(|()| false)
            }
        };
    }
    let Request { cookie, offset, length, .. } = *request;
    let data = vec![0x55; length as usize];
    let at = |offset: u64| offset.to_be_bytes();
    let right = request.reply(state, true, rng).concat();
    let (bytes, ends) = match misdeed {
        Misdeed::UnknownCookie => (simple(0, [0xff; 8], &[]), false),
        Misdeed::OtherCookie => {
            let mut other = cookie;
            other[3] ^= 1;
            (simple(0, other, &[]), false)
        }
        Misdeed::Twice => ([right.clone(), right].concat(), false),
        Misdeed::Garbage => (vec![0x42; 64], false),
        Misdeed::Outside => {
            (chunk(1, chunk::OFFSET_DATA, cookie, &[&at(offset + 512), &data]), false)
        }
        Misdeed::TooLong => {
            (chunk(1, chunk::OFFSET_DATA, cookie, &[&at(offset), &data, &[1; 512]]), false)
        }
        Misdeed::Overlap => {
            let one = chunk(0, chunk::OFFSET_DATA, cookie, &[&at(offset), &data]);
            let two = chunk(1, chunk::OFFSET_DATA, cookie, &[&at(offset), &data[..1]]);
            ([one, two].concat(), false)
        }
        Misdeed::DataForWrite => {
            (chunk(1, chunk::OFFSET_DATA, cookie, &[&at(offset), &data]), false)
        }
        Misdeed::UnknownChunk => (chunk(1, 77, cookie, &[&[1; 8]]), false),
        Misdeed::HalfAReply => (right[..right.len() / 2].to_vec(), true),
        Misdeed::Cut => (Vec::new(), true),
        Misdeed::Ending => (simple(108, cookie, &[]), false),
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
            (chunk(1, chunk::OFFSET_DATA, cookie, &[&at(offset + 1), rest]), false)
        }
        Misdeed::Fails(_) | Misdeed::NoService | Misdeed::Anything => unreachable!("done before"),
    };
    stream.write_all(&bytes)?;
    Ok(ends)
}

/// Whether replies are structured.
fn negotiate(state: &State, stream: &mut &UnixStream) -> io::Result<bool> {
    let manners = &state.manners;
    stream.write_all(&MAGIC.to_be_bytes())?;
    stream.write_all(&OPTION_MAGIC.to_be_bytes())?;
    let both = handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES;
    stream.write_all(&both.to_be_bytes())?;
    stream.read_exact(&mut [0; 4])?;
    let mut structured = false;
    loop {
        let mut header = [0; 16];
        stream.read_exact(&mut header)?;
        let number = u32::from_be_bytes(header[8..12].try_into().unwrap());
        let length = u32::from_be_bytes(header[12..].try_into().unwrap());
        let mut data = vec![0; length as usize];
        stream.read_exact(&mut data)?;
        let mut reply = |kind: u32, data: &[u8]| {
            let mut bytes = OPTION_REPLY_MAGIC.to_be_bytes().to_vec();
            bytes.extend(number.to_be_bytes());
            bytes.extend(kind.to_be_bytes());
            bytes.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
            bytes.extend(data);
            stream.write_all(&bytes)
        };
        match number {
            option::STRUCTURED_REPLY if manners.structured => {
                structured = true;
                reply(option_reply::ACK, &[])?;
            }
            option::GO => {
                let mut facts = info::EXPORT.to_be_bytes().to_vec();
                facts.extend(manners.size.to_be_bytes());
                facts.extend(manners.flags.to_be_bytes());
                reply(option_reply::INFO, &facts)?;
                if let Some(sizes) = manners.blocks {
                    let mut blocks = info::BLOCK_SIZE.to_be_bytes().to_vec();
                    blocks.extend(sizes.map(u32::to_be_bytes).concat());
                    reply(option_reply::INFO, &blocks)?;
                }
                reply(option_reply::ACK, &[])?;
                return Ok(structured);
            }
            _ => reply(option_reply::ERR_UNSUP, &[])?,
        }
    }
}

/// Whether a write of the log had FUA.
pub(crate) fn is_durable(entry: (u16, u16)) -> bool {
    entry.0 == command::WRITE && entry.1 & flag::FUA != 0
}
