//! The ring of a queue: the kernel's io_uring, but for ublk's own commands.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use io_uring::squeue::Entry;
use ublk_sys::{UBLK_U_IO_COMMIT_AND_FETCH_REQ, UBLK_U_IO_FETCH_REQ};

use super::MAX_CONNECTIONS;
use super::server::Server;
use super::state::Shared;
use crate::driver::linux::{Linux, LinuxRing};
use crate::driver::{Completion, Driver, Ring, RingSize};
use crate::tag::Tag;

/// The bit of `user_data` of the ring's own operations; `Token` has none there.
pub(super) const OWN: u64 = 1 << 63;

/// A ring that answers ublk's commands itself.
#[derive(Debug)]
pub struct NbdRing {
    kernel: LinuxRing,
    shared: Arc<Shared>,
    /// Present once a queue has been fetched from.
    server: Option<Box<Server>>,
}

impl NbdRing {
    pub(super) fn new(entries: RingSize, shared: Arc<Shared>) -> io::Result<Self> {
        // Each connection sends and receives.
        let own = 2 * u32::from(MAX_CONNECTIONS) + 1;
        let completions = (entries.completions + own).next_power_of_two();
        let kernel = Linux::new().ring(RingSize { completions, ..entries })?;
        Ok(Self { kernel, shared, server: None })
    }

    /// Carries out a command of the exchange; returns whether the entry is one.
    #[inline]
    fn is_command(&mut self, entry: &Entry) -> bool {
        let Some(command) = Command::parse(entry) else { return false };
        let server = self
            .server
            .get_or_insert_with(|| Box::new(Server::new(Arc::clone(&self.shared), command.queue)));
        match command.operation {
            UBLK_U_IO_FETCH_REQ => server.fetch(&command),
            UBLK_U_IO_COMMIT_AND_FETCH_REQ => server.commit(&command),
            _ => server.refuse(&command),
        }
        true
    }

    /// Lets connections go on, and pushes what they send and receive.
    #[inline]
    fn prepare(&mut self) -> io::Result<()> {
        self.server.as_mut().map_or(Ok(()), |server| server.prepare(&mut self.kernel))
    }

    #[inline]
    fn has_ready(&self) -> bool {
        self.server.as_ref().is_some_and(|server| !server.ready.is_empty())
    }
}

/// A command of ublk, in an entry of a per-io exchange.
#[derive(Clone, Copy, Debug)]
pub(super) struct Command {
    operation: u32,
    pub(super) user_data: u64,
    pub(super) queue: u16,
    pub(super) tag: Tag,
    pub(super) result: i32,
    pub(super) address: u64,
}

impl Command {
    /// `IORING_OP_URING_CMD`.
    const URING_CMD: u8 = 46;

    #[inline]
    fn parse(entry: &Entry) -> Option<Self> {
        // SAFETY: an entry is a `repr(C)` wrapper of the kernel's 64 bytes (see `sqe`), any of which
        // may have any value.
        let raw = unsafe { &*std::ptr::from_ref(entry).cast::<[u8; 64]>() };
        if raw[0] != Self::URING_CMD {
            return None;
        }
        let [a, b, c, d, e, f, g, h] = word(raw, 48);
        Some(Self {
            // `cmd_op` shares the place of the offset.
            operation: u32::from_ne_bytes(word(raw, 8)),
            user_data: u64::from_ne_bytes(word(raw, 32)),
            queue: u16::from_ne_bytes([a, b]),
            tag: Tag::new(u16::from_ne_bytes([c, d])),
            result: i32::from_ne_bytes([e, f, g, h]),
            address: u64::from_ne_bytes(word(raw, 56)),
        })
    }
}

fn word<const N: usize>(raw: &[u8; 64], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&raw[at..at + N]);
    bytes
}

impl Ring for NbdRing {
    fn register_files_sparse(&mut self, count: u32) -> io::Result<()> {
        self.kernel.register_files_sparse(count)
    }

    fn update_files(&mut self, first: u32, fds: &[RawFd]) -> io::Result<()> {
        self.kernel.update_files(first, fds)
    }

    fn register_buffers_sparse(&mut self, count: u32) -> io::Result<()> {
        self.kernel.register_buffers_sparse(count)
    }

    unsafe fn register_buffer_ring(
        &mut self,
        ring: *mut u8,
        entries: u16,
        group: u16,
    ) -> io::Result<()> {
        // SAFETY: passed on to our caller.
        unsafe { self.kernel.register_buffer_ring(ring, entries, group) }
    }

    fn unregister_buffer_ring(&mut self, group: u16) -> io::Result<()> {
        self.kernel.unregister_buffer_ring(group)
    }

    #[inline]
    fn space(&mut self) -> usize {
        self.kernel.space()
    }

    #[inline]
    unsafe fn push(&mut self, entry: &Entry) {
        if !self.is_command(entry) {
            // SAFETY: passed on to our caller.
            unsafe { self.kernel.push(entry) };
        }
    }

    fn submit(&mut self) -> io::Result<()> {
        // No new operations: the caller wants room.
        self.kernel.submit()
    }

    fn has_queued(&mut self) -> bool {
        self.kernel.has_queued()
    }

    #[inline]
    fn submit_and_wait(&mut self, count: u32) -> io::Result<()> {
        self.prepare()?;
        // With a request at hand there is no wait, and pushed entries go with the next ones.
        if self.has_ready() { Ok(()) } else { self.kernel.submit_and_wait(count) }
    }

    fn poll(&mut self) -> io::Result<()> {
        self.prepare()?;
        self.kernel.poll()
    }

    #[inline]
    fn has_work(&mut self) -> bool {
        self.has_ready() || self.kernel.has_work()
    }

    #[inline]
    fn ready(&mut self) -> usize {
        self.server.as_ref().map_or(0, |server| server.ready.len()) + self.kernel.ready()
    }

    #[inline]
    fn pop(&mut self) -> Option<Completion> {
        loop {
            let server = self.server.as_mut();
            if let Some(ready) = server.and_then(|server| server.ready.pop_front()) {
                return Some(ready);
            }
            let completion = self.kernel.pop()?;
            match &mut self.server {
                Some(server) if completion.user_data & OWN != 0 => server.completed(completion),
                _ => return Some(completion),
            }
        }
    }
}

impl Drop for NbdRing {
    fn drop(&mut self) {
        // No operation may outlive the memory of the connections, or the buffers of the tags. The reactor
        // frees the buffers after the ring.
        if let Some(server) = &mut self.server {
            server.quit(&mut self.kernel);
        }
    }
}

#[cfg(test)]
mod tests {
    use io_uring::opcode::{Nop, UringCmd16};
    use io_uring::types::Fixed;
    use ublk_sys::ublksrv_io_cmd;

    use super::*;

    #[test]
    fn commands_of_ublk_are_told_from_other_entries() {
        let command = ublksrv_io_cmd { q_id: 3, tag: 7, result: -5, addr: 0x1234_5678_9abc };
        let entry = UringCmd16::new(Fixed(0), UBLK_U_IO_COMMIT_AND_FETCH_REQ)
            .cmd(command.to_bytes())
            .build()
            .user_data(99);
        let parsed = Command::parse(&entry).unwrap();
        assert_eq!(parsed.operation, UBLK_U_IO_COMMIT_AND_FETCH_REQ);
        assert_eq!((parsed.user_data, parsed.queue, parsed.tag), (99, 3, Tag::new(7)));
        assert_eq!((parsed.result, parsed.address), (-5, 0x1234_5678_9abc));
        assert!(Command::parse(&Nop::new().build()).is_none());
    }
}
