//! Operations on real sockets: SEND, SENDMSG, RECV.

use std::io;
use std::os::fd::RawFd;

use crate::driver::sim::model::Model;
use crate::driver::sim::storage::files::FileRef;
use crate::driver::sim::storage::memory;
use crate::driver::sim::uring::ops::Issued;
use crate::driver::sim::uring::sqe::{OP_RECV, OP_SEND, OP_SENDMSG, Sqe};
use crate::driver::sim::violation::Rule;

/// The kernel's limit of pieces in a message.
const UIO_MAXIOV: usize = 1024;

/// The events that an operation of a stream waits for, as a poll mask.
pub(crate) fn awaited(opcode: u8) -> u32 {
    let events = match opcode {
        OP_SEND | OP_SENDMSG => libc::POLLOUT,
        _ => libc::POLLIN,
    };
    events.cast_unsigned().into()
}

/// io_sendmsg_prep, io_recvmsg_prep, as far as the server uses them.
pub(crate) fn is_valid(sqe: &Sqe) -> bool {
    let flags = (libc::MSG_NOSIGNAL | libc::MSG_WAITALL).cast_unsigned();
    let message = sqe.opcode == OP_SENDMSG;
    let poll_first = u16::from(sqe.opcode == OP_RECV);
    let plain =
        sqe.ioprio <= poll_first && sqe.file_index == 0 && sqe.buf_index == 0 && sqe.off == 0;
    plain && sqe.op_flags & !flags == 0 && (!message || sqe.len == 1)
}

impl Model {
    /// io_send, io_sendmsg, io_recv. The kernel may find a socket ready at once; the model lets each
    /// operation wait, as after a first attempt that would have blocked.
    pub(crate) fn issue_on_socket(
        &mut self,
        ring: usize,
        operation: usize,
        file: &FileRef,
    ) -> Issued {
        let sqe = self.ring(ring).ops[operation].sqe;
        if !file.is_stream() {
            self.violate(Rule::Operation, format!("no socket: {sqe:?}"));
            return Issued::Failed(libc::ENOTSOCK);
        }
        match self.pieces(&sqe) {
            Ok(_) => {
                self.ring(ring).waits.push(operation);
                Issued::Pending
            }
            Err(errno) => Issued::Failed(errno),
        }
    }

    /// The memory of the operation: address and length.
    fn pieces(&mut self, sqe: &Sqe) -> Result<Vec<(u64, u32)>, i32> {
        let pieces = match sqe.opcode {
            OP_SENDMSG => pieces_of_message(sqe.addr)?,
            _ => vec![(sqe.addr, sqe.len)],
        };
        for &(address, length) in &pieces {
            if !self.may_use_memory(address, length) {
                let what = format!("{length} bytes at {address:#x}");
                self.violate(Rule::Memory, what);
                return Err(libc::EFAULT);
            }
        }
        Ok(pieces)
    }

    /// Moves what goes now, sometimes less; none: nothing goes now.
    pub(crate) fn move_on_socket(&mut self, sqe: &Sqe, fd: RawFd) -> Option<i32> {
        let pieces = match self.pieces(sqe) {
            Ok(pieces) => pieces,
            Err(errno) => return Some(-errno),
        };
        let mut limit = pieces.iter().map(|&(_, length)| length as usize).sum::<usize>();
        // Memory pressure, signals: MSG_WAITALL is a wish.
        if limit > 1 && self.rng.chance(self.config.faults.short) {
            limit = 1 + self.rng.index(limit - 1);
        }
        if sqe.opcode == OP_RECV {
            let mut bytes = vec![0; limit];
            // SAFETY: `limit` bytes of ours.
            let done =
                unsafe { libc::recv(fd, bytes.as_mut_ptr().cast(), limit, libc::MSG_DONTWAIT) };
            let result = moved(done)?;
            if let Ok(count) = usize::try_from(result) {
                memory::store(sqe.addr, &bytes[..count]);
            }
            return Some(result);
        }
        let mut bytes = Vec::new();
        for (address, length) in pieces {
            let begin = bytes.len();
            bytes.resize(begin + length as usize, 0);
            memory::load(address, &mut bytes[begin..]);
        }
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: `limit` bytes of ours.
        moved(unsafe { libc::send(fd, bytes.as_ptr().cast(), limit, flags) })
    }
}

fn pieces_of_message(address: u64) -> Result<Vec<(u64, u32)>, i32> {
    let mut message = [0_u8; size_of::<libc::msghdr>()];
    memory::load(address, &mut message);
    // SAFETY: plain numbers and pointers, read as what the server has put there.
    let message = unsafe { message.as_ptr().cast::<libc::msghdr>().read_unaligned() };
    let nothing_else = message.msg_name.is_null() && message.msg_control.is_null();
    #[allow(clippy::unnecessary_cast, reason = "the type differs between C libraries")]
    #[allow(clippy::cast_sign_loss, reason = "a negative number is too large then")]
    let count = message.msg_iovlen as usize;
    if count > UIO_MAXIOV || !nothing_else {
        return Err(libc::EMSGSIZE);
    }
    // SAFETY: as many pieces as the message says, which the server keeps until the entry has completed.
    let pieces = unsafe { std::slice::from_raw_parts(message.msg_iov, count) };
    let piece = |piece: &libc::iovec| {
        Ok((piece.iov_base as u64, u32::try_from(piece.iov_len).map_err(|_| libc::EINVAL)?))
    };
    pieces.iter().map(piece).collect()
}

/// None: the call would have waited.
fn moved(result: isize) -> Option<i32> {
    if result >= 0 {
        return Some(i32::try_from(result).unwrap_or(i32::MAX));
    }
    match io::Error::last_os_error().raw_os_error() {
        Some(libc::EAGAIN | libc::EINTR) => None,
        errno => Some(-errno.unwrap_or(libc::EIO)),
    }
}
