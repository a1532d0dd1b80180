//! The ring's buffer table (io_uring/rsrc.c): a node outlives the node's slot while an operation uses the node.

use ublk_sys::ublksrv_io_cmd;

use crate::driver::sim::model::Model;
use crate::driver::sim::violation::Rule;
use crate::tag::Tag;

/// `struct io_rsrc_node` of a request's pages.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) request: u64,
    /// The table's reference, and a reference for each operation on the node.
    pub(crate) references: u32,
}

/// A slot of the table.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Slot {
    pub(crate) node: Option<usize>,
    /// The model has let the last registration into the slot fail: an operation that finds the slot empty is no
    /// fault of the server.
    pub(crate) spoilt: bool,
}

impl Model {
    /// io_buffer_register_request.
    pub(crate) fn register_node(&mut self, ring: usize, id: u64, index: u32) -> Result<(), i32> {
        let uring = self.ring(ring);
        let Some(slot) = uring.table.get_mut(index as usize) else { return Err(libc::EINVAL) };
        if slot.node.is_some() {
            return Err(libc::EBUSY);
        }
        let node = uring.nodes.insert(Node { request: id, references: 1 });
        *slot = Slot { node: Some(node), spoilt: false };
        self.note(|| format!("ring {ring}: slot {index} holds request {id}"));
        Ok(())
    }

    /// io_buffer_unregister, with a check that the kernel lacks: whose buffer it is (trap 7).
    pub(crate) fn unregister_node(
        &mut self,
        ring: usize,
        index: u64,
        owner: Option<&ublksrv_io_cmd>,
    ) -> Result<(), i32> {
        let slot = usize::try_from(index).ok().and_then(|at| self.ring(ring).table.get_mut(at));
        let Some(slot) = slot else {
            self.violate(Rule::Unregister, format!("slot {index} is beyond the table"));
            return Err(libc::EINVAL);
        };
        let Some(node) = slot.node.take() else {
            if !slot.spoilt {
                self.violate(Rule::Unregister, format!("slot {index} is empty"));
            }
            return Err(libc::EINVAL);
        };
        let id = self.ring(ring).nodes[node].request;
        let request = self.request(id);
        let (queue, tag) = (request.queue, request.tag);
        if let Some(cmd) = owner.filter(|cmd| (cmd.q_id, Some(Tag::new(cmd.tag))) != (queue, tag)) {
            let whose = format!("{}/{} empties slot {index}", cmd.q_id, cmd.tag);
            self.violate(Rule::Unregister, format!("{whose}, which holds {queue}/{tag:?}"));
        }
        self.note(|| format!("ring {ring}: slot {index} is empty"));
        self.put_node(ring, node);
        Ok(())
    }

    /// io_put_rsrc_node: the request ends with the release of the last user.
    pub(crate) fn put_node(&mut self, ring: usize, node: usize) {
        let nodes = &mut self.ring(ring).nodes;
        nodes[node].references -= 1;
        if nodes[node].references == 0 {
            let id = nodes.remove(node).request;
            self.release_buffer(ring, id);
        }
    }

    /// io_import_reg_buf: the lookup at the first issue, and the checks of every issue.
    pub(crate) fn import_buffer(&mut self, ring: usize, operation: usize) -> Result<(), i32> {
        let op = &self.ring(ring).ops[operation];
        let (sqe, known) = (op.sqe, op.node);
        let node = match known {
            Some(node) => node,
            None => {
                let slot = self.ring(ring).table.get(usize::from(sqe.buf_index)).copied();
                let Some(node) = slot.and_then(|slot| slot.node) else {
                    if !slot.is_some_and(|slot| slot.spoilt) {
                        self.violate(Rule::EmptySlot, format!("slot {} is empty", sqe.buf_index));
                    }
                    return Err(libc::EFAULT);
                };
                let uring = self.ring(ring);
                uring.nodes[node].references += 1;
                uring.ops[operation].node = Some(node);
                node
            }
        };
        let id = self.ring(ring).nodes[node].request;
        let request = self.request(id);
        let (length, reads) = (u64::from(request.left), request.reads());
        if sqe.addr.checked_add(u64::from(sqe.len)).is_none_or(|end| end > length) {
            let what = format!("{} + {} of a buffer of {length}", sqe.addr, sqe.len);
            self.violate(Rule::Range, what);
            return Err(libc::EFAULT);
        }
        if sqe.is_read() != reads {
            self.violate(Rule::Range, format!("request {id} goes the other way"));
            return Err(libc::EFAULT);
        }
        Ok(())
    }
}
