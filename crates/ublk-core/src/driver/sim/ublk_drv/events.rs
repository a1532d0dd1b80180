//! How requests of a batch device reach the server: a fifo of tags for each queue, and the
//! multishot fetches that empty the fifo (ublk_batch_dispatch and its callers).
//!
//! One fetch works at a time: the first that came, as long as the fetch lives. A fetch that ends for want of buffers
//! leaves the tags to the next fetch.

use std::collections::VecDeque;

use ublk_sys::UBLK_IO_RES_ABORT;

use crate::driver::sim::model::Model;
use crate::driver::sim::storage::memory;
use crate::driver::sim::ublk_drv::device::Cmd;
use crate::driver::sim::uring::ops::Issued;
use crate::driver::sim::uring::ring::Work;
use crate::tag::Tag;

/// MAX_NR_TAG: the most tags of a completion.
const MAX_TAGS: usize = 128;
/// The most completions in a row of a fetch before other work.
const MAX_ROUNDS: u32 = 32;
const TAG_SIZE: usize = size_of::<u16>();
const CQE_F_MORE: u32 = 2;

/// The fields of `struct ublk_queue` for batches.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// Tags of started requests, unknown to the server.
    fifo: VecDeque<Tag>,
    fetches: VecDeque<Cmd>,
    /// The working fetch, one of `fetches`.
    active: Option<Cmd>,
    /// A cancel was here: no more fetches.
    pub(crate) force_abort: bool,
}

impl Events {
    /// __ublk_acquire_fcmd.
    fn acquire(&mut self) -> Option<Cmd> {
        if self.active.is_some() {
            return None;
        }
        self.active = self.fetches.front().copied();
        self.active
    }

    fn remove(&mut self, fetch: Cmd) {
        self.fetches.retain(|&other| other != fetch);
        if self.active == Some(fetch) {
            self.active = None;
        }
    }

    /// ublk_abort_batch_queue.
    pub(crate) fn drain(&mut self) -> Vec<Tag> {
        self.fifo.drain(..).collect()
    }

    /// Removes the fetches of an exiting ring; returns whether there were any.
    pub(crate) fn forget(&mut self, ring: usize) -> bool {
        let gone: Vec<Cmd> = self.fetches.iter().copied().filter(|&(of, _)| of == ring).collect();
        gone.iter().for_each(|&fetch| self.remove(fetch));
        !gone.is_empty()
    }
}

impl Model {
    fn events(&mut self, device: usize, queue: u16) -> &mut Events {
        &mut self.devices[device].queues[usize::from(queue)].events
    }

    /// ublk_batch_queue_cmd.
    pub(crate) fn queue_event(&mut self, device: usize, queue: u16, tag: Tag) {
        let events = self.events(device, queue);
        events.fifo.push_back(tag);
        if let Some((ring, _)) = events.acquire() {
            self.ring(ring).work.push_back(Work::Events(device, queue));
        }
    }

    /// ublk_batch_attach.
    pub(crate) fn attach(&mut self, device: usize, queue: u16, fetch: Cmd) -> Issued {
        let found = &mut self.devices[device].queues[usize::from(queue)];
        if found.events.force_abort || found.canceling {
            return Issued::Failed(libc::ENODEV);
        }
        found.events.fetches.push_back(fetch);
        match found.events.acquire() {
            Some((ring, _)) if ring == fetch.0 => self.dispatch_events(device, queue),
            Some((ring, _)) => self.ring(ring).work.push_back(Work::Events(device, queue)),
            None => {}
        }
        Issued::Pending
    }

    /// ublk_batch_dispatch: the active fetch reports the tags in the fifo.
    pub(crate) fn dispatch_events(&mut self, device: usize, queue: u16) {
        let Some(fetch) = self.events(device, queue).active else { return };
        for _ in 0..MAX_ROUNDS {
            if let Err(errno) = self.dispatch_round(device, queue, fetch) {
                self.note(|| format!("ring {}: a fetch ends with errno {errno}", fetch.0));
                self.events(device, queue).remove(fetch);
                self.finish(fetch.0, fetch.1, -errno);
                return;
            }
            if self.events(device, queue).fifo.is_empty() {
                self.events(device, queue).active = None;
                return;
            }
        }
        self.ring(fetch.0).work.push_back(Work::Events(device, queue));
    }

    /// __ublk_batch_dispatch, until something was told or nothing is left.
    fn dispatch_round(&mut self, device: usize, queue: u16, fetch: Cmd) -> Result<(), i32> {
        let (ring, operation) = fetch;
        let sqe = self.ring(ring).ops[operation].sqe;
        while !self.events(device, queue).fifo.is_empty() {
            if self.rng.chance(self.config.faults.no_buffers) {
                self.injected.no_buffers += 1;
                return Err(libc::ENOBUFS);
            }
            let buffer = self.select_buffer(ring, sqe.buf_index).ok_or(libc::ENOBUFS)?;
            let room = (buffer.length as usize / TAG_SIZE).min(MAX_TAGS);
            if room == 0 {
                return Err(libc::ENOBUFS);
            }
            let fifo = &mut self.events(device, queue).fifo;
            let mut tags: Vec<Tag> = fifo.drain(..room.min(fifo.len())).collect();
            tags.retain(|&tag| self.prepare_event(ring, device, queue, tag));
            if tags.is_empty() {
                continue;
            }
            let bytes: Vec<u8> = tags.iter().flat_map(|tag| tag.number().to_ne_bytes()).collect();
            memory::store(buffer.address, &bytes);
            self.use_buffer(ring, sqe.buf_index);
            // io_req_post_cqe: earlier completions are posted first.
            self.flush(ring);
            let length = i32::try_from(bytes.len()).unwrap_or(0);
            self.note(|| format!("ring {ring}: {tags:?} of queue {queue} go to the server"));
            self.post(ring, sqe.user_data, length, buffer.flags() | CQE_F_MORE);
            return Ok(());
        }
        Ok(())
    }

    /// __ublk_batch_prep_dispatch: false if the server does not learn of the request.
    fn prepare_event(&mut self, ring: usize, device: usize, queue: u16, tag: Tag) -> bool {
        let queue = &self.devices[device].queues[usize::from(queue)];
        let Some(id) = queue.tags[tag.index()] else { return false };
        self.set_up(id);
        let lent = self.lend(ring, id);
        if lent {
            self.give(id);
        }
        lent
    }

    /// ublk_batch_cancel_queue.
    pub(crate) fn cancel_fetches(&mut self, device: usize, queue: u16) {
        let events = self.events(device, queue);
        events.force_abort = true;
        let active = events.active;
        let (kept, gone) = events.fetches.drain(..).partition(|&fetch| Some(fetch) == active);
        events.fetches = kept;
        let gone: VecDeque<Cmd> = gone;
        for (ring, operation) in gone {
            self.ring(ring).work.push_back(Work::Complete(operation, UBLK_IO_RES_ABORT));
        }
    }
}
