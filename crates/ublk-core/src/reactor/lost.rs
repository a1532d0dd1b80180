//! Queues of a pool whose reactor is lost, by a panic or by a broken ring.
//!
//! Other reactors serve the device's other queues, and keep the character device open. So the
//! kernel does not notice the loss of a server, and waits for the lost reactor's requests: clients
//! would wait for ever, and so would STOP_DEV. The thread of the reactor therefore fails these
//! requests, with a new ring, and continues until the device is stopped.
//!
//! The requests of a device that outlives the server stay unanswered: the device layer takes the
//! device away from the other reactors (`QUIESCE_DEV`), and the next server gets the requests. The
//! device layer does so before the lost ring is closed. The close of a ring with fetches makes all
//! new requests of the device wait for a server, in the other queues too, and once waiting requests
//! have all tags of a queue, the kernel refuses `QUIESCE_DEV`. A device that is being stopped
//! cannot be taken away: the requests fail like other devices' requests, and the stop waits for the
//! requests.

use std::io;

use io_uring::opcode;
use io_uring::squeue::Entry;
use io_uring::types::Fixed;
use ublk_sys::{
    UBLK_F_BATCH_IO, UBLK_F_CMD_IOCTL_ENCODE, UBLK_F_QUIESCE, UBLK_F_USER_RECOVERY,
    UBLK_IO_COMMIT_AND_FETCH_REQ, UBLK_U_IO_COMMIT_AND_FETCH_REQ, ublksrv_io_cmd,
};

use super::copy;
use super::seat::Seat;
use super::service::{Listener, QueueConfig, Transfer};
use crate::driver::{Driver, OpenFile, Ring, RingSize};
use crate::memory::Mapping;
use crate::tag::Tag;

/// Whether other reactors of a pool may serve queues of a device with these `UBLK_F_*`. A batch
/// device has all queues on one reactor, because no other ring could get the device's waiting
/// requests: the kernel notices the end of such a server.
pub(super) fn has_company(features: u64) -> bool {
    features & UBLK_F_BATCH_IO == 0
}

/// Whether the remaining reactors of a device with these `UBLK_F_*` can leave the device.
pub(crate) fn can_be_left(features: u64) -> bool {
    let leaves = UBLK_F_USER_RECOVERY | UBLK_F_QUIESCE;
    features & (leaves | UBLK_F_BATCH_IO) == leaves
}

/// A queue, or a share of a queue, of a lost reactor.
pub(super) struct LostQueue {
    config: QueueConfig,
    char_device: OpenFile,
    listener: Listener,
    /// Copy buffer of requests that the kernel dispatches all the same; these requests fail.
    memory: Option<Mapping>,
}

impl LostQueue {
    pub(super) fn of<T>(seat: &mut Seat<T>) -> Self {
        Self {
            config: seat.config,
            char_device: seat.char_device().clone(),
            listener: seat.take_listener(),
            memory: None,
        }
    }

    /// Prepares the memory for the commits.
    fn prepare(&mut self) -> io::Result<()> {
        if matches!(self.config.transfer, Transfer::Copy | Transfer::GetData) {
            self.memory = Some(Mapping::anonymous(self.config.max_io_bytes as usize)?);
        }
        Ok(())
    }

    fn address(&self) -> u64 {
        self.memory.as_ref().map_or(0, |memory| memory.base() as u64)
    }

    /// A command that fails the request of `tag`. The kernel refuses the command where the server
    /// has no request of the tag.
    fn commit(&self, file: Fixed, tag: Tag) -> Entry {
        let queue = self.config.queue;
        let operation = match self.config.features & UBLK_F_CMD_IOCTL_ENCODE {
            0 => u32::from(UBLK_IO_COMMIT_AND_FETCH_REQ),
            _ => UBLK_U_IO_COMMIT_AND_FETCH_REQ,
        };
        let command = ublksrv_io_cmd {
            q_id: queue,
            tag: tag.number(),
            result: -libc::EIO,
            addr: self.address(),
        };
        let slot = match self.config.transfer {
            // The ring has no buffer table, so the kernel registers no buffer.
            Transfer::Auto => crate::exchange::registration(0),
            _ => 0,
        };
        opcode::UringCmd16::new(file, operation).cmd(command.to_bytes()).addr(Some(slot)).build()
    }
}

/// Fails the requests of these queues and releases the devices when the devices are stopped. Then the
/// listeners get `error`.
pub(super) fn fail_all<D: Driver>(driver: &D, mut queues: Vec<LostQueue>, error: &io::Error) {
    // Without a ring the requests stay unanswered until the last reactor of the pool has ended.
    let _failed = fail_requests(driver, &mut queues);
    for LostQueue { char_device, listener, .. } in queues {
        drop(char_device);
        listener.ended(Err(copy(error)));
    }
}

fn fail_requests<D: Driver>(driver: &D, queues: &mut [LostQueue]) -> io::Result<()> {
    queues.iter_mut().try_for_each(LostQueue::prepare)?;
    let queues = &*queues;
    let size = RingSize { submissions: 64, completions: 1 << 14, tells_of_work: false };
    let mut ring = driver.ring(size)?;
    let files: Vec<_> = queues.iter().map(|queue| queue.char_device.fd()).collect();
    let count = u32::try_from(files.len()).unwrap_or(u32::MAX);
    ring.register_files_sparse(count)?;
    ring.update_files(0, &files)?;
    let mut pending = 0_usize;
    for (place, queue) in (0_u32..).zip(queues) {
        for tag in queue.config.share.tags(queue.config.depth) {
            push(&mut ring, queue, place, tag)?;
            pending += 1;
        }
    }
    while pending > 0 {
        ring.submit_and_wait(1)?;
        while let Some(completion) = ring.pop() {
            #[expect(clippy::cast_possible_truncation, reason = "packed so in `push`")]
            let (place, tag) =
                ((completion.user_data >> 16) as u32, Tag::new(completion.user_data as u16));
            let queue = &queues[place as usize];
            // The kernel dispatched another request.
            let another = completion.result >= 0;
            if another || completion.result == -libc::ENOMEM {
                push(&mut ring, queue, place, tag)?;
            } else {
                pending -= 1;
            }
        }
    }
    // The file table would keep the device open after the close of the ring (trap 30).
    ring.empty_files(0..count)
}

fn push<R: Ring>(ring: &mut R, queue: &LostQueue, place: u32, tag: Tag) -> io::Result<()> {
    while ring.space() < 1 {
        ring.submit()?;
    }
    let entry =
        queue.commit(Fixed(place), tag).user_data(u64::from(place) << 16 | u64::from(tag.number()));
    // SAFETY: the entry names memory of the queue, and `fail_requests` borrows the queues for longer than
    // the ring lives.
    unsafe { ring.push(&entry) };
    Ok(())
}
