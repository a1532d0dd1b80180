//! The requests of all clients at one queue: from the bytes of a connection to requests of the device,
//! and from commits to replies.
//!
//! A connection goes on when bytes arrive, when a tag is free, or when replies have been sent
//! ([`Server::proceed`]). What a connection wants to send and receive is pushed before the ring's next
//! system call ([`Server::prepare`]), never while the engine pushes entries.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use io_uring::opcode::{PollAdd, Recv, SendMsg};
use io_uring::squeue::Entry;
use io_uring::types::Fd;
use ublk_nbd::server::request::{MAX_LENGTH, Request};
use ublk_nbd::wire::{command, flag, length};
use ublk_sys::{UBLK_IO_RES_ABORT, UBLK_IO_RES_OK, ublksrv_io_desc};

use super::buffer;
use super::connection::{Connection, Phase};
use super::door::{Door, Found, Guest};
use super::facts::Facts;
use super::jobs::{Job, Jobs, Piece, Source};
use super::ring::{Command, OWN};
use super::state::Shared;
use super::status;
use super::tags::{Part, Tags};
use crate::allocation::Allocation;
use crate::aside;
use crate::driver::linux::LinuxRing;
use crate::driver::{Completion, Ring};

/// No further request is accepted while as many replies wait to be sent.
const MOST_REPLIES: usize = 256;
/// How long operations on sockets that have been shut down may take to end.
const PATIENCE: Duration = Duration::from_secs(5);
/// More completions of the same submission follow (`IORING_CQE_F_MORE`).
const MORE: u32 = 1 << 1;

/// The ring's own operations, in the bits of `user_data` above the number of the connection.
const BELL: u64 = OWN;
const RECEIVE: u64 = OWN | 1 << 56;
const SEND: u64 = OWN | 2 << 56;

/// The server of a queue's clients.
#[derive(Debug)]
pub(super) struct Server {
    shared: Arc<Shared>,
    door: Arc<Door>,
    facts: Facts,
    tags: Tags,
    jobs: Jobs,
    /// Boxed: operations in flight name memory of a connection.
    connections: Vec<Option<Box<Connection>>>,
    /// Connections to look at before the next system call.
    dirty: VecDeque<u32>,
    /// Connections that want a tag.
    waiting: VecDeque<u32>,
    /// Completions for the code above.
    pub(super) ready: VecDeque<Completion>,
    /// Whether the bell is being listened to.
    hears: bool,
    stopping: bool,
}

impl Server {
    /// # Panics
    /// Without a door for the queue: the exchange fetches only after `ADD_DEV`.
    pub(super) fn new(shared: Arc<Shared>, queue: u16) -> Self {
        let door = shared.door(queue).expect("the queue of a device");
        door.begin();
        let depth = door.area().depth();
        Self {
            facts: shared.facts(),
            shared,
            door,
            tags: Tags::new(depth),
            jobs: Jobs::default(),
            connections: Vec::new(),
            dirty: VecDeque::new(),
            waiting: VecDeque::new(),
            ready: VecDeque::with_capacity(depth.into()),
            hears: false,
            stopping: false,
        }
    }

    /// A tag waits for its first request.
    pub(super) fn fetch(&mut self, command: &Command) {
        self.tags.fetch(command.tag, command.user_data, command.address);
    }

    /// A command that an export has no use for.
    pub(super) fn refuse(&mut self, command: &Command) {
        self.ready.push_back(Completion {
            user_data: command.user_data,
            result: -libc::EOPNOTSUPP,
            flags: 0,
        });
    }

    /// A request of the device has ended.
    pub(super) fn commit(&mut self, command: &Command) {
        let &Command { tag, result, user_data, address, .. } = command;
        // Relaxed: a mere count.
        self.door.in_flight.fetch_sub(1, Ordering::Relaxed);
        let state = self.tags.get(tag);
        (state.user_data, state.next_address) = (user_data, address);
        let (part, from) = (state.part, state.address);
        let job = self.jobs.get(part.job);
        job.pending -= 1;
        if result < 0 && job.errno == 0 {
            job.errno = -result;
        }
        if job.streams && job.errno != 0 {
            job.issued = job.total();
        }
        let number = job.connection;
        let connection = connection(&mut self.connections, number);
        let reads = job.request.command == command::READ && result >= 0;
        if reads && !connection.dead && (connection.structured || job.errno == 0) {
            connection.answer_part(job, &part, tag, from);
        } else if job.is_over() && job.needs_flush(&self.facts) {
            job.flushing = true;
            return self.start(tag, part.job, Piece::FLUSH);
        } else {
            self.release(number, tag);
        }
        self.mark(number);
        if self.jobs.get(part.job).is_over() {
            self.conclude(part.job);
        }
    }

    /// The last part of a job has ended.
    fn conclude(&mut self, number: u32) {
        let job = self.jobs.remove(number);
        let connection = connection(&mut self.connections, job.connection);
        connection.jobs -= 1;
        // A failed part of a simple reply is the last part.
        if connection.phase == Phase::Issue(number) {
            connection.phase = Phase::Header;
        }
        if !connection.dead && !connection.conclude(&job) {
            self.kill(job.connection);
        }
        self.mark(job.connection);
    }

    /// Takes a completion of the ring's own.
    pub(super) fn completed(&mut self, completion: Completion) {
        let Completion { user_data, result, flags } = completion;
        let number = u32::try_from(user_data & u64::from(u32::MAX)).unwrap_or_default();
        match user_data & !u64::from(u32::MAX) {
            RECEIVE => self.received(number, result),
            SEND => self.sent(number, result),
            _ => {
                self.hears = flags & MORE != 0;
                self.open_mail();
            }
        }
    }

    fn open_mail(&mut self) {
        let mail = self.door.take();
        mail.guests.into_iter().for_each(|guest| self.welcome(guest));
        mail.found.into_iter().for_each(|found| self.found(found));
        if mail.stop && !self.stopping {
            self.stopping = true;
            self.mark_all();
        }
        if mail.cut {
            (0..self.connections.len()).for_each(|number| self.kill(index(number)));
        }
    }

    fn welcome(&mut self, guest: Guest) {
        if self.stopping {
            return;
        }
        let free = self.connections.iter().position(Option::is_none);
        let place = free.unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        self.connections[place] = Some(Box::new(Connection::new(guest)));
        self.mark(index(place));
    }

    /// Another thread has found the extents of a `BLOCK_STATUS`.
    fn found(&mut self, found: Found) {
        let job = self.jobs.get(found.job);
        let (number, cookie) = (job.connection, job.request.cookie);
        job.issued = job.total();
        let connection = connection(&mut self.connections, number);
        match found.extents {
            Err(error) => job.errno = error.raw_os_error().unwrap_or(libc::EIO),
            Ok(extents) if !connection.dead => connection.answer_status(cookie, &extents),
            Ok(_) => {}
        }
        if connection.phase == Phase::Look(found.job) {
            connection.phase = if connection.dead { Phase::Ended } else { Phase::Header };
        }
        self.conclude(found.job);
    }

    /// Looks at the connection before the next system call.
    fn mark(&mut self, number: u32) {
        let connection = connection(&mut self.connections, number);
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push_back(number);
        }
    }

    fn mark_all(&mut self) {
        for number in 0..self.connections.len() {
            if self.connections[number].is_some() {
                self.mark(index(number));
            }
        }
    }

    /// The tag waits for a request again.
    fn release(&mut self, number: u32, tag: u16) {
        connection(&mut self.connections, number).tags -= 1;
        self.tags.park(tag);
        while let Some(next) = self.waiting.pop_front() {
            connection(&mut self.connections, next).waits = false;
            self.mark(next);
        }
    }

    /// Takes what the client has sent as far as possible.
    fn proceed(&mut self, number: u32) {
        loop {
            let connection = connection(&mut self.connections, number);
            let goes_on = match connection.phase {
                _ if connection.dead => false,
                Phase::Ended | Phase::Look(_) => false,
                Phase::Header if connection.outbox.waiting() >= MOST_REPLIES => false,
                Phase::Header => match connection.receiving.take::<{ length::REQUEST }>() {
                    None => false,
                    Some(header) => {
                        match Request::parse(&header) {
                            Some(request) => self.begin(number, request),
                            None => self.kill(number),
                        }
                        true
                    }
                },
                Phase::Skip(left) => {
                    let left = left - connection.receiving.skip(left);
                    connection.phase = if left > 0 { Phase::Skip(left) } else { Phase::Header };
                    left == 0
                }
                Phase::Payload { job, tag, at } => self.fill(number, (job, tag, at)),
                Phase::Issue(job) => self.issue(number, job),
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Begins a request of the client.
    fn begin(&mut self, number: u32, request: Request) {
        let connection = connection(&mut self.connections, number);
        if request.command == command::DISC {
            connection.phase = Phase::Ended;
            return;
        }
        let payload = request.payload();
        if payload > MAX_LENGTH {
            // Nobody knows how long the client goes on to send.
            return self.kill(number);
        }
        let size = self.shared.size.load(Ordering::Relaxed);
        let checked = connection.limits(&self.facts, size).check(&request);
        let long = u64::from(request.length) > self.facts.transfer(request.offset, u64::MAX);
        let errno = match checked {
            _ if self.stopping => libc::ESHUTDOWN,
            Err(error) => error.cast_signed(),
            // One chunk is one request of the device.
            Ok(()) if long && request.command == command::READ && request.has(flag::DF) => {
                libc::EOVERFLOW
            }
            Ok(()) if request.command == command::FLUSH && !self.facts.cache => 0,
            Ok(()) => {
                let streams = long && request.command == command::READ && !connection.structured;
                let job = self.jobs.add(Job { streams, ..Job::new(number, request) });
                connection.jobs += 1;
                connection.phase = Phase::Issue(job);
                if request.command == command::BLOCK_STATUS {
                    connection.phase = Phase::Look(job);
                    self.look(job, &request);
                }
                return;
            }
        };
        connection.answer(request.cookie, errno);
        connection.phase = if payload > 0 { Phase::Skip(payload) } else { Phase::Header };
    }

    /// Lets another thread look for extents: the system calls may block.
    fn look(&mut self, job: u32, request: &Request) {
        let door = Arc::clone(&self.door);
        let one = request.has(flag::REQ_ONE);
        let (offset, length) = (request.offset, u64::from(request.length));
        let Some(find_one) = self.shared.find_allocation() else {
            return self.found(Found { job, extents: Ok(vec![Allocation::data(length)]) });
        };
        let started = aside::run(move || {
            let extents = status::find(&*find_one, offset, length, one);
            door.send(|mail| mail.found.push(Found { job, extents }));
        });
        if let Err(error) = started {
            self.found(Found { job, extents: Err(error) });
        }
    }

    /// Makes parts of a job, as far as there are tags. Returns whether the connection goes on.
    fn issue(&mut self, number: u32, job: u32) -> bool {
        loop {
            let state = self.jobs.get(job);
            let connection = connection(&mut self.connections, number);
            if !state.has_more() {
                connection.phase = Phase::Header;
                return true;
            }
            if state.streams && state.pending > 0 {
                return false;
            }
            let Some(tag) = self.tags.take(connection.tags) else {
                if !connection.waits {
                    connection.waits = true;
                    self.waiting.push_back(number);
                }
                return false;
            };
            connection.tags += 1;
            let piece = state.next(&self.facts);
            match piece.source {
                Source::Client => {
                    connection.phase = Phase::Payload { job, tag, at: 0 };
                    return true;
                }
                Source::Zeroes => {
                    let place = buffer(self.tags.get(tag).address);
                    // SAFETY: the buffer of a tag without a request, as long as the longest request.
                    unsafe { place.write_bytes(0, piece.length as usize) };
                }
                Source::None => {}
            }
            self.start(tag, job, piece);
        }
    }

    /// Fills the buffer of a part of a write. Returns whether the connection goes on.
    fn fill(&mut self, number: u32, (job, tag, at): (u32, u16, u32)) -> bool {
        let connection = connection(&mut self.connections, number);
        if connection.receiving.in_flight {
            return false;
        }
        let piece = self.jobs.get(job).next(&self.facts);
        let place = buffer(self.tags.get(tag).address).wrapping_add(at as usize);
        // SAFETY: the buffer of a tag without a request, as long as the longest request; `at` is below
        // the length of the part.
        let at = at + unsafe { connection.receiving.move_to(place, piece.length - at) };
        connection.phase = Phase::Payload { job, tag, at };
        if at < piece.length {
            return false;
        }
        connection.phase = Phase::Issue(job);
        self.start(tag, job, piece);
        true
    }

    /// Hands a request to the code above.
    fn start(&mut self, tag: u16, job: u32, piece: Piece) {
        let Piece { op_flags, offset, length, .. } = piece;
        let progress = self.jobs.get(job);
        progress.pending += 1;
        if !progress.flushing {
            progress.issued += u64::from(length).max(1);
        }
        let state = self.tags.get(tag);
        state.part = Part { job, offset, length };
        self.door.area().write(
            tag,
            &ublksrv_io_desc {
                op_flags,
                nr_sectors: length >> 9,
                start_sector: offset >> 9,
                addr: state.address,
            },
        );
        self.door.in_flight.fetch_add(1, Ordering::Relaxed);
        let user_data = state.user_data;
        self.ready.push_back(Completion { user_data, result: UBLK_IO_RES_OK, flags: 0 });
    }

    /// Bytes of the client have arrived, or the client has gone.
    fn received(&mut self, number: u32, result: i32) {
        let connection = connection(&mut self.connections, number);
        connection.receiving.in_flight = false;
        match (u32::try_from(result), connection.phase) {
            _ if connection.dead => self.hang_up(number),
            (Err(_), _) if is_passing(result) => {}
            (Err(_), _) => self.kill(number),
            (Ok(0), _) => self.hang_up(number),
            (Ok(count), Phase::Payload { job, tag, at }) => {
                connection.phase = Phase::Payload { job, tag, at: at + count };
            }
            (Ok(_), Phase::Ended) => self.hang_up(number),
            (Ok(count), _) => connection.receiving.received(count),
        }
        self.proceed(number);
        self.mark(number);
    }

    /// No request of the client is accepted any more. Requests under way end, and are answered.
    fn hang_up(&mut self, number: u32) {
        let connection = connection(&mut self.connections, number);
        let phase = connection.phase;
        if connection.receiving.in_flight && matches!(phase, Phase::Payload { .. }) {
            // The operation writes to the buffer of the tag; its end leads here.
            return;
        }
        if !matches!(phase, Phase::Look(_)) {
            connection.phase = Phase::Ended;
        }
        let job = match phase {
            Phase::Payload { job, tag, .. } => {
                self.release(number, tag);
                job
            }
            Phase::Issue(job) => job,
            _ => return,
        };
        let state = self.jobs.get(job);
        state.issued = state.total();
        state.errno = libc::EIO;
        if state.is_over() {
            self.conclude(job);
        }
    }

    /// Ends a connection at once. Requests under way end, without replies.
    fn kill(&mut self, number: u32) {
        let Some(Some(connection)) = self.connections.get_mut(number as usize) else { return };
        if connection.dead {
            return;
        }
        connection.dead = true;
        connection.cut();
        let unsent = connection.outbox.clear();
        unsent.into_iter().for_each(|tag| self.release(number, tag));
        self.hang_up(number);
        self.mark(number);
    }

    /// Replies have been sent, or the client has gone.
    fn sent(&mut self, number: u32, result: i32) {
        let connection = connection(&mut self.connections, number);
        let mut tags = Vec::new();
        match usize::try_from(result) {
            Ok(count) if !connection.dead => connection.outbox.sent(count, |tag| tags.push(tag)),
            Err(_) if is_passing(result) && !connection.dead => {
                connection.outbox.sent(0, |tag| tags.push(tag));
            }
            _ => {
                tags = connection.outbox.failed();
                self.kill(number);
            }
        }
        tags.into_iter().for_each(|tag| self.release(number, tag));
        self.mark(number);
    }

    /// Lets connections go on, and pushes what they send and receive.
    pub(super) fn prepare(&mut self, ring: &mut LinuxRing) -> io::Result<()> {
        if !self.hears {
            self.hears = true;
            let events = u32::from(libc::POLLIN.cast_unsigned());
            let poll = PollAdd::new(Fd(self.door.bell().fd()), events).multi(true).build();
            push(ring, poll, BELL)?;
        }
        while let Some(number) = self.dirty.pop_front() {
            connection(&mut self.connections, number).dirty = false;
            self.proceed(number);
            self.push_operations(ring, number)?;
            if self.stopping && connection(&mut self.connections, number).is_idle() {
                self.kill(number);
            }
            if connection(&mut self.connections, number).is_over() {
                self.waiting.retain(|&other| other != number);
                self.dirty.retain(|&other| other != number);
                self.connections[number as usize] = None;
            }
        }
        if self.stopping && self.connections.iter().all(Option::is_none) {
            self.end();
        }
        Ok(())
    }

    /// Pushes what the connection sends and receives.
    fn push_operations(&mut self, ring: &mut LinuxRing, number: u32) -> io::Result<()> {
        let connection = connection(&mut self.connections, number);
        if connection.dead {
            return Ok(());
        }
        let fd = Fd(connection.fd());
        if let Some(message) = connection.outbox.begin() {
            let flags = (libc::MSG_NOSIGNAL | libc::MSG_WAITALL).cast_unsigned();
            let send = SendMsg::new(fd, message).flags(flags).build();
            push(ring, send, SEND | u64::from(number))?;
        }
        if connection.receiving.in_flight {
            return Ok(());
        }
        let (place, room) = match connection.phase {
            Phase::Header if connection.outbox.waiting() >= MOST_REPLIES => return Ok(()),
            Phase::Header | Phase::Skip(_) => connection.receiving.room(),
            Phase::Payload { job, tag, at } => {
                let length = self.jobs.get(job).next(&self.facts).length;
                let place = buffer(self.tags.get(tag).address).wrapping_add(at as usize);
                (place, length - at)
            }
            _ => return Ok(()),
        };
        connection.receiving.in_flight = true;
        let waits = matches!(connection.phase, Phase::Payload { .. });
        let flags = if waits { libc::MSG_WAITALL } else { 0 };
        let receive = Recv::new(fd, place, room).flags(flags).build();
        push(ring, receive, RECEIVE | u64::from(number))
    }

    /// All requests have been answered, and all clients are gone: the queue ends.
    fn end(&mut self) {
        while let Some(user_data) = self.tags.end_one() {
            self.ready.push_back(Completion { user_data, result: UBLK_IO_RES_ABORT, flags: 0 });
        }
        debug_assert!(self.tags.are_idle(), "a tag without a connection");
        self.door.end();
    }

    /// Ends all connections, and waits for the operations in flight. Returns whether all have ended.
    pub(super) fn quit(&mut self, ring: &mut LinuxRing) -> bool {
        self.door.end();
        self.connections.iter().flatten().for_each(|one| one.cut());
        let deadline = Instant::now() + PATIENCE;
        loop {
            let in_flight = |one: &Connection| one.receiving.in_flight || one.outbox.is_sending();
            if !self.connections.iter().flatten().any(|one| in_flight(one)) {
                return true;
            }
            if Instant::now() >= deadline || ring.poll().is_err() {
                return false;
            }
            while let Some(Completion { user_data, .. }) = ring.pop() {
                let number = u32::try_from(user_data & u64::from(u32::MAX)).unwrap_or_default();
                let Some(Some(one)) = self.connections.get_mut(number as usize) else { continue };
                match user_data & !u64::from(u32::MAX) {
                    RECEIVE => one.receiving.in_flight = false,
                    SEND => drop(one.outbox.failed()),
                    _ => {}
                }
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A connection by number; a number is in use as long as operations, jobs and lists name the number.
fn connection(connections: &mut [Option<Box<Connection>>], number: u32) -> &mut Connection {
    connections[number as usize].as_mut().expect("a connection")
}

#[expect(clippy::cast_possible_truncation, reason = "at most MAX_CONNECTIONS")]
fn index(place: usize) -> u32 {
    place as u32
}

/// An error after which the operation is to be tried again.
fn is_passing(result: i32) -> bool {
    matches!(-result, libc::EAGAIN | libc::EINTR | libc::ENOMEM | libc::ENOBUFS)
}

fn push(ring: &mut LinuxRing, entry: Entry, user_data: u64) -> io::Result<()> {
    while ring.space() == 0 {
        ring.submit()?;
    }
    // SAFETY: buffers of connections and of tags live until the operation has ended (see
    // `NbdRing::drop`), and a message is kept until `sent` or `failed`.
    unsafe { ring.push(&entry.user_data(user_data)) };
    Ok(())
}
