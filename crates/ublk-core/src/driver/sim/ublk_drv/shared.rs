//! Memory that clients share with the server: REG_BUF, UNREG_BUF and ublk_try_buf_match.
//!
//! Where the driver compares page frames, the model compares places in the same piece of memory.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::Arc;

use ublk_sys::{UBLK_IO_OP_WRITE, UBLK_SHMEM_BUF_READ_ONLY, ublk_shmem_buf_reg, ublksrv_ctrl_cmd};

use crate::driver::sim::Sim;
use crate::driver::sim::model::Model;
use crate::driver::sim::seam::OpenFd;
use crate::driver::sim::storage::files::FileRef;
use crate::driver::sim::ublk_drv::control::{Answer, Pending};
use crate::driver::sim::ublk_drv::device::OWNED_BY_SRV;
use crate::driver::sim::ublk_drv::params::parse_shared;

const PAGE: usize = 4096;
/// UBLK_SHMEM_BUF_SIZE_MAX.
const MAX_BUFFER: u64 = 1 << 32;

/// Page-aligned memory, which everybody reaches through its address.
#[derive(Debug)]
pub(crate) struct Memory {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: plain memory; who may touch it when is the protocol's business, as between processes.
unsafe impl Send for Memory {}
// SAFETY: as above; the model touches it under its lock.
unsafe impl Sync for Memory {}

impl Memory {
    fn new(length: usize) -> Self {
        let layout = Layout::from_size_align(length, PAGE).expect("memory of a sensible size");
        assert!(length > 0);
        // SAFETY: the layout's size is not zero.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) });
        Self { base: base.unwrap_or_else(|| handle_alloc_error(layout)), layout }
    }

    pub(crate) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    pub(crate) fn length(&self) -> usize {
        self.layout.size()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with the same layout.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}

/// Bytes of such memory.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    memory: Arc<Memory>,
    at: usize,
    length: usize,
}

impl Span {
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: inside the memory, checked when the span was made. Client, model and server
        // touch it in turns: it is the client's before and after the request, and meanwhile the
        // server's, which submits to a model that is locked while this borrow lives.
        unsafe { std::slice::from_raw_parts_mut(self.memory.base().add(self.at), self.length) }
    }

    fn contains(&self, address: u64, length: u32) -> bool {
        let start = self.memory.base() as u64 + self.at as u64;
        address >= start && address + u64::from(length) <= start + self.length as u64
    }
}

/// A registered buffer: pinned, whoever else lets go of it.
#[derive(Debug)]
pub(crate) struct SharedBuffer {
    span: Span,
    read_only: bool,
}

/// A client's view of memory that it can share with a server.
#[derive(Debug)]
pub struct SimMemory {
    file: OpenFd,
    memory: Arc<Memory>,
}

impl SimMemory {
    pub(crate) fn new(sim: Sim, length: usize) -> Self {
        let memory = Arc::new(Memory::new(length));
        let mut model = sim.lock();
        model.memories.push(Arc::clone(&memory));
        let fd = model.install(FileRef::Memory(Arc::clone(&memory)));
        drop(model);
        Self { file: OpenFd { sim, fd }, memory }
    }

    /// A descriptor that drivers of the same model can map, and nobody else.
    pub fn fd(&self) -> RawFd {
        self.file.fd
    }

    /// `length` bytes from `at`.
    ///
    /// # Panics
    /// Beyond its end.
    pub(crate) fn span(&self, at: usize, length: usize) -> Span {
        assert!(at + length <= self.memory.length());
        Span { memory: Arc::clone(&self.memory), at, length }
    }
}

impl Model {
    /// ublk_ctrl_reg_buf, up to the freezing of the queue.
    pub(crate) fn begin_share(&mut self, device: usize, buffer: &[u8]) -> Result<Answer, i32> {
        if !self.devices[device].shares() {
            return Err(libc::EOPNOTSUPP);
        }
        let wanted = parse_shared(buffer);
        let aligned = |number: u64| number.is_multiple_of(PAGE as u64);
        let valid = wanted.flags & !UBLK_SHMEM_BUF_READ_ONLY == 0
            && wanted.reserved == 0
            && (1..=MAX_BUFFER).contains(&wanted.len)
            && aligned(wanted.len)
            && aligned(wanted.addr);
        if !valid {
            return Err(libc::EINVAL);
        }
        self.devices[device].frozen = true;
        Ok(Answer::Later(Pending::Share { device, wanted }))
    }

    /// ublk_ctrl_unreg_buf, up to the freezing of the queue.
    pub(crate) fn begin_unshare(
        &mut self,
        device: usize,
        command: &ublksrv_ctrl_cmd,
    ) -> Result<Answer, i32> {
        if !self.devices[device].shares() {
            return Err(libc::EOPNOTSUPP);
        }
        let index = u16::try_from(command.data[0]).map_err(|_| libc::EINVAL)?;
        self.devices[device].frozen = true;
        Ok(Answer::Later(Pending::Unshare { device, index }))
    }

    pub(crate) fn share(
        &mut self,
        device: usize,
        wanted: &ublk_shmem_buf_reg,
    ) -> Option<Result<i32, i32>> {
        if self.devices[device].has_tagged() {
            return None;
        }
        let result = self.pin(wanted).map(|span| {
            let shared = &mut self.devices[device].shared;
            let index = (0..=u16::MAX).find(|index| !shared.contains_key(index)).unwrap_or(0);
            let read_only = wanted.flags & UBLK_SHMEM_BUF_READ_ONLY != 0;
            shared.insert(index, SharedBuffer { span, read_only });
            i32::from(index)
        });
        self.thaw(device);
        Some(result)
    }

    pub(crate) fn unshare(&mut self, device: usize, index: u16) -> Option<Result<i32, i32>> {
        if self.devices[device].has_tagged() {
            return None;
        }
        let removed = self.devices[device].shared.remove(&index);
        self.thaw(device);
        Some(removed.map(|_| 0).ok_or(libc::ENOENT))
    }

    /// pin_user_pages_fast.
    fn pin(&self, wanted: &ublk_shmem_buf_reg) -> Result<Span, i32> {
        let (start, end) = (wanted.addr, wanted.addr + wanted.len);
        let found = self.memories.iter().find(|memory| {
            let base = memory.base() as u64;
            start >= base && end <= base + memory.length() as u64
        });
        let memory = Arc::clone(found.ok_or(libc::EFAULT)?);
        let at = usize::try_from(start - memory.base() as u64).map_err(|_| libc::EFAULT)?;
        let length = usize::try_from(wanted.len).map_err(|_| libc::EFAULT)?;
        Ok(Span { memory, at, length })
    }

    fn thaw(&mut self, device: usize) {
        self.devices[device].frozen = false;
        for queue in 0..self.devices[device].info.nr_hw_queues {
            self.pump(device, queue);
        }
        // A stop waits for the requests that got no tag meanwhile, and that have failed now.
        self.advance_stop(device);
    }

    /// ublk_try_buf_match.
    pub(crate) fn match_shared(&mut self, id: u64) {
        let request = self.request(id);
        let (device, op, done) = (request.device, request.op, request.done);
        let wanted = request.memory.clone().filter(|_| request.has_data());
        let place = wanted.filter(|_| self.devices[device].shares()).and_then(|wanted| {
            let start = wanted.at + done;
            self.devices[device].shared.iter().find_map(|(&index, buffer)| {
                let (first, last) = (buffer.span.at, buffer.span.at + buffer.span.length);
                let within = Arc::ptr_eq(&wanted.memory, &buffer.span.memory)
                    && start >= first
                    && wanted.at + wanted.length <= last;
                let usable = within && (!buffer.read_only || op == UBLK_IO_OP_WRITE);
                let offset = u32::try_from(start.wrapping_sub(first)).ok()?;
                usable.then_some((index, offset))
            })
        });
        self.request(id).place = place;
    }

    /// Whether it is memory of a request that the server has.
    pub(crate) fn shared_at(&self, address: u64, length: u32) -> bool {
        self.requests.values().any(|request| {
            let queue = &self.devices[request.device].queues[usize::from(request.queue)];
            let owned =
                request.tag.is_some_and(|tag| queue.ios[tag.index()].flags & OWNED_BY_SRV != 0);
            let span = request.memory.as_ref().filter(|_| owned && request.place.is_some());
            span.is_some_and(|span| span.contains(address, length))
        })
    }
}
