//! Commands whose answer counts whenever it comes: a time-out says nothing of what the kernel does.

use std::io;
use std::sync::mpsc::{SendError, sync_channel};
use std::time::Duration;

use ublk_sys::ublksrv_ctrl_cmd;

use super::Control;
use super::cause::refused;
use super::command::Command;
use super::send::Answer;
use crate::aside;
use crate::driver::Driver;
use crate::error::{Error, Result};

/// 136 years.
pub(super) const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);

impl<D: Driver> Control<D> {
    /// Sends a command on a thread that stays with it until the kernel has answered. None, if it has
    /// not within `limit`: `late` hears the answer then, when it comes.
    pub(super) fn send_and_stay(
        &self,
        command: Command,
        arguments: ublksrv_ctrl_cmd,
        buffer: Option<Box<[u8]>>,
        limit: Duration,
        late: impl FnOnce(Result<Answer>) + Send + 'static,
    ) -> Result<Option<Answer>> {
        // Nobody but the receiver takes an answer: it is heard here or late, and never lost.
        let (tell, told) = sync_channel(0);
        let control = self.clone();
        let spawned = aside::run_at_once(move || {
            let answer = control.send(command, arguments, buffer, FOR_EVER);
            if let Err(SendError(answer)) = tell.send(answer) {
                late(answer);
            }
        });
        spawned.map_err(|error| Error::no_thread(&error))?;
        told.recv_timeout(limit).ok().transpose()
    }
}

/// The error of a command that the kernel has not answered in time.
pub(super) fn unanswered(command: Command, id: u32, limit: Duration) -> Error {
    refused(command.name, id, limit, &io::Error::from_raw_os_error(libc::ETIMEDOUT))
}
