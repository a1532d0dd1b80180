//! The devices that a JavaScript environment (the main thread or a worker) holds open, so that
//! its end closes them.
//!
//! A worker that ends, and a main thread that has nothing left to do, run their cleanup hooks;
//! `process.exit()` and an uncaught exception on the main thread do not, but run those of exit(3).

use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use napi::Env;

use crate::bridge;
use crate::served::Served;

/// How long the end of an environment waits for its devices.
const LIMIT: Duration = Duration::from_secs(15);

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
    devices: Vec<Arc<dyn Served>>,
}

/// A device's place, from before it is created until it has ended.
#[derive(Debug)]
pub(crate) struct Place {
    all: Arc<OpenDevices>,
    device: Option<Arc<dyn Served>>,
}

impl OpenDevices {
    /// Those of `env`; at its end, they are closed.
    pub(crate) fn of(env: &Env) -> napi::Result<Arc<Self>> {
        if let Some(all) = env.get_instance_data::<Arc<Self>>()? {
            return Ok(Arc::clone(all));
        }
        let all = Arc::new(Self::default());
        env.set_instance_data(Arc::clone(&all), (), |_| {})?;
        env.add_env_cleanup_hook(Arc::clone(&all), |all| {
            all.end();
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

    /// Closes all devices, those too that are being created, and waits for them, within bounds.
    fn end(&self) {
        let mut state = self.lock();
        state.ending = true;
        state.devices.iter().for_each(close_aside);
        let deadline = Instant::now() + LIMIT;
        while state.places > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state =
                self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The device has been created; it is closed at once if the environment has ended meanwhile.
    pub(crate) fn fill(&mut self, device: &Arc<dyn Served>) {
        self.device = Some(Arc::clone(device));
        let mut state = self.all.lock();
        state.devices.push(Arc::clone(device));
        if state.ending {
            close_aside(device);
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
    });
}

extern "C" fn end_every() {
    bridge::abandon_all();
    let environments = every().clone();
    environments.iter().for_each(|all| all.end());
}

fn close_aside(device: &Arc<dyn Served>) {
    let device = Arc::clone(device);
    // Without a thread, or when the kernel refuses, nobody is left to tell; `ublk list` shows it.
    let _unheard = thread::Builder::new().name("ublk-close".into()).spawn(move || device.close());
}
