//! What the end of a program or of a worker does with its open devices, and what it says on stderr,
//! where JavaScript hears nothing any more.

use std::io::{self, Write};
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::served::Served;

/// How often the devices are looked at.
pub(crate) const LOOK: Duration = Duration::from_millis(250);
/// How long the wait is silent.
const SILENCE: Duration = Duration::from_secs(3);
/// How long the devices may do nothing at all before the wait is given up.
const PATIENCE: Duration = Duration::from_secs(15);

/// The wait for devices whose service ends. Before the kernel removes a device, it writes to it what
/// clients have left in the page cache, so the wait goes on as long as requests end. The kernel removes
/// one device after another, so the wait also goes on as long as devices end.
pub(crate) struct Farewell {
    process: bool,
    begun: Instant,
    said: bool,
    /// When a device or a request ended last; how many devices were left, and how many of their requests
    /// had ended.
    progress: (Instant, usize, u64),
}

impl Farewell {
    /// Begins the wait. `process`: the process ends after it.
    pub(crate) fn new(process: bool) -> Self {
        let now = Instant::now();
        Self { process, begun: now, said: false, progress: (now, 0, 0) }
    }

    /// Whether to wait on for these devices; if not, each has been named on stderr.
    pub(crate) fn goes_on(&mut self, devices: &[Arc<dyn Served>]) -> bool {
        let now = Instant::now();
        let ended = devices.iter().map(|device| requests(&**device)).sum();
        let (_, left, before) = self.progress;
        if (devices.len(), ended) != (left, before) {
            self.progress = (now, devices.len(), ended);
        }
        if now - self.progress.0 >= PATIENCE {
            devices.iter().for_each(|device| self.give_up(&**device));
            return false;
        }
        if now - self.begun >= SILENCE && !self.said {
            self.said = true;
            devices.iter().for_each(|device| self.announce(&**device));
            if self.process {
                let_signals_end_the_wait();
            }
        }
        true
    }

    fn announce(&self, device: &dyn Served) {
        let path = path(device);
        let what = match device.info().recovery {
            Some(_) => "requests are still under way",
            None => "the kernel is removing it, and may still write back what clients have written",
        };
        let how = if self.process { "; a signal ends this wait, and loses them" } else { "" };
        say(&format!("{path}: {what}{how}"));
    }

    fn give_up(&self, device: &dyn Served) {
        let (path, id) = (path(device), device.info().id);
        if device.info().recovery.is_some() {
            say(&format!("{path} is left with requests that its target has not answered"));
        } else if self.process {
            say(&format!(
                "{path} does not close, and the program ends: what clients have not flushed is \
                 lost; `ublk delete {id}` removes the device"
            ));
        } else {
            say(&format!("{path} does not close; `ublk delete {id}` goes on with that"));
        }
    }
}

/// Ends the service of a device: whether that succeeded, or why not, and what it has cost clients.
pub(crate) fn part(device: &dyn Served) -> (Result<(), String>, Option<String>) {
    let path = path(device);
    let result = device.part().map_err(|error| {
        let hint = error.hint.map_or_else(String::new, |hint| format!(" ({hint})"));
        format!("{path} cannot be closed: {}{hint}", error.message)
    });
    let failed = device.unanswered();
    let loss = (failed > 0).then(|| {
        format!(
            "{path}: {failed} requests failed, since their handler ended before it answered; `await \
             device.close()` before the end of the program lets it answer"
        )
    });
    (result, loss)
}

/// Whether this is the thread whose end is that of the process.
pub(crate) fn is_main_thread() -> bool {
    // SAFETY: neither has arguments, and neither fails.
    unsafe { libc::gettid() == libc::getpid() }
}

/// Node's handlers of signals only wake its event loop, which turns no more.
fn let_signals_end_the_wait() {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
        // SAFETY: an all-zero sigaction is a valid one, with SIG_DFL, and both pointers are to one.
        unsafe {
            let mut before: libc::sigaction = std::mem::zeroed();
            let default: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(signal, ptr::null(), &raw mut before) == 0
                && before.sa_sigaction != libc::SIG_IGN
            {
                libc::sigaction(signal, &raw const default, ptr::null_mut());
            }
        }
    }
}

fn path(device: &dyn Served) -> String {
    format!("/dev/ublkb{}", device.info().id)
}

fn requests(device: &dyn Served) -> u64 {
    let ended = device.stats().into_iter().map(|queue| {
        queue.reads
            + queue.writes
            + queue.flushes
            + queue.discards
            + queue.write_zeroes
            + queue.errors
    });
    ended.sum()
}

pub(crate) fn say(what: &str) {
    // Whoever has closed stderr wants to hear nothing.
    let _unheard = writeln!(io::stderr(), "ublk: {what}");
}
