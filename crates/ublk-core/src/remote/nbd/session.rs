//! A queue's connection to a server, on the reactor's ring.
//!
//! In flight are at most an entry that sends, an entry that receives, and a poll of the news of the
//! connector. A connection that breaks is shut down; once both entries have ended, all requests without
//! an answer wait for the next connection.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::opcode;
use io_uring::types::Fd;
use ublk_nbd::Request;
use ublk_nbd::wire::command;

use super::Nbd;
use super::connector::{self, Line};
use super::receiving::{self, Receiving};
use super::sending::Sending;
use super::socket::Socket;
use super::table::{Stage, Table};
use crate::memory::Region;
use crate::remote::{Entries, Job, Session, Ticket, settle};
use crate::tag::Tag;
use crate::targets::StepKind;

/// The numbers of the entries.
const SEND: u8 = 0;
const RECEIVE: u8 = 1;
const NEWS: u8 = 2;

#[derive(Debug)]
enum Link {
    /// Requests go out and replies come in.
    Up(Socket),
    /// Shut down; an entry is still in flight, and names the socket until the kernel has the entry.
    Broken { _socket: Socket },
    /// A connector is at work. `expired`: requests fail at once.
    Away { expired: bool },
    /// The session has ended.
    Closed,
}

/// See the module.
#[derive(Debug)]
pub(super) struct NbdSession {
    remote: Arc<Nbd>,
    link: Link,
    closing: bool,
    table: Table,
    sending: Sending,
    receiving: Receiving,
    answers: VecDeque<(Ticket, i32)>,
    line: Arc<Line>,
    /// A poll of the line is in flight.
    polls: bool,
    /// The pause before the next connection: grows while no connection brings a reply.
    pause: Duration,
    /// For how many ticks the connection has brought nothing while jobs waited for answers.
    silent: u128,
    memory: Arc<Region>,
}

impl NbdSession {
    /// With a connection, or without one yet.
    pub(super) fn new(
        remote: Arc<Nbd>,
        first: Option<Socket>,
        capacity: usize,
    ) -> io::Result<Self> {
        let memory = Arc::new(Region::new(receiving::BUFFER + Sending::room(capacity))?);
        let none = Job {
            ticket: Ticket { tag: Tag::default(), step: 0 },
            kind: StepKind::Sync,
            offset: 0,
            length: 0,
            memory: ptr::null_mut(),
        };
        let mut this = Self {
            link: Link::Away { expired: false },
            closing: false,
            table: Table::new(capacity, none),
            sending: Sending::new(Arc::clone(&memory), receiving::BUFFER, capacity),
            receiving: Receiving::new(Arc::clone(&memory)),
            answers: VecDeque::with_capacity(capacity),
            line: Line::new()?,
            polls: false,
            pause: Duration::ZERO,
            silent: 0,
            memory,
            remote,
        };
        match first {
            Some(socket) => this.go_up(socket),
            None => this.connect()?,
        }
        Ok(this)
    }

    /// Requests go out on a new connection.
    fn go_up(&mut self, socket: Socket) {
        self.receiving.agree(socket.headers());
        self.link = Link::Up(socket);
    }

    /// Lets a thread connect.
    fn connect(&mut self) -> io::Result<()> {
        self.link = Link::Away { expired: false };
        let timeout = self.remote.options.reconnect_timeout;
        let deadline = Instant::now() + timeout;
        // Requests must not fail for want of an attempt.
        let pause = self.pause.min(timeout / 4);
        self.pause = connector::longer(pause);
        connector::start(&self.line, &self.remote, pause, deadline)
    }

    /// The connection cannot go on.
    fn break_off(&mut self) {
        self.silent = 0;
        match mem::replace(&mut self.link, Link::Closed) {
            Link::Up(socket) => {
                socket.shut_down();
                self.link = Link::Broken { _socket: socket };
                self.clear_away();
            }
            other => self.link = other,
        }
    }

    /// Leaves a broken connection once no entry of it is in flight.
    fn clear_away(&mut self) {
        if !matches!(self.link, Link::Broken { .. })
            || self.sending.in_flight
            || self.receiving.in_flight
        {
            return;
        }
        // Closes the socket.
        self.link = Link::Closed;
        self.sending.forget();
        self.receiving.forget();
        let (now, limit) = (Instant::now(), self.remote.options.reconnect_timeout);
        self.table.resend(now);
        // A request that takes each connection down with it must not wait for ever.
        let hopeless = |lost: Option<Instant>| lost.is_some_and(|lost| now - lost >= limit);
        let answers = &mut self.answers;
        let failed = |job: Job| answers.push_back((job.ticket, -libc::EIO));
        self.table.give_up(|slot| hopeless(slot.lost), failed);
        if !self.closing && self.connect().is_err() {
            self.expire();
        }
    }

    /// Requests have waited for long enough.
    fn expire(&mut self) {
        self.link = Link::Away { expired: true };
        let answers = &mut self.answers;
        self.table.give_up(|_| true, |job| answers.push_back((job.ticket, -libc::EIO)));
    }

    fn hear(&mut self) {
        let news = self.line.take();
        match (&self.link, news.socket) {
            (Link::Away { .. }, Some(socket)) => self.go_up(socket),
            (Link::Away { .. }, None) if news.expired => self.expire(),
            // The session has been closed.
            _ => {}
        }
    }

    fn received(&mut self, count: u32) {
        self.silent = 0;
        let Self { receiving, table, answers, remote, pause, .. } = self;
        let mut ended = |table: &mut Table, number: u16, result: i32| {
            *pause = Duration::ZERO;
            if table.slot(number).stage == Stage::Sending {
                table.slot(number).early = Some(result);
            } else {
                answer(remote, table, number, result, answers);
            }
        };
        if receiving.received(count, table, &mut ended).is_err() {
            self.break_off();
        }
    }

    fn sent(&mut self, count: u32) {
        let Self { sending, table, answers, remote, .. } = self;
        sending.sent(count, table, |table, number, result| {
            answer(remote, table, number, result, answers);
        });
    }
}

/// Answers a job.
fn answer(
    remote: &Nbd,
    table: &mut Table,
    number: u16,
    result: i32,
    answers: &mut VecDeque<(Ticket, i32)>,
) {
    let job = table.slot(number).job;
    table.free(number);
    answers.push_back((job.ticket, settle(&remote.durability, job.kind, result)));
}

impl Session for NbdSession {
    fn memory(&self) -> &Arc<Region> {
        &self.memory
    }

    unsafe fn start(&mut self, job: Job) {
        match self.link {
            Link::Closed | Link::Away { expired: true } => {
                self.answers.push_back((job.ticket, -libc::EIO));
            }
            _ => self.table.add(job),
        }
    }

    fn completed(&mut self, entry: u8, result: i32) {
        let count = u32::try_from(result).ok().filter(|&count| count > 0);
        match entry {
            SEND => self.sending.in_flight = false,
            RECEIVE => self.receiving.in_flight = false,
            _ => {
                self.polls = false;
                self.hear();
                return;
            }
        }
        match (&self.link, count) {
            (Link::Up(_), Some(count)) if entry == SEND => self.sent(count),
            (Link::Up(_), Some(count)) => self.received(count),
            (Link::Up(socket), None) if entry == RECEIVE && socket.goes_on(result) => {}
            // The end of the stream, or an error.
            (Link::Up(_), None) => self.break_off(),
            _ => self.clear_away(),
        }
    }

    fn tick(&mut self) {
        if !matches!(self.link, Link::Up(_)) || self.table.is_empty() {
            return;
        }
        self.silent += 1;
        // The first tick may follow the first job at once.
        if self.silent > self.remote.options.answer_timeout.as_millis().div_ceil(1000) {
            self.break_off();
        }
    }

    fn push(&mut self, entries: &mut dyn Entries) -> io::Result<()> {
        match &self.link {
            Link::Up(socket) => {
                if !self.sending.in_flight {
                    self.sending.gather(&mut self.table, socket.headers());
                    if let Some(entry) = self.sending.entry(socket) {
                        // SAFETY: names memory of the session, which outlives the entry: the engine
                        // drops an idle session only. Names memory of jobs in stage Sending, which get
                        // no answer before the entry has ended.
                        unsafe { entries.push(entry, SEND)? };
                        self.sending.in_flight = true;
                    }
                }
                if !self.receiving.in_flight {
                    let entry = self.receiving.entry(socket, &mut self.table);
                    // SAFETY: as above; the job whose data comes next gets no answer before.
                    unsafe { entries.push(entry, RECEIVE)? };
                    self.receiving.in_flight = true;
                }
            }
            Link::Away { .. } if !self.polls => {
                let events = u32::from(libc::POLLIN.cast_unsigned());
                let entry = opcode::PollAdd::new(Fd(self.line.fd()), events).build();
                // SAFETY: names no memory.
                unsafe { entries.push(entry, NEWS)? };
                self.polls = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn answer(&mut self) -> Option<(Ticket, i32)> {
        self.answers.pop_front()
    }

    fn close(&mut self) {
        if mem::replace(&mut self.closing, true) {
            return;
        }
        self.line.end();
        match &self.link {
            Link::Up(socket) => {
                if !self.sending.in_flight {
                    let goodbye = Request {
                        flags: 0,
                        command: command::DISC,
                        cookie: 0,
                        offset: 0,
                        length: 0,
                    };
                    socket.send_at_once(&goodbye.encode_as(socket.headers()));
                }
                self.break_off();
            }
            // No poll begins any more: whoever has seen an idle session leaves.
            Link::Away { .. } => self.link = Link::Closed,
            Link::Broken { .. } | Link::Closed => {}
        }
    }

    fn is_idle(&self) -> bool {
        !(self.sending.in_flight || self.receiving.in_flight || self.polls)
    }
}

impl Drop for NbdSession {
    fn drop(&mut self) {
        self.line.end();
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
