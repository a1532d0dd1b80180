//! Reads and writes on `/dev/ublkcN`: ublk_user_copy.
//!
//! They complete inline, as they do on a file that was opened with `O_NONBLOCK`: the driver sets
//! no `FMODE_NOWAIT`, so that io_uring would hand them to a worker otherwise.

use ublk_sys::{
    UBLK_IO_BUF_BITS, UBLK_IO_BUF_BITS_MASK, UBLK_QID_BITS_MASK, UBLK_QID_OFF, UBLK_S_DEV_DEAD,
    UBLK_TAG_BITS_MASK, UBLK_TAG_OFF, UBLKSRV_IO_BUF_OFFSET, UBLKSRV_IO_INTEGRITY_FLAG,
};

use crate::driver::sim::model::Model;
use crate::driver::sim::storage::memory;
use crate::driver::sim::ublk_drv::device::OWNED_BY_SRV;
use crate::driver::sim::uring::ops::Issued;
use crate::driver::sim::uring::sqe::Sqe;
use crate::driver::sim::violation::Rule;
use crate::tag::Tag;

const _: () = assert!(UBLK_TAG_OFF == UBLK_IO_BUF_BITS);

/// What a position names: queue, tag, and where in the request's data.
fn place(position: u64) -> Option<(u16, Tag, usize)> {
    let at = (position & !UBLKSRV_IO_INTEGRITY_FLAG).checked_sub(UBLKSRV_IO_BUF_OFFSET)?;
    let queue = u16::try_from(at >> UBLK_QID_OFF & UBLK_QID_BITS_MASK).ok()?;
    let tag = u16::try_from(at >> UBLK_TAG_OFF & UBLK_TAG_BITS_MASK).ok()?;
    Some((queue, Tag::new(tag), usize::try_from(at & UBLK_IO_BUF_BITS_MASK).ok()?))
}

fn is_metadata(sqe: &Sqe) -> bool {
    sqe.off & UBLKSRV_IO_INTEGRITY_FLAG != 0
}

impl Model {
    pub(crate) fn user_copy(&mut self, ring: usize, operation: usize, device: usize) -> Issued {
        let sqe = self.ring(ring).ops[operation].sqe;
        let issued = match self.find_copied((ring, device), &sqe) {
            Ok((id, at)) => self.copy(id, at, &sqe),
            Err(errno) => {
                let what = format!("{}: errno {errno}", sqe.describe());
                self.violate(Rule::UserCopy, what);
                Issued::Failed(errno)
            }
        };
        self.note(|| format!("ring {ring}: {} -> {issued:?}", sqe.describe()));
        issued
    }

    /// Everything that the driver checks. Answers the request, and where in its data.
    fn find_copied(
        &mut self,
        (ring, device): (usize, usize),
        sqe: &Sqe,
    ) -> Result<(u64, usize), i32> {
        let current = self.current(ring);
        let found = &self.devices[device];
        if sqe.is_fixed() || found.info.state == UBLK_S_DEV_DEAD || !found.user_copies() {
            return Err(libc::EACCES);
        }
        if is_metadata(sqe) && !found.has_integrity() {
            return Err(libc::EINVAL);
        }
        let (queue, tag, at) = place(sqe.off).ok_or(libc::EINVAL)?;
        if queue >= found.info.nr_hw_queues || tag.number() >= found.info.queue_depth {
            return Err(libc::EINVAL);
        }
        let tagged = found.queues[usize::from(queue)].tags[tag.index()];
        let io = self.io(device, queue, tag);
        let id = if current.is_some() && current == io.task {
            io.request.filter(|_| io.flags & OWNED_BY_SRV != 0)
        } else {
            tagged.filter(|_| io.refs > 0)
        };
        let id = id.ok_or(libc::EINVAL)?;
        let request = self.request(id);
        let length = if is_metadata(sqe) { request.metadata.len() } else { request.left as usize };
        if !request.started || !request.has_data() || at > length {
            return Err(libc::EINVAL);
        }
        // A read's data goes in, a write's comes out.
        if request.reads() == sqe.is_read() { Err(libc::EACCES) } else { Ok((id, at)) }
    }

    /// A request's data, or its metadata.
    fn copied(&mut self, id: u64, sqe: &Sqe) -> &mut [u8] {
        let request = self.request(id);
        if is_metadata(sqe) { &mut request.metadata } else { request.pages() }
    }

    /// ublk_copy_user_pages and ublk_copy_user_integrity: stops early where memory cannot be reached.
    fn copy(&mut self, id: u64, at: usize, sqe: &Sqe) -> Issued {
        let faults = self.config.faults;
        let there = self.copied(id, sqe).len() - at;
        let whole = (sqe.len as usize).min(there);
        let mut length = whole;
        if whole > 1 && self.rng.chance(faults.short) {
            self.injected.short += 1;
            length = 1 + self.rng.index(whole - 1);
        }
        if self.rng.chance(faults.error) {
            self.injected.error += 1;
            length = 0;
        }
        let pages = &mut self.copied(id, sqe)[at..at + length];
        if sqe.is_read() {
            memory::store(sqe.addr, pages);
        } else {
            memory::load(sqe.addr, pages);
        }
        i32::try_from(length).map_or(Issued::Failed(libc::EINVAL), Issued::Done)
    }
}
