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
use std::time::Duration;

use io_uring::opcode::PollAdd;
use io_uring::types::Fd;
use ublk_nbd::wire::command;
use ublk_sys::UBLK_IO_RES_ABORT;

use super::connection::{Connection, Phase};
use super::door::{Door, Found, Guest};
use super::facts::Facts;
use super::jobs::{Jobs, Piece};
use super::ring::{Command, OWN};
use super::sockets::push;
use super::state::Shared;
use super::tags::Tags;
use crate::driver::linux::LinuxRing;
use crate::driver::{Completion, Ring};
use crate::tag::Tag;

/// No further request is accepted while as many replies wait to be sent.
pub(super) const MOST_REPLIES: usize = 256;
/// More completions of the same submission follow (`IORING_CQE_F_MORE`).
const MORE: u32 = 1 << 1;

/// The ring's own operations, in the bits of `user_data` above the number of the connection.
const BELL: u64 = OWN;
pub(super) const RECEIVE: u64 = OWN | 1 << 56;
pub(super) const SEND: u64 = OWN | 2 << 56;

/// The server of a queue's clients.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) shared: Arc<Shared>,
    pub(super) door: Arc<Door>,
    pub(super) facts: Facts,
    pub(super) tags: Tags,
    pub(super) jobs: Jobs,
    /// Boxed: operations in flight name memory of a connection.
    pub(super) connections: Vec<Option<Box<Connection>>>,
    /// Connections to look at before the next system call.
    dirty: VecDeque<u32>,
    /// Connections that want a tag.
    pub(super) waiting: VecDeque<u32>,
    /// Completions for the code above.
    pub(super) ready: VecDeque<Completion>,
    /// Whether the bell is being listened to.
    hears: bool,
    pub(super) stopping: bool,
}

impl Server {
    /// # Panics
    /// Without a door for the queue: the exchange fetches only after `ADD_DEV`.
    pub(super) fn new(shared: Arc<Shared>, queue: u16) -> Self {
        let door = shared.door(queue).expect("the queue of a device");
        door.begin();
        let depth = door.area().depth();
        let tags = Tags::new(depth, shared.listener.export.connections);
        Self {
            facts: shared.facts(),
            shared,
            door,
            tags,
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
        let moves = matches!(job.request.command, command::READ | command::WRITE) && !job.flushing;
        // The engine continues short transfers; the reply could not say how much is data.
        debug_assert!(
            !moves || result < 0 || result.cast_unsigned() == part.length,
            "a short result"
        );
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
        if reads && !connection.dead && (connection.headers.have_chunks() || job.errno == 0) {
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
    pub(super) fn conclude(&mut self, number: u32) {
        let job = self.jobs.remove(number);
        let connection = connection(&mut self.connections, job.connection);
        connection.jobs -= 1;
        // The connection has waited for the last part of a simple reply.
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

    pub(super) fn open_mail(&mut self) {
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

    pub(super) fn welcome(&mut self, guest: Guest) {
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
    pub(super) fn found(&mut self, found: Found) {
        let job = self.jobs.get(found.job);
        let (number, request) = (job.connection, job.request);
        job.issued = job.total();
        let connection = connection(&mut self.connections, number);
        match found.extents {
            Err(error) => job.errno = error.raw_os_error().unwrap_or(libc::EIO),
            Ok(extents) if !connection.dead => connection.answer_status(&request, &extents),
            Ok(_) => {}
        }
        if connection.phase == Phase::Look(found.job) {
            connection.phase = if connection.dead { Phase::Ended } else { Phase::Header };
        }
        self.conclude(found.job);
    }

    /// Looks at the connection before the next system call.
    pub(super) fn mark(&mut self, number: u32) {
        let connection = connection(&mut self.connections, number);
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push_back(number);
        }
    }

    pub(super) fn mark_all(&mut self) {
        for number in 0..self.connections.len() {
            if self.connections[number].is_some() {
                self.mark(index(number));
            }
        }
    }

    /// The tag waits for a request again.
    pub(super) fn release(&mut self, number: u32, tag: Tag) {
        let connection = connection(&mut self.connections, number);
        connection.tags -= 1;
        self.tags.park(tag, connection.tags == 0);
        while let Some(next) = self.waiting.pop_front() {
            self::connection(&mut self.connections, next).waits = false;
            self.mark(next);
        }
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

    /// All requests have been answered, and all clients are gone: the queue ends.
    pub(super) fn end(&mut self) {
        while let Some(user_data) = self.tags.end_one() {
            self.ready.push_back(Completion { user_data, result: UBLK_IO_RES_ABORT, flags: 0 });
        }
        debug_assert!(self.tags.are_idle(), "a tag without a connection");
        self.door.end();
    }

    /// Ends all connections, and returns once no operation is in flight.
    ///
    /// There is no time limit, because operations use memory of connections and buffers of tags, and the
    /// caller frees both. On a socket that has been shut down, the kernel ends all operations at once.
    pub(super) fn quit(&mut self, ring: &mut LinuxRing) {
        self.door.end();
        self.connections.iter().flatten().for_each(|one| one.cut());
        let in_flight = |one: &Connection| one.receiving.in_flight || one.outbox.is_sending();
        while self.connections.iter().flatten().any(|one| in_flight(one)) {
            // A failed call has taken nothing from the kernel; the next call may.
            let _again = ring.poll();
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
pub(super) fn connection(
    connections: &mut [Option<Box<Connection>>],
    number: u32,
) -> &mut Connection {
    connections[number as usize].as_mut().expect("a connection")
}

#[expect(clippy::cast_possible_truncation, reason = "at most MAX_CONNECTIONS")]
fn index(place: usize) -> u32 {
    place as u32
}
