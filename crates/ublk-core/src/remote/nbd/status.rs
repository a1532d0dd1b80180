//! Asks the server which ranges take space (`BLOCK_STATUS`), on a connection besides those of the sessions.
//!
//! The connection is made by the first question, and kept for the next ones. Questions come from threads that may
//! block, one at a time.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ublk_nbd::Request;
use ublk_nbd::client::{Extent, first_extent};
use ublk_nbd::wire::{command, export, flag};

use super::Nbd;
use super::connect;
use super::socket::{Socket, Timed};

/// How long no question is asked after one that the server did not answer.
const PAUSE: Duration = Duration::from_secs(60);

/// The longest range of a question, in bytes: a server may have to look at all of the range.
pub(super) const LONGEST: u32 = 1 << 30;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Status {
    /// Held by the thread that asks. The time before which nobody asks, after a failure.
    turn: Mutex<Option<Instant>>,
    /// The connection, while no thread asks.
    idle: Mutex<Option<Connection>>,
}

#[derive(Debug)]
struct Connection {
    socket: Socket,
    /// The number of the metadata context.
    context: u32,
    /// Counts the questions.
    asked: u64,
}

impl Status {
    /// The state of the first bytes of a range; none where the server does not say. Blocks: a server that is silent
    /// is given up after the time that a connection may take, and is not asked again for a minute.
    pub(super) fn ask(&self, remote: &Nbd, offset: u64, length: u32) -> Option<Extent> {
        // Without, what the sessions have written may not show on another connection.
        if !(remote.export.has(export::CAN_MULTI_CONN) || remote.export.has(export::READ_ONLY)) {
            return None;
        }
        let mut turn = lock(&self.turn);
        if turn.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let kept = lock(&self.idle).take();
        let again = |connection| Connection::ask(connection, remote, offset, length).ok();
        // The server may have ended a connection that was kept.
        let answer = kept.and_then(again).or_else(|| again(Connection::open(remote)?));
        *turn = answer.is_none().then(|| Instant::now() + PAUSE);
        let (connection, extent) = answer?;
        *lock(&self.idle) = Some(connection);
        extent
    }

    /// Closes the connection unless a thread asks: a server with few places needs the place for a session.
    pub(super) fn let_go(&self) {
        drop(lock(&self.idle).take());
    }
}

impl Connection {
    fn open(remote: &Nbd) -> Option<Self> {
        let limit = remote.options.connect_timeout;
        let connected = connect::connect(&remote.address, &remote.options, true, limit);
        let (socket, agreed) = connected.ok()?;
        let context = agreed.allocation.filter(|_| agreed.export == remote.export)?;
        Some(Self { socket, context, asked: 0 })
    }

    /// Asks, and gives the connection back.
    fn ask(mut self, remote: &Nbd, offset: u64, length: u32) -> io::Result<(Self, Option<Extent>)> {
        self.asked += 1;
        let (command, flags) = (command::BLOCK_STATUS, flag::REQ_ONE);
        let length = length.into();
        let request = Request { flags, command, cookie: self.asked, offset, length };
        let deadline = Instant::now() + remote.options.connect_timeout;
        let headers = self.socket.headers();
        let mut stream = Timed { socket: &mut self.socket, deadline };
        let extent = first_extent(&mut stream, headers, self.context, &request)?;
        Ok((self, extent))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let request = Request { flags: 0, command: command::DISC, cookie: 0, offset: 0, length: 0 };
        self.socket.send_at_once(&request.encode_as(self.socket.headers()));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
