//! Submission, chains and completion (io_uring/io_uring.c).

use io_uring::opcode::Nop;
use io_uring::squeue::Flags;
use ublk_sys::IORING_URING_CMD_MULTISHOT;

use crate::driver::sim::model::Model;
use crate::driver::sim::ublk_drv::chan::{is_unregister, may_be_refused};
use crate::driver::sim::uring::ops::Issued;
use crate::driver::sim::uring::ring::{Operation, Uring, Work};
use crate::driver::sim::uring::sockets;
use crate::driver::sim::uring::sqe::{
    ASYNC, BUFFER_SELECT, HARDLINK, KNOWN_FLAGS, OP_FALLOCATE, OP_FSYNC, OP_POLL_ADD, OP_RECV,
    OP_SEND, OP_SENDMSG, OP_TIMEOUT, OP_URING_CMD, SKIP_SUCCESS, Sqe,
};
use crate::driver::sim::violation::Rule;
use crate::driver::{Completion, SEVERED};

impl Model {
    /// io_submit_sqes, with `IORING_SETUP_SUBMIT_ALL`. A chain ends with the submission: an entry with
    /// a link to nothing goes to a worker (trap 61).
    pub(crate) fn submit(&mut self, ring: usize) {
        let entries = self.take_entries(ring);
        self.moves += entries.len() as u64;
        let mut chain: Option<(usize, usize)> = None;
        for sqe in entries {
            let operation = self.ring(ring).ops.insert(Operation::new(sqe));
            if let Err(errno) = self.prepare(ring, operation) {
                self.note(|| format!("ring {ring}: refuses {}: errno {errno}", sqe.describe()));
                self.set_failed(ring, operation, -errno);
                if let Some((head, _)) = chain.filter(|&(head, _)| !self.has_failed(ring, head)) {
                    self.set_failed(ring, head, -libc::ECANCELED);
                }
            }
            let head = match chain {
                Some((head, last)) => {
                    self.ring(ring).ops[last].next = Some(operation);
                    head
                }
                None => operation,
            };
            chain = Some((head, operation));
            if !sqe.links() {
                self.start_chain(ring, head);
                chain = None;
            }
        }
        if let Some((head, _)) = chain {
            self.ring(ring).ops[head].force_async = true;
            self.start_chain(ring, head);
        }
        self.flush(ring);
    }

    /// What the kernel takes of the entries that were pushed: all, unless it finds no memory. What is
    /// left of a chain then is withdrawn by the ring, as `linux::ring` does it.
    fn take_entries(&mut self, ring: usize) -> Vec<Sqe> {
        let mut entries = std::mem::take(&mut self.ring(ring).sq);
        let pushed = entries.len();
        if pushed > 1 && self.rng.chance(self.config.faults.submit) {
            let left = entries.split_off(1 + self.rng.index(pushed - 1));
            self.ring(ring).sq = left;
            self.ring(ring).withdraw(entries.last());
        }
        entries
    }

    fn has_failed(&mut self, ring: usize, operation: usize) -> bool {
        self.ring(ring).ops[operation].failed
    }

    /// io_queue_sqe or io_queue_sqe_fallback for the head of a chain.
    fn start_chain(&mut self, ring: usize, head: usize) {
        let op = &mut self.ring(ring).ops[head];
        if op.failed {
            op.hardlink = false;
            self.complete(ring, head);
        } else {
            self.queue(ring, head);
        }
    }

    /// Issues an operation here, or leaves it to a worker.
    pub(crate) fn queue(&mut self, ring: usize, operation: usize) {
        if self.ring(ring).ops[operation].force_async {
            self.ring(ring).workers.push(operation);
            return;
        }
        let issued = self.issue(ring, operation, true);
        self.settle(ring, operation, &issued);
    }

    pub(crate) fn settle(&mut self, ring: usize, operation: usize, issued: &Issued) {
        match *issued {
            Issued::Pending => {}
            Issued::Done(result) => self.finish(ring, operation, result),
            Issued::Failed(errno) => self.finish(ring, operation, -errno),
            Issued::Quiet(result) => {
                self.ring(ring).ops[operation].result = result;
                self.complete(ring, operation);
            }
        }
    }

    /// The checks that come before any issue: io_init_req and the operation's own preparation.
    fn prepare(&mut self, ring: usize, operation: usize) -> Result<(), i32> {
        let sqe = self.ring(ring).ops[operation].sqe;
        if sqe.flags & !KNOWN_FLAGS != 0 || !sqe.is_known() || sqe.personality != 0 {
            self.violate(Rule::Operation, format!("the model does not know {sqe:?}"));
            return Err(libc::EINVAL);
        }
        let valid = match sqe.opcode {
            OP_FSYNC => {
                sqe.addr == 0 && sqe.buf_index == 0 && sqe.file_index == 0 && sqe.op_flags <= 1
            }
            OP_FALLOCATE => sqe.buf_index == 0 && sqe.op_flags == 0 && sqe.file_index == 0,
            OP_POLL_ADD => {
                let multishot = sqe.len & 1 != 0;
                let skip = sqe.flags & SKIP_SUCCESS != 0;
                sqe.buf_index == 0 && sqe.off == 0 && sqe.addr == 0 && !(multishot && skip)
            }
            OP_SEND | OP_SENDMSG | OP_RECV => sockets::is_valid(&sqe),
            OP_TIMEOUT => sqe.len == 1 && sqe.buf_index == 0 && sqe.file_index == 0,
            OP_URING_CMD => {
                let multishot = sqe.op_flags & IORING_URING_CMD_MULTISHOT != 0;
                let selects = sqe.flags & BUFFER_SELECT != 0;
                // FIXED is the kernel's, but no command that the model knows takes it.
                let known = sqe.op_flags & !IORING_URING_CMD_MULTISHOT == 0;
                sqe.cmd_op().1 == 0 && known && multishot == selects
            }
            _ => sqe.flags & BUFFER_SELECT == 0,
        };
        if !valid {
            self.violate(Rule::Operation, format!("wrong arguments: {sqe:?}"));
            return Err(libc::EINVAL);
        }
        if sqe.opcode == OP_TIMEOUT {
            self.set_deadline(ring, operation);
        }
        // io_uring_cmd_prep allocates, and may find no memory.
        let unregisters = sqe.opcode == OP_URING_CMD && is_unregister(sqe.cmd_op().0);
        if unregisters && self.rng.chance(self.config.faults.unregister) {
            self.injected.unregister += 1;
            return Err(libc::ENOMEM);
        }
        let refused = sqe.opcode == OP_URING_CMD && may_be_refused(sqe.cmd_op().0);
        if refused && self.rng.chance(self.config.faults.command) {
            self.injected.command += 1;
            return Err(libc::ENOMEM);
        }
        Ok(())
    }

    /// req_set_fail.
    fn set_failed(&mut self, ring: usize, operation: usize, result: i32) {
        let op = &mut self.ring(ring).ops[operation];
        op.failed = true;
        op.result = result;
        if op.skip {
            op.skip = false;
            op.skip_links = true;
        }
    }

    /// Completes an operation; one that fails, or moves less than it was asked to, breaks its
    /// chain.
    pub(crate) fn finish(&mut self, ring: usize, operation: usize, result: i32) {
        let op = &mut self.ring(ring).ops[operation];
        op.result = result;
        let short = op.sqe.moves_data() && i64::from(result) != i64::from(op.sqe.len);
        if result < 0 || short {
            self.set_failed(ring, operation, result);
        }
        self.complete(ring, operation);
    }

    fn complete(&mut self, ring: usize, operation: usize) {
        self.ring(ring).completed.push(operation);
    }

    /// __io_submit_flush_completions: tells, and only then lets go of files and buffers and goes
    /// on with chains.
    pub(crate) fn flush(&mut self, ring: usize) {
        loop {
            let completed = std::mem::take(&mut self.ring(ring).completed);
            if completed.is_empty() {
                return;
            }
            for &operation in &completed {
                let op = &self.ring(ring).ops[operation];
                let (user_data, result, flags) = (op.sqe.user_data, op.result, op.flags);
                if !op.skip {
                    self.post(ring, user_data, result, flags);
                }
            }
            for operation in completed {
                self.free(ring, operation);
            }
        }
    }

    pub(crate) fn post(&mut self, ring: usize, user_data: u64, result: i32, flags: u32) {
        self.note(|| format!("ring {ring}: completion {user_data:#x} = {result}"));
        let uring = self.ring(ring);
        uring.cq.push_back(Completion { user_data, result, flags });
        if uring.cq.len() > uring.size.completions as usize {
            self.violate(Rule::Overflow, format!("ring {ring}"));
        }
    }

    fn free(&mut self, ring: usize, operation: usize) {
        let op = self.ring(ring).ops.remove(operation);
        if let Some(next) = op.next {
            if op.failed && !op.hardlink {
                self.fail_links(ring, next, op.skip_links);
            } else {
                self.ring(ring).work.push_back(Work::Issue(next));
            }
        }
        if let Some(node) = op.node {
            self.put_node(ring, node);
        }
        if let Some(file) = op.file {
            self.put_file(&file);
        }
    }

    /// io_fail_links: whether the rest of a chain is heard of depends on whether the one that
    /// broke it would have been.
    fn fail_links(&mut self, ring: usize, first: usize, silent: bool) {
        let mut link = Some(first);
        while let Some(operation) = link {
            let op = &mut self.ring(ring).ops[operation];
            op.skip = silent;
            link = op.next;
        }
        self.ring(ring).work.push_back(Work::FailChain(first));
    }

    /// io_req_tw_fail_links.
    pub(crate) fn fail_chain(&mut self, ring: usize, first: usize) {
        let mut link = Some(first);
        while let Some(operation) = link {
            let op = &mut self.ring(ring).ops[operation];
            link = op.next.take();
            if !op.failed {
                op.result = -libc::ECANCELED;
            }
            self.complete(ring, operation);
        }
    }
}

impl Uring {
    /// The kernel has taken the entries up to `last` alone: where `last` is linked to the first of the
    /// entries that are left, the rest of its chain is withdrawn.
    fn withdraw(&mut self, last: Option<&Sqe>) {
        let Some(last) = last.filter(|last| last.links()) else { return };
        let mut nop = Sqe::new(&Nop::new().build().user_data(last.user_data | SEVERED));
        for entry in &mut self.sq {
            let links = entry.links();
            *entry = nop;
            if !links {
                break;
            }
            nop = Sqe::new(&Nop::new().build().flags(Flags::SKIP_SUCCESS));
        }
    }
}

impl Operation {
    fn new(sqe: Sqe) -> Self {
        Self {
            next: None,
            file: None,
            node: None,
            deadline: None,
            result: 0,
            flags: 0,
            failed: false,
            hardlink: sqe.flags & HARDLINK != 0,
            skip: sqe.flags & SKIP_SUCCESS != 0,
            skip_links: false,
            cancelled_in_vain: false,
            // Both block: io_fsync_prep and io_fallocate_prep send them to a worker.
            force_async: sqe.flags & ASYNC != 0 || matches!(sqe.opcode, OP_FSYNC | OP_FALLOCATE),
            sqe,
        }
    }
}
