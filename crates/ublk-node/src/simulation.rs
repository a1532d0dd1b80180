//! A target on the simulated driver, for `src/testing/`.

use std::sync::Arc;
use std::thread;

use napi::bindgen_prelude::{Buffer, Object};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{Env, Status};
use napi_derive::napi;
use ublk_core::driver::sim::{ClientOp, Faults, Kernel, Outcome, SimConfig};
use ublk_core::error::{Code, Error};
use ublk_core::simulation::Simulation;

use crate::device::{self, OnEnd};
use crate::options::NativeDeviceOptions;
use crate::outcome;
use crate::targets::NativeTarget;
use crate::task;

/// The frequency of faults, per thousand; `src/testing/faults.ts` has the frequencies as
/// probabilities.
#[derive(Clone, Copy, Debug)]
#[napi(object, object_to_js = false)]
pub struct NativeFaults {
    /// Reads and writes that move less than asked.
    pub short: u16,
    /// `EIO` of a backend.
    pub error: u16,
    /// `EINTR` and `EAGAIN` of a backend.
    pub interrupted: u16,
    /// `ENOMEM` and other temporary errors of ublk's commands.
    pub command: u16,
    /// Operations that complete late.
    pub delay: u16,
}

/// The faults injected so far, by kind.
#[derive(Debug)]
#[napi(object, object_from_js = false)]
pub struct NativeInjected {
    /// Reads and writes that moved less than asked.
    pub short: u32,
    /// `EIO` of a backend.
    pub error: u32,
    /// `EINTR` and `EAGAIN` of a backend.
    pub interrupted: u32,
    /// Commands of ublk that failed.
    pub command: u32,
}

/// A simulation, as requested by `src/testing/simulate.ts`.
#[derive(Debug)]
#[napi(object, object_to_js = false)]
pub struct NativeSimulationOptions {
    /// Where all chance comes from.
    pub seed: u32,
    /// The modelled kernel.
    #[napi(ts_type = "'7.3' | '6.12'")]
    pub kernel: String,
    /// The faults.
    pub faults: NativeFaults,
}

/// An operation of the disk's user.
#[napi(object, object_to_js = false)]
pub struct NativeDiskOperation {
    /// What to do.
    #[napi(ts_type = "'read' | 'write' | 'flush' | 'discard' | 'writeZeroes'")]
    pub kind: String,
    /// In bytes.
    pub offset: i64,
    /// In bytes.
    pub length: u32,
    /// The bytes to write; taken over before the call returns.
    pub data: Option<Buffer>,
    /// The write is durable before the write completes.
    pub fua: bool,
}

/// The outcome of a [`NativeDiskOperation`].
#[napi(object, object_from_js = false)]
pub struct NativeDiskOutcome {
    /// The index of the operation in the call of `begin`.
    pub place: u32,
    /// The bytes read; empty for other operations.
    pub data: Buffer,
    /// The error, positive; 0: none.
    pub errno: i32,
}

/// Keeps the event loop alive until all operations have ended.
type OnEnded =
    ThreadsafeFunction<Vec<NativeDiskOutcome>, (), Vec<NativeDiskOutcome>, Status, false>;

/// A simulated disk.
#[napi]
pub struct NativeSimulation {
    simulation: Arc<Simulation>,
}

/// Makes a simulation for devices with these options; nothing is opened yet.
#[napi(catch_unwind, ts_return_type = "Outcome<NativeSimulation>")]
pub fn simulate(
    options: NativeDeviceOptions,
    simulation: NativeSimulationOptions,
) -> outcome::Outcome<NativeSimulation> {
    let NativeSimulationOptions { seed, kernel, faults } = simulation;
    // `serve` gives each device a separate target.
    let options = match options.convert() {
        Ok((options, _)) => options,
        Err(error) => return Err(error).into(),
    };
    let kernel = match kernel.as_str() {
        "6.12" => Kernel::linux_6_12(),
        _ => Kernel::linux_7_3(),
    };
    let config = SimConfig { kernel, faults: faults.into(), ..SimConfig::blocking(seed.into()) };
    Ok(NativeSimulation { simulation: Arc::new(Simulation::new(config, &options)) }).into()
}

#[napi]
impl NativeSimulation {
    /// Opens and serves the target.
    #[napi(
        catch_unwind,
        ts_args_type = "target: NativeTarget, onEnd: (end: NativeEnd) => void",
        ts_return_type = "Promise<Outcome<NativeDevice>>"
    )]
    pub fn serve<'env>(
        &self,
        env: &'env Env,
        target: NativeTarget,
        on_end: OnEnd,
    ) -> napi::Result<Object<'env>> {
        let simulation = Arc::clone(&self.simulation);
        device::open(env, on_end, move || {
            Ok(simulation.serve(|| target.open_in(simulation.boot()))?)
        })
    }

    /// Serves the same target, or another target, after a power cut.
    #[napi(
        catch_unwind,
        ts_args_type = "target: NativeTarget, onEnd: (end: NativeEnd) => void",
        ts_return_type = "Promise<Outcome<NativeDevice>>"
    )]
    pub fn power_cycle<'env>(
        &self,
        env: &'env Env,
        target: NativeTarget,
        on_end: OnEnd,
    ) -> napi::Result<Object<'env>> {
        let simulation = Arc::clone(&self.simulation);
        device::open(env, on_end, move || {
            Ok(simulation.power_cycle(|| target.open_in(simulation.boot()))?)
        })
    }

    /// Starts operations together, and with `cut_power` a power cut in the midst of the operations.
    /// Calls `on_ended` as operations end.
    #[napi(
        catch_unwind,
        ts_args_type = "operations: NativeDiskOperation[], cutPower: boolean, onEnded: (ended: NativeDiskOutcome[]) => void",
        ts_return_type = "Outcome<void>"
    )]
    pub fn begin(
        &self,
        operations: Vec<NativeDiskOperation>,
        cut_power: bool,
        on_ended: OnEnded,
    ) -> outcome::Outcome<()> {
        let ops = operations.into_iter().map(NativeDiskOperation::convert);
        let ops = match ops.collect::<Result<Vec<_>, _>>() {
            Ok(ops) => ops,
            Err(error) => return Err(error).into(),
        };
        let begun = self.simulation.begin(&ops, cut_power);
        let wait = move || {
            begun.finish(|ended| {
                let ended = ended.into_iter().map(NativeDiskOutcome::from).collect();
                // Refused only by an environment already ended.
                on_ended.call(ended, ThreadsafeFunctionCallMode::NonBlocking);
            });
        };
        let spawned = thread::Builder::new().name("ublk-simulated".into()).spawn(wait);
        let failed =
            |error| Error::os(Code::Kernel, "cannot start a thread for the disk", "clone", &error);
        spawned.map(drop).map_err(failed).into()
    }

    /// Takes the device down and writes everything back.
    #[napi(catch_unwind, ts_return_type = "Promise<Outcome<void>>")]
    pub fn close<'env>(&self, env: &'env Env) -> napi::Result<Object<'env>> {
        let simulation = Arc::clone(&self.simulation);
        task::promise(env, move || simulation.close())
    }

    /// Changes the faults from now on.
    #[napi(catch_unwind)]
    pub fn set_faults(&self, faults: NativeFaults) {
        self.simulation.set_faults(faults.into());
    }

    /// The faults injected so far.
    #[napi(catch_unwind)]
    pub fn injected(&self) -> NativeInjected {
        let injected = self.simulation.injected();
        NativeInjected {
            short: injected.short,
            error: injected.error,
            interrupted: injected.interrupted,
            command: injected.register
                + injected.unregister
                + injected.auto_register
                + injected.command
                + injected.partial
                + injected.no_buffers,
        }
    }
}

impl From<NativeFaults> for Faults {
    fn from(faults: NativeFaults) -> Self {
        let NativeFaults { short, error, interrupted, command, delay } = faults;
        Self {
            short,
            error,
            interrupted,
            // The driver would lose the tails of writes without telling the server (trap 63).
            copied: 0,
            register: command,
            unregister: command,
            auto_register: command,
            command,
            partial: command,
            submit: command,
            full: command,
            no_buffers: command,
            delay,
        }
    }
}

impl From<(usize, Outcome)> for NativeDiskOutcome {
    fn from((place, outcome): (usize, Outcome)) -> Self {
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        let (data, errno) = match outcome {
            Ok(data) => (data, 0),
            Err(errno) => (Vec::new(), errno),
        };
        Self { place, data: data.into(), errno }
    }
}

impl NativeDiskOperation {
    fn convert(self) -> Result<ClientOp, Error> {
        let length = self.length;
        let offset = u64::try_from(self.offset)
            .map_err(|_| Error::new(Code::InvalidArgument, "an offset is negative"))?;
        match self.kind.as_str() {
            "read" => Ok(ClientOp::Read { offset, length }),
            "write" => {
                let data = self.data.map(|data| data.to_vec()).unwrap_or_default();
                Ok(ClientOp::Write { offset, data, fua: self.fua })
            }
            "flush" => Ok(ClientOp::Flush),
            "discard" => Ok(ClientOp::Discard { offset, length }),
            "writeZeroes" => Ok(ClientOp::WriteZeroes { offset, length, no_unmap: false }),
            kind => Err(Error::new(Code::InvalidArgument, format!("there is no operation {kind}"))),
        }
    }
}
