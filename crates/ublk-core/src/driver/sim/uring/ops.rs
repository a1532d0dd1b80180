//! Issuing operations: which file, which checks, now or later.

use std::mem;

use ublk_sys::{BLOCK_URING_CMD_DISCARD, UBLK_U_IO_FETCH_IO_CMDS};

use crate::driver::sim::model::Model;
use crate::driver::sim::storage::files::FileRef;
use crate::driver::sim::uring::ring::Work;
use crate::driver::sim::uring::sqe::{
    FIXED_FILE, OP_ASYNC_CANCEL, OP_NOP, OP_POLL_ADD, OP_TIMEOUT, OP_URING_CMD,
};
use crate::driver::sim::uring::waits;
use crate::driver::sim::violation::Rule;

/// The outcome of issuing an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Issued {
    /// The completion comes later.
    Pending,
    /// The operation has completed.
    Done(i32),
    /// The operation has failed with this errno.
    Failed(i32),
    /// The operation has completed; even an error breaks no chain, and posts no completion that the server has asked
    /// to skip: fsync and fallocate never call req_set_fail.
    Quiet(i32),
}

impl From<Result<(), i32>> for Issued {
    fn from(result: Result<(), i32>) -> Self {
        match result {
            Ok(()) => Self::Done(0),
            Err(errno) => Self::Failed(errno),
        }
    }
}

impl Model {
    /// io_issue_sqe. `inline`: by the ring's own thread, where nothing may block.
    pub(crate) fn issue(&mut self, ring: usize, operation: usize, inline: bool) -> Issued {
        let sqe = self.ring(ring).ops[operation].sqe;
        match sqe.opcode {
            OP_NOP => return Issued::Done(0),
            OP_TIMEOUT => {
                self.ring(ring).waits.push(operation);
                return Issued::Pending;
            }
            OP_ASYNC_CANCEL => return Issued::from(self.cancel(ring, sqe.addr)),
            _ => {}
        }
        let file = match self.assign_file(ring, operation) {
            Ok(file) => file,
            Err(errno) => {
                if errno == libc::EBADF {
                    self.violate(Rule::Operation, format!("no such file: {sqe:?}"));
                }
                return Issued::Failed(errno);
            }
        };
        if sqe.opcode == OP_POLL_ADD {
            if let Some(events) = file.real().and_then(|fd| waits::ready_now(&sqe, fd)) {
                return Issued::Done(events);
            }
            self.ring(ring).waits.push(operation);
            return Issued::Pending;
        }
        if sqe.is_of_socket() {
            return self.issue_on_socket(ring, operation, &file);
        }
        if let FileRef::Char(device) = file {
            if sqe.moves_data() {
                return self.user_copy(ring, operation, device);
            }
            return self.issue_ublk(ring, operation, device, inline);
        }
        if sqe.opcode == OP_URING_CMD {
            if !self.takes_discard(&file) || sqe.cmd_op().0 != BLOCK_URING_CMD_DISCARD {
                return Issued::Failed(libc::EOPNOTSUPP);
            }
        } else if sqe.is_fixed() {
            if let Err(errno) = self.import_buffer(ring, operation) {
                return Issued::Failed(errno);
            }
        } else if file.is_stream() {
            self.ring(ring).waits.push(operation);
            return Issued::Pending;
        } else if sqe.moves_data() && !self.may_use_memory(sqe.addr, sqe.len) {
            let what = format!("{} bytes at {:#x}", sqe.len, sqe.addr);
            self.violate(Rule::Memory, what);
            return Issued::Failed(libc::EFAULT);
        }
        // A worker, too, waits for a disk.
        if self.rng.chance(self.config.faults.delay) {
            self.ring(ring).in_flight.push(operation);
            return Issued::Pending;
        }
        self.perform(ring, operation)
    }

    fn issue_ublk(&mut self, ring: usize, operation: usize, device: usize, inline: bool) -> Issued {
        if self.ring(ring).ops[operation].sqe.opcode != OP_URING_CMD {
            self.violate(Rule::Operation, "only commands, reads and writes work on /dev/ublkcN");
            return Issued::Failed(libc::EOPNOTSUPP);
        }
        let batches = self.devices[device].batches();
        let op = self.ring(ring).ops[operation].sqe.cmd_op().0;
        if batches && !inline && op == UBLK_U_IO_FETCH_IO_CMDS {
            self.violate(Rule::Operation, "a worker cannot tell of more than one completion");
            return Issued::Failed(libc::EINVAL);
        }
        // Batch commands know no task: the worker carries batch commands out.
        if inline || batches {
            return self.ublk_cmd(ring, operation, device);
        }
        self.ring(ring).work.push_back(Work::Command(operation, device));
        Issued::Pending
    }

    /// io_assign_file: at the issue of the operation, until the completion.
    /// The model holds a real file by a descriptor of its own, which may be one too many.
    fn assign_file(&mut self, ring: usize, operation: usize) -> Result<FileRef, i32> {
        let uring = self.ring(ring);
        let op = &uring.ops[operation];
        if let Some(file) = &op.file {
            return Ok(file.clone());
        }
        let fd = op.sqe.fd;
        let file = if op.sqe.flags & FIXED_FILE != 0 {
            let place = usize::try_from(fd).unwrap_or(usize::MAX);
            let files = uring.fixed_files.as_ref().ok_or(libc::EBADF)?;
            files.get(place).and_then(Clone::clone).ok_or(libc::EBADF)?
        } else {
            self.open_file(fd).map_err(|error| error.raw_os_error().unwrap_or(libc::EBADF))?
        };
        self.hold(&file);
        self.ring(ring).ops[operation].file = Some(file.clone());
        Ok(file)
    }

    /// Carries out a read, write, sync or fallocate.
    pub(crate) fn perform(&mut self, ring: usize, operation: usize) -> Issued {
        let op = &self.ring(ring).ops[operation];
        let sqe = op.sqe;
        let Some(file) = op.file.clone() else { return Issued::Failed(libc::EBADF) };
        let issued = if sqe.moves_data() {
            match self.transfer(ring, operation, &file) {
                Ok(moved) => Issued::Done(moved),
                Err(errno) => Issued::Failed(errno),
            }
        } else {
            match (self.change(&sqe, &file), sqe.opcode) {
                (result, OP_URING_CMD) => Issued::from(result),
                (Ok(()), _) => Issued::Quiet(0),
                (Err(errno), _) => Issued::Quiet(-errno),
            }
        };
        self.note(|| format!("ring {ring}: {} -> {issued:?}", sqe.describe()));
        issued
    }

    /// io_async_cancel by user data.
    fn cancel(&mut self, ring: usize, user_data: u64) -> Result<(), i32> {
        let uring = self.ring(ring);
        let matches = |operation: &usize| uring.ops[*operation].sqe.user_data == user_data;
        if let Some(at) = uring.waits.iter().position(matches) {
            let operation = uring.waits.remove(at);
            uring.work.push_back(Work::Complete(operation, -libc::ECANCELED));
            return Ok(());
        }
        if let Some(at) = uring.workers.iter().position(matches) {
            // A worker has just taken the operation, and has not begun.
            if self.rng.chance(500) {
                let operation = self.ring(ring).workers[at];
                return Err(self.cannot_cancel(ring, operation));
            }
            let uring = self.ring(ring);
            let operation = uring.workers.remove(at);
            uring.work.push_back(Work::Complete(operation, -libc::ECANCELED));
            return Ok(());
        }
        let running = uring.in_flight.iter().copied().find(matches);
        Err(running.map_or(libc::ENOENT, |operation| self.cannot_cancel(ring, operation)))
    }

    /// The answer to the cancellation of an operation that a worker has.
    fn cannot_cancel(&mut self, ring: usize, operation: usize) -> i32 {
        let op = &mut self.ring(ring).ops[operation];
        let sqe = op.sqe;
        if mem::replace(&mut op.cancelled_in_vain, true) {
            let what = format!("cancelled again without a pause: {}", sqe.describe());
            self.violate(Rule::Spin, what);
        }
        libc::EALREADY
    }
}
