//! What becomes of a device whose server ends: one with recovery outlives its server, whatever ends
//! that, and one without is closed.

use std::time::Duration;

use super::supervise::Event;
use super::{Device, DeviceState, End, ExchangeMode, Shared, admin, change};
use crate::driver::Driver;
use crate::error::{Code, Error, Result};

impl<D: Driver> Device<D> {
    /// Ends the service because the server ends: leaves a device with recovery to the next server,
    /// and closes one without.
    ///
    /// # Errors
    /// As [`leave`](Self::leave) and [`close`](Self::close).
    pub fn part(&self) -> Result<()> {
        if self.outlives() { self.leave() } else { self.close() }
    }

    /// Leaves the device to the next server, after ending the requests already begun. Requests fail
    /// only where the device's recovery lets requests fail; with [`ExchangeMode::Batch`] and
    /// [`Recovery::Queue`](super::Recovery::Queue), requests on their way from the kernel to the server fail too. Blocks
    /// until a server can recover the device.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`](crate::error::Code::InvalidArgument) for a device without
    /// recovery; [`Code::Unsupported`](crate::error::Code::Unsupported) before Linux 6.16;
    /// [`Code::Timeout`](crate::error::Code::Timeout) when requests in flight do not end: the server
    /// leaves when they have ended, and [`wait`](Self::wait) tells;
    /// [`Code::Closed`](crate::error::Code::Closed) when the device has ended otherwise.
    pub fn quiesce(&self) -> Result<()> {
        let shared = &self.shared;
        if matches!(shared.lock().end, Some(End::Quiesced)) {
            return Ok(());
        }
        self.lives()?;
        let (id, limit) = (shared.info.id, shared.patience());
        match &shared.leave {
            Some(events) if shared.info.recovery.is_some() => {
                change::check_quiesce(&shared.control, id)?;
                if shared.links && !shared.control.driver().counts_requests(id) {
                    return Err(change::uncounted(id));
                }
                // The kernel fails requests of a batch device from QUIESCE_DEV on, so the server
                // leaves without QUIESCE_DEV; no more requests arrive than there are buffers for
                // (`Exchange::wind_down`).
                if shared.exchange != ExchangeMode::Batch {
                    change::take_away(&shared.control, id)?;
                    change::until_idle(&shared.control, id, limit);
                }
                // The supervisor lives as long as the device.
                drop(events.send(Event::Leave));
            }
            _ => change::quiesce_and_wait(&shared.control, id, limit)?,
        }
        self.wait_until_left(limit)
    }

    /// Leaves the device to the next server, as the death of this process would, but ends first
    /// what has begun. Needs no feature of the kernel where the device has threads of its own. Where a
    /// handler has ended, its unanswered requests are left to the kernel: with
    /// [`Recovery::Reissue`](super::Recovery::Reissue) the next server gets them, and otherwise they
    /// fail.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] for a device without recovery; for a device of a pool what
    /// [`quiesce`](Self::quiesce) says, and [`Code::Busy`] where its handler has ended: only the end
    /// of the process leaves it.
    pub fn leave(&self) -> Result<()> {
        let shared = &self.shared;
        let (id, limit) = (shared.info.id, shared.patience());
        if !self.outlives() {
            return Err(change::no_recovery(id));
        }
        if shared.lock().end.is_some() {
            return Ok(());
        }
        let Some(events) = &shared.leave else {
            return if is_forsaken(shared) { Err(held_by_a_pool(id)) } else { self.quiesce() };
        };
        // The kernel lets new requests wait, where it can (Linux 6.16), so that none is on its way
        // to a server that is gone: with `Recovery::Queue` that request would fail. A batch device
        // is left without (see `Device::quiesce`).
        if shared.exchange != ExchangeMode::Batch && change::take_away(&shared.control, id).is_ok()
        {
            end_what_has_begun(shared);
        }
        // The supervisor lives as long as the device.
        drop(events.send(Event::Leave));
        self.wait_until_left(limit)
    }

    /// Waits until the next server can take the device over.
    pub(super) fn wait_until_left(&self, limit: Duration) -> Result<()> {
        let id = self.shared.info.id;
        let does_not_end = || Err(change::does_not_end(id, std::process::id()));
        match self.wait_for(limit) {
            None => does_not_end(),
            Some(End::Failed(error)) => Err(error),
            Some(End::Quiesced) => match change::until_left(&self.shared.control, id, limit)? {
                DeviceState::Live => does_not_end(),
                _ => Ok(()),
            },
            Some(End::Closed | End::Stopped) => Ok(()),
        }
    }

    /// Ends the service because the program needs the device no more: closes it, unless it has
    /// recovery and somebody has it open; then it is left to the next server.
    ///
    /// # Errors
    /// As [`leave`](Self::leave) and [`close`](Self::close).
    pub fn release(&self) -> Result<()> {
        if !self.outlives() {
            return self.close();
        }
        if self.shared.lock().end.is_some() {
            return Ok(());
        }
        match admin::stop(self.shared.control.driver(), self.shared.info.id, false) {
            Err(Error { code: Code::Busy, .. }) => self.leave(),
            Err(error) if error.code != Code::NoDevice => Err(error),
            // It is stopped, or gone: what is left to do is what closing does.
            _ => self.close(),
        }
    }

    /// How many requests have failed since the handler that should have answered them was gone.
    pub fn unanswered(&self) -> u32 {
        self.shared.bridge.as_ref().map_or(0, |bridge| bridge.unanswered())
    }

    fn outlives(&self) -> bool {
        self.shared.info.recovery.is_some()
    }
}

/// Waits until the server has answered the requests that it has, apart from those of a handler that
/// has ended: the next server answers these.
pub(super) fn end_what_has_begun<D: Driver>(shared: &Shared<D>) {
    if !is_forsaken(shared) {
        change::until_idle(&shared.control, shared.info.id, shared.options.limit);
    }
}

fn is_forsaken<D>(shared: &Shared<D>) -> bool {
    shared.bridge.as_ref().is_some_and(|bridge| bridge.is_forsaken())
}

fn held_by_a_pool(id: u32) -> Error {
    let message = format!("ublk device {id} cannot be left: its handler has ended");
    Error::new(Code::Busy, message)
        .hint("its pool of reactors serves it until the process ends; then it can be recovered")
}
