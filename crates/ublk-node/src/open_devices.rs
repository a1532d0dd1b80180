//! The devices that a JavaScript environment (the main thread or a worker) holds open, so that
//! its end leaves those with recovery to their next server, and closes the others.
//!
//! A worker that ends, and a main thread that has nothing left to do, run their cleanup hooks;
//! `process.exit()` and an uncaught exception on the main thread do not, but run those of exit(3).

use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::{mem, thread};

use napi::Env;
use ublk_core::aside;
use ublk_core::error::{Code, Error};

use crate::bridge;
use crate::farewell::{self, Farewell};
use crate::served::Served;

/// Those of all environments, for exit(3).
static ALL: Mutex<Vec<Arc<OpenDevices>>> = Mutex::new(Vec::new());

/// The devices of one environment.
#[derive(Debug, Default)]
pub(crate) struct OpenDevices {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ending: bool,
    /// Devices that are being created or are open.
    places: usize,
    /// Why the kernel does not let go of devices among them.
    refusals: Vec<String>,
    /// What the end of others has cost their clients.
    losses: Vec<String>,
    devices: Vec<Arc<dyn Served>>,
}

/// A device's place, from before it is created until it has ended.
#[derive(Debug)]
pub(crate) struct Place {
    all: Arc<OpenDevices>,
    device: Option<Arc<dyn Served>>,
}

impl OpenDevices {
    /// Those of `env`.
    pub(crate) fn of(env: &Env) -> napi::Result<Arc<Self>> {
        if let Some(all) = env.get_instance_data::<Arc<Self>>()? {
            return Ok(Arc::clone(all));
        }
        let all = Arc::new(Self::default());
        env.set_instance_data(Arc::clone(&all), (), |_| {})?;
        env.add_env_cleanup_hook(Arc::clone(&all), |all| {
            all.end(farewell::is_main_thread());
            every().retain(|other| !Arc::ptr_eq(other, &all));
        })?;
        every().push(Arc::clone(&all));
        register_at_exit();
        Ok(all)
    }

    /// Makes room for a device that is about to be created.
    pub(crate) fn reserve(self: Arc<Self>) -> Place {
        self.lock().places += 1;
        Place { all: self, device: None }
    }

    /// Ends the service of all devices, of those too that are being created, and waits for that as
    /// long as it goes on. `process`: the process ends too.
    fn end(self: &Arc<Self>, process: bool) {
        let mut state = self.begin();
        let mut farewell = Farewell::new(process);
        while state.places > state.refusals.len() {
            let devices = state.devices.clone();
            // Whoever counts may wait for a reactor, and a device that ends waits for this lock.
            drop(state);
            if !farewell.goes_on(&devices) {
                return;
            }
            state = self.lock();
            if state.places > state.refusals.len() {
                let waited = self.changed.wait_timeout(state, farewell::LOOK);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        for said in state.refusals.iter().chain(&state.losses) {
            farewell::say(said);
        }
    }

    /// The same at the wish of a program that goes on meanwhile, however long it takes.
    fn part(self: &Arc<Self>) -> Result<(), Error> {
        let mut state = self.begin();
        while state.places > state.refusals.len() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.ending = false;
        if state.refusals.is_empty() {
            return Ok(());
        }
        Err(Error::new(Code::Busy, mem::take(&mut state.refusals).join("; ")))
    }

    fn begin(self: &Arc<Self>) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        state.ending = true;
        state.refusals.clear();
        for device in state.devices.clone() {
            self.part_aside(&mut state, &device);
        }
        state
    }

    /// Ends the service of a device on a thread of `aside`.
    fn part_aside(self: &Arc<Self>, state: &mut State, device: &Arc<dyn Served>) {
        let (all, device) = (Arc::clone(self), Arc::clone(device));
        let part = move || {
            let (result, loss) = farewell::part(&*device);
            let mut state = all.lock();
            state.refusals.extend(result.err());
            state.losses.extend(loss);
            all.changed.notify_all();
        };
        if let Err(error) = aside::run(part) {
            state.refusals.push(format!("cannot start a thread that closes a device: {error}"));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The device has been created; its service ends at once if the environment has ended meanwhile.
    pub(crate) fn fill(&mut self, device: &Arc<dyn Served>) {
        self.device = Some(Arc::clone(device));
        let mut state = self.all.lock();
        state.devices.push(Arc::clone(device));
        if state.ending {
            self.all.part_aside(&mut state, device);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.all.lock();
        state.places -= 1;
        if let Some(device) = &self.device {
            state.devices.retain(|other| !Arc::ptr_eq(other, device));
        }
        self.all.changed.notify_all();
    }
}

/// Ends the service of the devices of all environments, the workers' too. Returns when nothing of
/// them is served any more.
///
/// # Errors
/// Which devices the kernel does not let go of, and why; they are served on.
pub(crate) fn part_all() -> Result<(), Error> {
    let environments = every().clone();
    let parting: Vec<_> = environments
        .into_iter()
        .map(|all| thread::Builder::new().name("ublk-close".into()).spawn(move || all.part()))
        .collect();
    for one in parting {
        let thread = one.map_err(|error| {
            let what = "cannot start a thread that closes devices";
            Error::os(Code::Kernel, what, "clone", &error)
        })?;
        // A panic leaves the devices to the end of the process.
        thread.join().unwrap_or(Ok(()))?;
    }
    Ok(())
}

fn every() -> MutexGuard<'static, Vec<Arc<OpenDevices>>> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

fn register_at_exit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the function is 'static: napi-rs never unloads an addon that has made a
        // threadsafe function or a deferred, and we come here only to make both.
        let status = unsafe { libc::atexit(end_every) };
        // Without memory for 16 bytes there are more urgent things to fail of.
        debug_assert_eq!(status, 0, "atexit");
        ublk_core::remote::rbd::end_before(end_every);
    });
}

extern "C" fn end_every() {
    bridge::abandon_all();
    let environments = every().clone();
    environments.iter().for_each(|all| all.end(true));
}
