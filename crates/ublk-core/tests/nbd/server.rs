//! An NBD server in this process, with manners that a test chooses.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::{env, fs, process, thread};

use ublk_nbd::wire::{command, export, flag, length};
use ublk_nbd::{Headers, Request as Header};

pub(crate) use misdeeds::Misdeed;
use replies::Request;

mod hello;
mod misdeeds;
mod replies;

/// The flags of a server with every ability.
pub(crate) const ALL: u16 = export::HAS_FLAGS
    | export::SEND_FLUSH
    | export::SEND_FUA
    | export::SEND_TRIM
    | export::SEND_WRITE_ZEROES
    | export::CAN_MULTI_CONN;

/// Stands for every command.
pub(crate) const ANY: u16 = u16::MAX - 1;

/// A server's manners.
pub(crate) struct Manners {
    pub(crate) size: u64,
    pub(crate) flags: u16,
    pub(crate) blocks: Option<[u32; 3]>,
    /// The best headers that the server offers.
    pub(crate) headers: Headers,
    /// Has the metadata context `base:allocation`: a range of zeros is a hole.
    pub(crate) extents: bool,
    /// Holds replies back to send them in another order, and cuts reads into pieces.
    pub(crate) shuffles: bool,
    pub(crate) seed: u64,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            size: 1 << 20,
            flags: ALL,
            blocks: None,
            headers: Headers::Structured,
            extents: true,
            shuffles: false,
            seed: 1,
        }
    }
}

/// The state of a server and of all connections.
pub(crate) struct State {
    pub(crate) manners: Manners,
    pub(crate) disk: Mutex<Vec<u8>>,
    /// Commands carried out, in order.
    pub(crate) log: Mutex<Vec<(u16, u16)>>,
    /// The command whose requests meet with a misdeed, the misdeed, and the number of times.
    misdeed: Mutex<Option<(u16, Misdeed, usize)>>,
    /// [`Manners::headers`] of the next connections.
    pub(crate) offered: Mutex<Headers>,
    /// The headers of the last connection, as client and server have agreed.
    pub(crate) agreed: Mutex<Option<Headers>>,
    /// The number of connections since the start, and of present ones.
    pub(crate) connections: AtomicUsize,
    pub(crate) present: AtomicUsize,
    /// One request in so many ends the connection; 0: none.
    pub(crate) cuts: AtomicU64,
    open: Mutex<Vec<UnixStream>>,
}

pub(crate) struct Server {
    pub(crate) state: Arc<State>,
    path: PathBuf,
    /// The socket and the thread that take connections, unless the server has been stopped.
    listening: Mutex<Option<(UnixStream, JoinHandle<()>)>>,
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
            log: Mutex::default(),
            misdeed: Mutex::default(),
            offered: Mutex::new(manners.headers),
            agreed: Mutex::default(),
            connections: AtomicUsize::new(0),
            present: AtomicUsize::new(0),
            cuts: AtomicU64::new(0),
            open: Mutex::default(),
            manners,
        };
        let this = Self { state: Arc::new(state), path, listening: Mutex::default() };
        this.listen();
        this
    }

    pub(crate) fn uri(&self) -> String {
        format!("nbd+unix:///x?socket={}", self.path.display())
    }

    fn listen(&self) {
        let _nothing = fs::remove_file(&self.path);
        let listener = UnixListener::bind(&self.path).unwrap();
        // The type with `shutdown`.
        let socket = UnixStream::from(OwnedFd::from(listener.try_clone().unwrap()));
        let state = Arc::clone(&self.state);
        let thread = thread::spawn(move || {
            // The first error is the end of the socket.
            for stream in listener.incoming().map_while(Result::ok) {
                state.connections.fetch_add(1, Ordering::Relaxed);
                state.present.fetch_add(1, Ordering::Relaxed);
                lock(&state.open).push(stream.try_clone().unwrap());
                let state = Arc::clone(&state);
                thread::spawn(move || {
                    let _end = serve(&state, &stream);
                    let _gone = stream.shutdown(Shutdown::Both);
                    state.present.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        *lock(&self.listening) = Some((socket, thread));
    }

    /// Nobody listens any more, and all connections end.
    pub(crate) fn stop(&self) {
        if let Some((socket, thread)) = lock(&self.listening).take() {
            socket.shutdown(Shutdown::Both).unwrap();
            thread.join().unwrap();
            let _nothing = fs::remove_file(&self.path);
        }
        self.hang_up();
    }

    /// All connections end.
    pub(crate) fn hang_up(&self) {
        for stream in lock(&self.state.open).drain(..) {
            let _gone = stream.shutdown(Shutdown::Both);
        }
    }

    /// Listens again after [`stop`](Self::stop).
    pub(crate) fn come_back(&self) {
        self.listen();
    }

    /// Takes connections after [`stop`](Self::stop), and says nothing.
    pub(crate) fn keep_silent(&self) -> UnixListener {
        UnixListener::bind(&self.path).unwrap()
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
    let headers = hello::negotiate(state, &mut stream)?;
    *lock(&state.agreed) = Some(headers);
    let number = state.connections.load(Ordering::Relaxed) as u64;
    let mut rng = Rng(state.manners.seed.wrapping_mul(977).wrapping_add(number));
    if state.misdeed_of(u16::MAX).is_some() {
        return Ok(());
    }
    let mut held: Vec<Vec<u8>> = Vec::new();
    loop {
        // Replies held back go out when no more requests come.
        if !held.is_empty() && (held.len() > 6 || rng.next(3) == 0 || !is_readable(stream)) {
            let at = usize::try_from(rng.next(held.len() as u64)).unwrap();
            stream.write_all(&held.swap_remove(at))?;
            continue;
        }
        let Header { flags, command, cookie, offset, length } = read_header(stream, headers)?;
        if command == command::DISC {
            return Ok(());
        }
        // Of every request, the flag must fit the command.
        let carries = headers == Headers::Extended && command == command::WRITE;
        assert_eq!(flags & flag::PAYLOAD_LEN != 0, carries, "command {command}");
        let (flags, cookie) = (flags & !flag::PAYLOAD_LEN, cookie.to_be_bytes());
        let length = u32::try_from(length).unwrap();
        let misdeed = state.misdeed_of(command);
        if misdeed == Some(Misdeed::Deaf) {
            return wait_for_the_end(stream);
        }
        let mut data = vec![0; if command == command::WRITE { length as usize } else { 0 }];
        stream.read_exact(&mut data)?;
        let cuts = state.cuts.load(Ordering::Relaxed);
        let cut = cuts > 0 && rng.next(cuts) == 0;
        if cut && rng.next(2) == 0 {
            return Ok(());
        }
        let request = Request { headers, flags, command, cookie, offset, length };
        if let Some(Misdeed::Fails(error)) = misdeed {
            stream.write_all(&request.failure(error))?;
            continue;
        }
        if misdeed == Some(Misdeed::Mute) {
            return io::copy(&mut stream, &mut io::sink()).map(drop);
        }
        state.carry_out(&request, &data);
        if misdeed == Some(Misdeed::MuteMidway) {
            let reply = request.reply(state, &mut rng).concat();
            stream.write_all(&reply[..reply.len() / 2])?;
            return io::copy(&mut stream, &mut io::sink()).map(drop);
        }
        if cut {
            return Ok(());
        }
        if let Some(misdeed) = misdeed {
            if misdeeds::misbehave(state, &request, misdeed, &mut rng, &mut stream)? {
                return Ok(());
            }
            continue;
        }
        let pieces = request.reply(state, &mut rng);
        if state.manners.shuffles {
            held.extend(merge_last(pieces, &mut rng));
        } else {
            stream.write_all(&pieces.concat())?;
        }
    }
}

/// The header of a request; panics at a header of another kind than agreed on.
fn read_header(mut stream: &UnixStream, headers: Headers) -> io::Result<Header> {
    if headers == Headers::Extended {
        let mut header = [0; length::EXTENDED_REQUEST];
        stream.read_exact(&mut header)?;
        return Ok(Header::decode_extended(&header).expect("an extended request"));
    }
    let mut header = [0; length::REQUEST];
    stream.read_exact(&mut header)?;
    Ok(Header::decode(&header).expect("a request"))
}

/// The pieces of a reply in any order, except for the last piece.
fn merge_last(mut pieces: Vec<Vec<u8>>, rng: &mut Rng) -> Vec<Vec<u8>> {
    let last = pieces.pop().unwrap_or_default();
    for at in (1..pieces.len()).rev() {
        pieces.swap(at, usize::try_from(rng.next(at as u64 + 1)).unwrap());
    }
    pieces.push(last);
    vec![pieces.concat()]
}

/// Waits until the client ends the connection, and drops all bytes.
fn wait_for_the_end(stream: &UnixStream) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let mut poll = libc::pollfd { fd: stream.as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: one struct of ours.
    match unsafe { libc::poll(&raw mut poll, 1, -1) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn is_readable(stream: &UnixStream) -> bool {
    use std::os::fd::AsRawFd;
    let mut poll = libc::pollfd { fd: stream.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one struct of ours.
    unsafe { libc::poll(&raw mut poll, 1, 1) > 0 }
}

impl State {
    /// The misdeed for a request of `command`; each call counts once.
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
            command::READ | command::BLOCK_STATUS => {}
            other => panic!("command {other}"),
        }
        lock(&self.log).push((request.command, request.flags));
    }
}

/// Whether a write of the log had FUA.
pub(crate) fn is_durable(entry: (u16, u16)) -> bool {
    entry.0 == command::WRITE && entry.1 & flag::FUA != 0
}
