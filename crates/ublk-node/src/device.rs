//! An open device.

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use napi::bindgen_prelude::Object;
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{Env, Status};
use napi_derive::napi;
use ublk_core::device::{Access, Device, End};
use ublk_core::driver::linux::Linux;
use ublk_core::error::{Code, Error};

use crate::before_start::{self, OnAdded};
use crate::describe::{self, Buffers, Counters, DeviceInfo};
use crate::latencies::NativeHistogram;
use crate::open_devices::{self, OpenDevices, Place};
use crate::options::NativeDeviceOptions;
use crate::outcome::{Failure, Outcome};
use crate::overlay::OverlaySnapshot;
use crate::overlay_tasks::{FrozenLayers, NativeOverlayTask, OverlayMerged};
use crate::served::Served;
use crate::stalls::NativeStall;
use crate::throttle::NativeThrottle;
use crate::watch::NativeWatch;
use crate::{targets, task};

/// How a device ended.
#[derive(Debug)]
#[napi(object, object_from_js = false)]
pub struct NativeEnd {
    /// What ended the service.
    #[napi(ts_type = "'closed' | 'stopped' | 'quiesced' | 'failed'")]
    pub reason: &'static str,
    /// With `failed`: why.
    pub failure: Option<Failure>,
}

impl From<End> for NativeEnd {
    fn from(end: End) -> Self {
        match end {
            End::Closed => Self { reason: "closed", failure: None },
            End::Stopped => Self { reason: "stopped", failure: None },
            End::Quiesced => Self { reason: "quiesced", failure: None },
            End::Failed(error) => Self { reason: "failed", failure: Some(error.into()) },
        }
    }
}

/// Called once; does not keep the event loop alive (`src/device.ts` does, and can stop doing so).
pub(crate) type OnEnd = ThreadsafeFunction<NativeEnd, (), NativeEnd, Status, false, true, 1>;

/// An open device. The environment holds the device too: the device stays open when JavaScript's
/// garbage collector takes this object.
#[napi]
pub struct NativeDevice {
    device: Arc<dyn Served>,
}

/// Creates and serves a device; calls `on_added` before the device starts, and `on_end` once when the
/// device is gone, for whatever reason.
#[napi(
    catch_unwind,
    ts_args_type = "options: NativeDeviceOptions, onEnd: (end: NativeEnd) => void, onAdded?: (device: \
                    AddedDevice) => void",
    ts_return_type = "Promise<Outcome<NativeDevice>>"
)]
pub fn create_device<'env>(
    env: &'env Env,
    options: NativeDeviceOptions,
    on_end: OnEnd,
    on_added: Option<OnAdded>,
) -> napi::Result<Object<'env>> {
    open(env, on_end, move || {
        let (mut options, target) = options.convert()?;
        before_start::set(&mut options, on_added);
        Device::create(&Linux::new(), target.open()?, options).map(served)
    })
}

/// Serves a device whose server has left.
#[napi(
    catch_unwind,
    ts_args_type = "id: number, options: NativeDeviceOptions, onEnd: (end: NativeEnd) => void",
    ts_return_type = "Promise<Outcome<NativeDevice>>"
)]
pub fn recover_device<'env>(
    env: &'env Env,
    id: u32,
    options: NativeDeviceOptions,
    on_end: OnEnd,
) -> napi::Result<Object<'env>> {
    open(env, on_end, move || {
        let (options, target) = options.convert()?;
        let open = |promised| target.clone().recover(promised);
        Device::recover_opening(&Linux::new(), id, open, options).map(served)
    })
}

/// Looks whether `recover_device` would take the target; changes nothing. Answers whether the target was
/// compared, and not only found in use.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<boolean>>")]
pub fn check_recovery(
    env: &Env,
    id: u32,
    options: NativeDeviceOptions,
) -> napi::Result<Object<'_>> {
    task::promise(env, move || {
        let (options, target) = options.convert()?;
        Device::check_recovery(
            &Linux::new(),
            id,
            |promised| target.clone().recover(promised),
            &options,
        )
    })
}

/// Ends the service of all devices of the process, as the end of the process would.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<void>>")]
pub fn part_all(env: &Env) -> napi::Result<Object<'_>> {
    task::promise(env, open_devices::part_all)
}

/// Opens a device on a thread of `aside`, and keeps a place reserved for the device until the end.
pub(crate) fn open(
    env: &Env,
    on_end: OnEnd,
    device: impl FnOnce() -> Result<Arc<dyn Served>, Error> + Send + 'static,
) -> napi::Result<Object<'_>> {
    let mut place = OpenDevices::of(env)?.reserve();
    task::promise(env, move || {
        let device = device()?;
        place.fill(&device);
        tell_of_end(&*device, place, on_end);
        Ok(NativeDevice { device })
    })
}

/// A device, with any kind of server.
pub(crate) fn served(device: impl Served + 'static) -> Arc<dyn Served> {
    Arc::new(device)
}

#[napi]
impl NativeDevice {
    /// The device at the start of the service.
    #[napi(catch_unwind)]
    pub fn info(&self) -> DeviceInfo {
        self.device.info().into()
    }

    /// Where clients of an export connect to, as `host:port` or a path; null for a block device.
    #[napi(catch_unwind)]
    pub fn address(&self) -> Option<String> {
        self.device.address()
    }

    /// The negotiated buffer modes.
    #[napi(catch_unwind)]
    pub fn buffers(&self) -> Buffers {
        self.device.buffers().into()
    }

    /// The negotiated exchange.
    #[napi(catch_unwind, ts_return_type = "'per-io' | 'batch'")]
    pub fn exchange_mode(&self) -> &'static str {
        describe::exchange_mode(self.device.exchange())
    }

    /// Each queue's counters.
    #[napi(catch_unwind)]
    pub fn stats(&self) -> Vec<Counters> {
        self.device.stats().iter().map(Counters::from).collect()
    }

    /// Reports the completions of the device's requests, with room for `capacity` completions per
    /// queue.
    #[napi(catch_unwind)]
    pub fn watch(&self, capacity: u32) -> NativeWatch {
        NativeWatch::new(self.device.watch(capacity))
    }

    /// Measures the latencies of requests from now on.
    #[napi(catch_unwind)]
    pub fn measure(&self) {
        self.device.measure();
    }

    /// The latencies measured so far, a histogram per kind of request; none without `measure`.
    #[napi(catch_unwind)]
    pub fn latencies(&self) -> Option<Vec<NativeHistogram>> {
        let all = self.device.latencies()?;
        Some(all.into_iter().map(NativeHistogram::from).collect())
    }

    /// Looks for requests that do not end and threads that do not answer, and reports each once.
    #[napi(catch_unwind)]
    pub fn stalls(&self) -> Vec<NativeStall> {
        self.device.stalls().into_iter().map(NativeStall::from).collect()
    }

    /// Changes the device's size, in bytes.
    #[napi(catch_unwind, ts_return_type = "Promise<Outcome<DeviceInfo>>")]
    pub fn resize<'env>(&self, env: &'env Env, size: i64) -> napi::Result<Object<'env>> {
        let device = Arc::clone(&self.device);
        task::promise(env, move || {
            let size = targets::bytes(size)?;
            device.resize(size).map(|info| DeviceInfo::from(&info))
        })
    }

    /// Limits the device's requests from now on.
    #[napi(catch_unwind, ts_return_type = "Outcome<void>")]
    pub fn throttle(&self, limits: NativeThrottle) -> Outcome<()> {
        self.device.throttle(&limits.convert()).into()
    }

    /// Freezes the present contents of the disk in a separate file, and makes new disks with the
    /// same contents; without a name for the file, a name is made.
    #[napi(catch_unwind, ts_return_type = "Promise<Outcome<OverlaySnapshot>>")]
    pub fn snapshot<'env>(
        &self,
        env: &'env Env,
        #[napi(ts_arg_type = "readonly string[]")] children: Vec<String>,
        file: Option<String>,
    ) -> napi::Result<Object<'env>> {
        let device = Arc::clone(&self.device);
        task::promise(env, move || {
            let children = children.into_iter().map(Into::into).collect();
            let taken = device.snapshot(file.map(Into::into), children)?;
            Ok(OverlaySnapshot::from(&taken))
        })
    }

    /// The frozen layers below the disk; null for a target without layers.
    #[napi(catch_unwind, ts_return_type = "Promise<Outcome<FrozenLayers | null>>")]
    pub fn frozen<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        let device = Arc::clone(&self.device);
        task::promise(env, move || Ok(device.frozen()?.map(FrozenLayers::from)))
    }

    /// Merges the frozen layers of the disk into one, at so many bytes per second; 0: no limit.
    #[napi(catch_unwind, ts_return_type = "Promise<Outcome<OverlayMerged>>")]
    pub fn flatten<'env>(
        &self,
        env: &'env Env,
        prunes: bool,
        pace: i64,
        task: &NativeOverlayTask,
    ) -> napi::Result<Object<'env>> {
        let (device, progress) = (Arc::clone(&self.device), Arc::clone(&task.progress));
        task::promise(env, move || {
            progress.set_pace(targets::bytes(pace)?);
            Ok(OverlayMerged::from(device.flatten(prunes, &progress)?))
        })
    }

    /// Leaves the device to the next server.
    #[napi(catch_unwind, ts_return_type = "Promise<Outcome<void>>")]
    pub fn quiesce<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        let device = Arc::clone(&self.device);
        task::promise(env, move || device.quiesce())
    }

    /// Lets clients share the memory of this file; returns the number for `unshare`.
    #[napi(catch_unwind, ts_return_type = "Promise<Outcome<number>>")]
    pub fn share<'env>(
        &self,
        env: &'env Env,
        path: String,
        read_only: bool,
    ) -> napi::Result<Object<'env>> {
        let device = Arc::clone(&self.device);
        task::promise(env, move || {
            // A FIFO would wait for its other end; of a file in memory the flag means nothing.
            let mut options = OpenOptions::new();
            options.read(true).write(!read_only).custom_flags(libc::O_NONBLOCK);
            let file = options.open(&path);
            let file = file.map_err(|error| {
                Error::os(Code::InvalidArgument, format!("cannot open {path}"), "open", &error)
            })?;
            let access = if read_only { Access::ReadOnly } else { Access::ReadWrite };
            device.share(file.as_raw_fd(), access).map(u32::from)
        })
    }

    /// Takes shared memory back.
    #[napi(catch_unwind, ts_return_type = "Promise<Outcome<void>>")]
    pub fn unshare<'env>(&self, env: &'env Env, index: u32) -> napi::Result<Object<'env>> {
        let device = Arc::clone(&self.device);
        task::promise(env, move || device.unshare(u16::try_from(index).unwrap_or(u16::MAX)))
    }

    /// Leaves a device with recovery to the next server, and closes any other device.
    #[napi(catch_unwind, ts_return_type = "Promise<Outcome<void>>")]
    pub fn part<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        let device = Arc::clone(&self.device);
        task::promise(env, move || device.part())
    }

    /// Closes the device. A device with recovery stays for the next server, if a client has the
    /// device open.
    #[napi(catch_unwind, ts_return_type = "Promise<Outcome<void>>")]
    pub fn release<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        let device = Arc::clone(&self.device);
        task::promise(env, move || device.release())
    }

    /// Stops and removes the device.
    #[napi(catch_unwind, ts_return_type = "Promise<Outcome<void>>")]
    pub fn close<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        let device = Arc::clone(&self.device);
        task::promise(env, move || device.close())
    }
}

/// Reports the end of the device to JavaScript.
fn tell_of_end(device: &dyn Served, place: Place, on_end: OnEnd) {
    device.on_end(Box::new(move |end| {
        // Refused only by an environment already ended.
        on_end.call(end.into(), ThreadsafeFunctionCallMode::NonBlocking);
        drop(place);
    }));
}
