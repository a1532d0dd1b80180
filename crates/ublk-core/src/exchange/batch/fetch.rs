//! The multishot fetch of a batch: how the fetch is armed, ends, and is sent again.

use std::io;

use io_uring::opcode;
use ublk_sys::{
    IORING_URING_CMD_MULTISHOT, UBLK_IO_RES_ABORT, UBLK_U_IO_FETCH_IO_CMDS, ublk_batch_io,
};

use super::Batch;
use crate::driver::Ring;
use crate::exchange::inbox::Tags;
use crate::exchange::{Arrival, MAX_REFUSALS};
use crate::file_table::CHAR_DEVICE;
use crate::pass::Pass;
use crate::sqe;
use crate::token::{Kind, Token};

impl Batch {
    /// The kernel gets no buffers any more, so that its fetch ends when those that it has are full.
    /// Requests that it has handed over by then can all be answered.
    #[cold]
    pub(in crate::exchange) fn wind_down(&mut self) {
        self.winding_down = true;
        self.inbox.close();
    }

    #[inline]
    pub(in crate::exchange) fn emptied<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tags: Tags) {
        let last = tags.last;
        self.inbox.emptied(tags);
        if last {
            self.fetch_later(pass);
        }
    }

    #[cold]
    pub(super) fn fetch_ended<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        result: i32,
    ) -> io::Result<Arrival> {
        match -result {
            libc::ENOBUFS => {
                // The kernel had taken this fetch.
                self.refusals = 0;
                self.fetch_later(pass);
            }
            libc::ENOMEM if self.refusals < MAX_REFUSALS => {
                self.refusals += 1;
                self.fetch_later(pass);
            }
            errno => {
                self.fetching = false;
                let stops = result == UBLK_IO_RES_ABORT;
                return Ok(if stops { Arrival::Closing } else { Arrival::Refused(errno) });
            }
        }
        Ok(Arrival::Nothing)
    }

    /// Has the end of the pass send a fetch in place of the one that has ended, unless the queue winds
    /// down.
    #[cold]
    fn fetch_later<R: Ring>(&mut self, pass: &mut Pass<'_, R>) {
        if self.winding_down {
            self.fetching = false;
            return;
        }
        if !self.ended && !self.collecting {
            pass.put_off.push(pass.seat.number);
        }
        self.ended = true;
    }

    /// Sends a fetch in place of the one that has ended. The kernel answers a new fetch at once with
    /// the requests that wait. Among these may be the next request of a tag that a handler has
    /// committed past the reactor, and only the beginning of a pass counts such commits. So no fetch
    /// may reach the kernel between the beginning of a pass and its last completion: the fetch goes
    /// in after the last completion, and does not stay in the submission queue, which the next pass
    /// may submit at any time.
    #[cold]
    pub(super) fn fetch_again<R: Ring>(&mut self, pass: &mut Pass<'_, R>) -> io::Result<()> {
        self.ended = false;
        pass.reserve(1)?;
        self.fetch(pass);
        pass.ring.submit()
    }

    pub(super) fn fetch<R: Ring>(&mut self, pass: &mut Pass<'_, R>) {
        self.fetching = true;
        let command = ublk_batch_io { q_id: self.queue, elem_bytes: 2, ..Default::default() };
        let entry = opcode::UringCmd16::new(pass.file(CHAR_DEVICE), UBLK_U_IO_FETCH_IO_CMDS)
            .cmd(command.to_bytes())
            .build();
        let entry = sqe::with_command_flags(entry, IORING_URING_CMD_MULTISHOT);
        let entry = sqe::with_buffer_group(entry, pass.seat.number);
        self.push(pass, entry, Token::numbered(Kind::Fetch, 0));
    }
}
