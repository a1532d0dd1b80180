//! Commits past the reactor: whoever has the answer to a request may say so to the kernel, from any
//! thread, where one command is for many requests (`UBLK_F_BATCH_IO`, Linux 7.0).

use std::io;

use io_uring::opcode;
use io_uring::types::Fd;
use ublk_sys::{UBLK_BATCH_F_HAS_BUF_ADDR, UBLK_U_IO_COMMIT_IO_CMDS};

use super::elements::{Element, Elements};
use crate::driver::{Errands, OpenFile};
use crate::tag::Tag;

/// Commits requests of a queue whose data the kernel copies.
#[derive(Debug)]
pub(crate) struct Bypass {
    // Fields drop in this order: the file last (trap 30).
    errands: Box<dyn Errands>,
    element: Elements,
    queue: u16,
    char_device: OpenFile,
}

impl Bypass {
    pub(crate) fn new(errands: Box<dyn Errands>, queue: u16, char_device: OpenFile) -> Self {
        Self { errands, element: Elements::new(1, 2), queue, char_device }
    }

    /// Commits a request; data of the tag's next one is copied to and from `memory`. False when the
    /// kernel refuses, and the request is still the server's.
    ///
    /// # Errors
    /// When nobody knows: it must not be used again.
    pub(crate) fn commit(&mut self, tag: Tag, result: i32, memory: *mut u8) -> io::Result<bool> {
        self.element.set(0, &Element::of_copy(tag, memory), result);
        let command = self.element.described(self.queue, UBLK_BATCH_F_HAS_BUF_ADDR, 1);
        let entry = opcode::UringCmd16::new(Fd(self.char_device.fd()), UBLK_U_IO_COMMIT_IO_CMDS)
            .cmd(command.to_bytes())
            .addr(Some(self.element.address(0)))
            .build();
        // SAFETY: the element is ours, and goes after the errands.
        let taken = unsafe { self.errands.run(&entry) }?;
        Ok(usize::try_from(taken) == Ok(self.element.element_bytes()))
    }
}
