//! The operations on the sockets of a queue's clients, and how connections end.

use std::io;

use io_uring::opcode::{Recv, SendMsg};
use io_uring::squeue::Entry;
use io_uring::types::Fd;
use ublk_tls::Control;

use super::buffer;
use super::connection::Phase;
use super::server::{MOST_REPLIES, RECEIVE, SEND, Server, connection};
use crate::driver::Ring;
use crate::driver::linux::LinuxRing;

impl Server {
    /// Bytes of the client have arrived, or the client has gone.
    pub(super) fn received(&mut self, number: u32, result: i32) {
        let connection = connection(&mut self.connections, number);
        connection.receiving.in_flight = false;
        match (u32::try_from(result), connection.phase) {
            _ if connection.dead => self.hang_up(number),
            (Err(_), _) if is_passing(result) => {}
            // A record that is no data.
            (Err(_), _) if connection.tls && result == -libc::EIO => {
                match ublk_tls::control(connection.fd()) {
                    Ok(Control::Ignored) => {}
                    Ok(Control::Closed) => self.hang_up(number),
                    _ => self.kill(number),
                }
            }
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
    pub(super) fn hang_up(&mut self, number: u32) {
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
    pub(super) fn kill(&mut self, number: u32) {
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
    pub(super) fn sent(&mut self, number: u32, result: i32) {
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

    /// Pushes what the connection sends and receives.
    pub(super) fn push_operations(&mut self, ring: &mut LinuxRing, number: u32) -> io::Result<()> {
        let connection = connection(&mut self.connections, number);
        if connection.dead {
            return Ok(());
        }
        let fd = Fd(connection.fd());
        if let Some(message) = connection.outbox.begin() {
            // TLS of the kernel takes no MSG_WAITALL here (EOPNOTSUPP); what is left follows.
            let whole = if connection.tls { 0 } else { libc::MSG_WAITALL };
            let flags = (libc::MSG_NOSIGNAL | whole).cast_unsigned();
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
}

/// An error after which the operation is to be tried again.
fn is_passing(result: i32) -> bool {
    matches!(-result, libc::EAGAIN | libc::EINTR | libc::ENOMEM | libc::ENOBUFS)
}

pub(super) fn push(ring: &mut LinuxRing, entry: Entry, user_data: u64) -> io::Result<()> {
    while ring.space() == 0 {
        ring.submit()?;
    }
    // SAFETY: buffers of connections and of tags live until the operation has ended (see
    // `NbdRing::drop`), and a message is kept until `sent` or `failed`.
    unsafe { ring.push(&entry.user_data(user_data)) };
    Ok(())
}
