//! Commands that change a device while it lives.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ublk_sys::{ublk_shmem_buf_reg, ublksrv_ctrl_cmd};

use super::command::{
    END_USER_RECOVERY, QUIESCE_DEV, REG_BUF, START_USER_RECOVERY, TRY_STOP_DEV, UNREG_BUF,
    UPDATE_SIZE,
};
use super::send::Answer;
use super::stay::unanswered;
use super::{Control, QUICK};
use crate::driver::{Driver, Plain};
use crate::error::{Code, Error, Result};

impl<D: Driver> Control<D> {
    /// Stops a device unless somebody has `/dev/ublkbN` open (Linux 7.0).
    ///
    /// # Errors
    /// [`Code::Busy`](crate::error::Code::Busy) while somebody has;
    /// [`Code::Unsupported`](crate::error::Code::Unsupported) before 7.0;
    /// [`Code::NoDevice`](crate::error::Code::NoDevice) also for one that is not started.
    pub fn try_stop(&self, id: u32, limit: Duration) -> Result<()> {
        self.send(TRY_STOP_DEV, Self::command(id), None, limit).map(drop)
    }

    /// Prepares a device whose server is gone for a new one (Linux 6.1).
    ///
    /// # Errors
    /// [`Code::Busy`](crate::error::Code::Busy) until the old server has let go of everything, its
    /// rings and mappings too; [`Code::InvalidArgument`](crate::error::Code::InvalidArgument) for a
    /// device that was created without recovery.
    pub fn start_recovery(&self, id: u32) -> Result<()> {
        self.send(START_USER_RECOVERY, Self::command(id), None, QUICK).map(drop)
    }

    /// Puts a device in recovery back to work once all its queues are being fetched from, and
    /// waits for them, as [`start`](Self::start) does.
    ///
    /// # Errors
    /// [`Code::Timeout`](crate::error::Code::Timeout) when they are not within `limit`.
    pub fn end_recovery(&self, id: u32, pid: u32, limit: Duration) -> Result<()> {
        let command = ublksrv_ctrl_cmd { data: [pid.into()], ..Self::command(id) };
        self.send(END_USER_RECOVERY, command, None, limit).map(drop)
    }

    /// Takes the fetches back from a server, so that it leaves and another can recover the device
    /// (Linux 6.16, of a device with `UBLK_F_QUIESCE`). Requests wait from now on, or fail.
    ///
    /// # Errors
    /// [`Code::Busy`](crate::error::Code::Busy) when the server held all requests of a queue until
    /// `limit`: the device is left cancelling, and the command may be sent again.
    pub fn quiesce(&self, id: u32, limit: Duration) -> Result<()> {
        // The kernel keeps 32 bits of it, and takes 0 for no limit (trap 49).
        let milliseconds = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX).max(1);
        let command = ublksrv_ctrl_cmd { data: [milliseconds.into()], ..Self::command(id) };
        self.send(QUIESCE_DEV, command, None, limit + QUICK).map(drop)
    }

    /// Sets the capacity of a started device, in sectors of 512 bytes (Linux 6.16). The kernel
    /// checks nothing, and before 7.0 it crashes when the device is not started (trap 59): look at
    /// the device's state first.
    ///
    /// # Errors
    /// [`Code::NoDevice`](crate::error::Code::NoDevice) and others.
    pub fn update_size(&self, id: u32, sectors: u64, limit: Duration) -> Result<()> {
        let command = ublksrv_ctrl_cmd { data: [sectors], ..Self::command(id) };
        let Some(bound) = self.bound.clone() else {
            return self.send(UPDATE_SIZE, command, None, limit).map(drop);
        };
        if bound.resizes.swap(true, Ordering::Relaxed) {
            let message = format!("an earlier resize of ublk device {id} is not answered yet");
            return Err(Error::new(Code::Busy, message).hint(
                "the kernel carries it out as soon as whoever has the device's mutex is done",
            ));
        }
        let later = Arc::clone(&bound);
        let sent = self.send_and_stay(UPDATE_SIZE, command, None, limit, move |_| {
            later.resizes.store(false, Ordering::Relaxed);
        });
        if let Ok(None) = sent {
            return Err(unanswered(UPDATE_SIZE, id, limit).hint(
                "the kernel may resize the device later: `ublk info` tells its size, and no other \
                 resize is begun before",
            ));
        }
        bound.resizes.store(false, Ordering::Relaxed);
        sent.map(drop)
    }

    /// Registers shared memory with a device and answers its index (Linux 7.1, of a device with
    /// `UBLK_F_SHMEM_ZC`). Pins the pages and freezes the queues: never from a thread that serves.
    /// None, when the kernel does not answer within `limit`: `late` hears what it answers later.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`](crate::error::Code::InvalidArgument) and others.
    pub fn register_memory(
        &self,
        id: u32,
        memory: &ublk_shmem_buf_reg,
        limit: Duration,
        late: impl FnOnce(Result<u16>) + Send + 'static,
    ) -> Result<Option<u16>> {
        let index = |answer: Answer| u16::try_from(answer.result).unwrap_or(u16::MAX);
        let buffer = Some(memory.to_buffer());
        let late = move |answer: Result<Answer>| late(answer.map(index));
        let sent = self.send_and_stay(REG_BUF, Self::command(id), buffer, limit, late)?;
        Ok(sent.map(index))
    }

    /// Takes memory back that was registered as `index`. Freezes the queues. None, when the kernel
    /// does not answer within `limit`: `late` hears what it answers later.
    ///
    /// # Errors
    /// [`Code::NoDevice`](crate::error::Code::NoDevice) and others.
    pub fn unregister_memory(
        &self,
        id: u32,
        index: u16,
        limit: Duration,
        late: impl FnOnce(Result<()>) + Send + 'static,
    ) -> Result<Option<()>> {
        let command = ublksrv_ctrl_cmd { data: [index.into()], ..Self::command(id) };
        let late = move |answer: Result<Answer>| late(answer.map(drop));
        Ok(self.send_and_stay(UNREG_BUF, command, None, limit, late)?.map(drop))
    }

    /// The error of shared memory that the kernel has not registered, or taken back, in time.
    pub(crate) fn memory_unanswered(id: u32, registers: bool, limit: Duration) -> Error {
        let command = if registers { REG_BUF } else { UNREG_BUF };
        unanswered(command, id, limit).hint(
            "requests in flight do not end, or the device is being stopped. Until the kernel has \
             answered, no other memory is shared or taken back; a registration that it answers \
             later is undone",
        )
    }
}
