//! Recovery: a new server takes over a device whose server has left.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ublk_sys::{UBLK_PARAM_TYPE_DMA_ALIGN, UBLK_S_DEV_DEAD, ublk_params, ublksrv_ctrl_dev_info};

use super::abilities::recovers;
use super::create::{Begin, Launch, has_node};
use super::exclusions::Choices;
use super::options::{Buffering, DeviceOptions, DeviceState, ExchangeMode};
use super::pool::Pool;
use super::promises::{block, differences, refuse};
use super::{Device, layout, negotiate, params, staff};
use crate::control::Control;
use crate::driver::Driver;
use crate::error::{Code, Error, Result};
use crate::reactor::Throttle;
use crate::targets::Target;
use crate::targets::file::Promised;

impl<D: Driver> Device<D> {
    /// Serves a device whose server has ended or is about to end (`recovery` in [`DeviceOptions`]):
    /// after a crash, or for an upgrade. The first server's options decided the queues, the depth,
    /// the buffers, the exchange and so on; of `options` only `threads`, `split_register`,
    /// `rings_apart`, `pin`, `affinity` and `limit` count. Waits up to `limit` for the old server
    /// to leave the device.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`](crate::error::Code::InvalidArgument) for a device without
    /// recovery; [`Code::BadBackend`](crate::error::Code::BadBackend) when the target's geometry or
    /// layout is another than the device's; [`Code::Busy`](crate::error::Code::Busy) when the old server
    /// stays. After an error the device waits on, for the next attempt.
    pub fn recover<T: Target>(
        driver: &D,
        id: u32,
        target: T,
        options: DeviceOptions,
    ) -> Result<Self> {
        recover(driver, id, once(target), options, None)
    }

    /// [`recover`](Self::recover) with a target opened by `open`, which receives the properties
    /// promised to clients. While the old server still has the backing store, `open` fails with
    /// [`Code::Busy`](crate::error::Code::Busy); this function then calls `open` again once the old
    /// server is gone, up to `limit`.
    ///
    /// # Errors
    /// As [`recover`](Self::recover); the last error of `open`.
    pub fn recover_opening<T: Target>(
        driver: &D,
        id: u32,
        open: impl FnMut(Promised) -> Result<T>,
        options: DeviceOptions,
    ) -> Result<Self> {
        recover(driver, id, open, options, None)
    }

    /// Looks whether [`recover_opening`](Self::recover_opening) would take the target, and changes
    /// nothing: the old server may go on. Returns whether the target was compared; a target whose
    /// backing store the old server has locked was not.
    ///
    /// # Errors
    /// As [`recover_opening`](Self::recover_opening), but for those of the recovery itself.
    pub fn check_recovery<T: Target>(
        driver: &D,
        id: u32,
        mut open: impl FnMut(Promised) -> Result<T>,
        options: &DeviceOptions,
    ) -> Result<bool> {
        let succession = Succession::new(driver, id, options)?;
        Ok(succession.open_now(&mut open, options, None)?.is_some())
    }

    /// [`recover`](Self::recover) with the reactors of a pool.
    ///
    /// # Errors
    /// As [`recover`](Self::recover), and when a table of the pool's is full.
    pub fn recover_in<T: Target>(
        pool: &Pool<T>,
        driver: &D,
        id: u32,
        target: T,
        options: DeviceOptions,
    ) -> Result<Self> {
        recover(driver, id, once(target), options, Some(pool))
    }

    /// [`recover_opening`](Self::recover_opening) with the reactors of a pool.
    ///
    /// # Errors
    /// As [`recover_in`](Self::recover_in), and the errors of `open`.
    pub fn recover_opening_in<T: Target>(
        pool: &Pool<T>,
        driver: &D,
        id: u32,
        open: impl FnMut(Promised) -> Result<T>,
        options: DeviceOptions,
    ) -> Result<Self> {
        recover(driver, id, open, options, Some(pool))
    }
}

/// Returns `target` at the first call, and `Busy` at every later call.
pub(super) fn once<T>(target: T) -> impl FnMut(Promised) -> Result<T> {
    let mut target = Some(target);
    move |_| target.take().ok_or_else(|| Error::new(Code::Busy, "the target is in use"))
}

pub(super) fn recover<D: Driver, T: Target>(
    driver: &D,
    id: u32,
    mut open: impl FnMut(Promised) -> Result<T>,
    options: DeviceOptions,
    pool: Option<&Pool<T>>,
) -> Result<Device<D>> {
    let succession = Succession::new(driver, id, &options)?;
    let deadline = Instant::now() + options.limit;
    // A wrong target is refused at once, not after the wait for the old server.
    let opened = succession.open_now(&mut open, &options, pool)?;
    let Succession { control, before, modes, promised, .. } = &succession;
    let info = take_over(control, before, deadline)?;
    let target = match opened {
        Some(target) => target,
        None => open_in_time(|| open(*promised), deadline)?,
    };
    let params = succession.check(&target, &options, pool)?;
    layout::keep(driver, id, &target)?;
    let begin = Begin::Recover;
    let throttle = &Arc::new(Throttle::new(&options.throttle));
    Launch { driver, control, info: &info, modes: *modes, throttle, begin }
        .run(target, &params, options, pool)
}

/// A device with a next server, while the old server may still serve the device.
struct Succession<'a, D: Driver> {
    driver: &'a D,
    control: Control<D>,
    before: ublksrv_ctrl_dev_info,
    modes: (Buffering, ExchangeMode),
    promised: Promised,
}

impl<'a, D: Driver> Succession<'a, D> {
    fn new(driver: &'a D, id: u32, options: &DeviceOptions) -> Result<Self> {
        options.validate()?;
        let control = Control::new(driver.clone()).bound_to(id);
        let before = control.info(id)?;
        let modes = check_device(&before, options)?;
        // The node of a live device is there; only what lies in its place is of interest.
        has_node(driver, id)?;
        let promised = promised(&control.params(id)?, modes.0);
        Ok(Self { driver, control, before, modes, promised })
    }

    /// Opens and checks the target; absent while the old server has the backing store.
    fn open_now<T: Target>(
        &self,
        open: &mut impl FnMut(Promised) -> Result<T>,
        options: &DeviceOptions,
        pool: Option<&Pool<T>>,
    ) -> Result<Option<T>> {
        match open(self.promised) {
            Ok(target) => self.check(&target, options, pool).map(|_| Some(target)),
            Err(Error { code: Code::Busy, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Compares the target with what clients were told and with what the old server has written down.
    fn check<T: Target>(
        &self,
        target: &T,
        options: &DeviceOptions,
        pool: Option<&Pool<T>>,
    ) -> Result<ublk_params> {
        let id = self.before.dev_id;
        let ((Buffering { mode, .. }, exchange), queues) = (self.modes, self.before.nr_hw_queues);
        Choices::of_threads(options, &[mode], Some(exchange))
            .with(target, queues, pool.is_some())
            .check()?;
        if let Some(pool) = pool {
            staff::check_room(pool, &self.before, target, options)?;
        }
        // The old server may change the size until it leaves.
        let params = self.control.params(id)?;
        let geometry = *target.geometry();
        geometry.validate()?;
        let served = params::of(&geometry, self.modes.0, self.before.max_io_buf_bytes);
        let mut differences = differences(&params, &served);
        differences.extend(layout::compare(self.driver, id, target)?);
        refuse(id, &differences)?;
        Ok(params)
    }
}

/// Refuses a device that cannot be recovered; returns the buffer mode and the exchange that the device
/// was created with.
fn check_device(
    device: &ublksrv_ctrl_dev_info,
    options: &DeviceOptions,
) -> Result<(Buffering, ExchangeMode)> {
    let id = device.dev_id;
    if !recovers(device.flags) {
        let message = format!("ublk device {id} cannot be recovered: it was created without");
        return Err(Error::new(Code::InvalidArgument, message)
            .hint("create devices with the option recovery, and they outlive their server"));
    }
    let modes = negotiate::in_force(device.flags);
    Choices::of_threads(options, &[modes.0.mode], Some(modes.1)).check()?;
    negotiate::check_threads(options, device.flags)?;
    if modes.0.shared {
        let message = format!("ublk device {id} cannot be recovered: it shares memory");
        return Err(Error::new(Code::InvalidArgument, message).hint(
            "the driver goes on to name memory that only the server that registered it has: \
             delete the device, and create it again",
        ));
    }
    if device.state == UBLK_S_DEV_DEAD {
        let message =
            format!("ublk device {id} cannot be recovered: it was stopped, or never started");
        return Err(Error::new(Code::Closed, message).hint("delete it, and create it again"));
    }
    Ok(modes)
}

/// The limits that clients rely on and that decide how the target opens its files.
fn promised(params: &ublk_params, buffers: Buffering) -> Promised {
    let dma_alignment = match params.types & UBLK_PARAM_TYPE_DMA_ALIGN != 0 {
        true => params.dma.alignment,
        // The block layer's default.
        false if buffers.mode.is_zero_copy() => 511,
        // The server copies through buffers of its own, which are aligned to pages.
        false => 4095,
    };
    Promised { logical_block: block(params), dma_alignment }
}

/// Opens the target, and tries again while the backing files are locked or open elsewhere: the kernel
/// keeps the files of a killed server open until the server's last I/O has ended.
fn open_in_time<T>(mut open: impl FnMut() -> Result<T>, deadline: Instant) -> Result<T> {
    let mut pause = Duration::from_millis(1);
    loop {
        match open() {
            Err(Error { code: Code::Busy, .. }) if Instant::now() < deadline => {}
            result => return result,
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Starts the recovery, as soon as the old server has closed the device.
fn take_over<D: Driver>(
    control: &Control<D>,
    before: &ublksrv_ctrl_dev_info,
    deadline: Instant,
) -> Result<ublksrv_ctrl_dev_info> {
    let id = before.dev_id;
    let mut pause = Duration::from_micros(100);
    loop {
        match control.start_recovery(id) {
            Ok(()) => return control.info(id),
            Err(Error { code: Code::Busy, .. }) if Instant::now() < deadline => {}
            Err(error) if error.code == Code::Busy => return Err(still_served(control, id, error)),
            Err(error) => return Err(error),
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn still_served<D: Driver>(control: &Control<D>, id: u32, error: Error) -> Error {
    let Ok(info) = control.info(id) else { return error };
    match DeviceState::from(info.state) {
        DeviceState::Live => error
            .hint(format!("process {} serves it: `ublk quiesce {id}` ends that", info.ublksrv_pid)),
        DeviceState::Dead => error.hint("it was stopped: delete it, and create it again"),
        _ => error,
    }
}
