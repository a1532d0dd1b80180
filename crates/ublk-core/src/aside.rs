//! The threads of the process for work that may block: control commands, opening targets, taking
//! devices down.
//!
//! Any work may take minutes, and no work waits for other work: where no thread is idle, [`run`] makes a
//! thread. An idle thread keeps its ring for control commands. The last two threads stay until the
//! process ends, so a device that could be created can be closed where no more threads can be made
//! (`pids.max`, `RLIMIT_NPROC`): work takes turns there.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::signals;

type Work = Box<dyn FnOnce() + Send>;

/// The number of threads that stay.
const KEPT: usize = 2;
/// The number of threads that may be idle at a time.
const MOST_IDLE: usize = 8;
/// The time after which an idle thread ends, beyond the kept ones.
const IDLE: Duration = Duration::from_secs(5);

static THREADS: Mutex<Threads> = Mutex::new(Threads { waiting: VecDeque::new(), all: 0, idle: 0 });
/// Notified for each work that an idle thread can take.
static WORK: Condvar = Condvar::new();

struct Threads {
    waiting: VecDeque<Work>,
    all: usize,
    idle: usize,
}

/// Makes the first thread of the process, which stays.
///
/// # Errors
/// What clone(2) says.
pub fn prepare() -> io::Result<()> {
    match lock().all {
        0 => run(|| {}),
        _ => Ok(()),
    }
}

/// Runs `work` on an idle or a new thread. Where no thread can be made, `work` waits for the end of
/// other work.
///
/// # Errors
/// What clone(2) says, where the process has no such thread at all.
pub fn run(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let mut threads = lock();
    match threads.offer(Box::new(work)) {
        Err(_) if threads.all > 0 => Ok(()),
        Err(error) => {
            threads.waiting.pop_back();
            Err(error)
        }
        Ok(()) => Ok(()),
    }
}

/// Runs `work`, for which the caller is going to wait, on an idle or a new thread.
///
/// # Errors
/// What clone(2) says; `work` is dropped.
pub(crate) fn run_at_once(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let mut threads = lock();
    threads.offer(Box::new(work)).inspect_err(|_| drop(threads.waiting.pop_back()))
}

impl Threads {
    /// Adds `work` to the end of the waiting work, and sees to a thread for `work`.
    fn offer(&mut self, work: Work) -> io::Result<()> {
        self.waiting.push_back(work);
        if self.idle >= self.waiting.len() {
            WORK.notify_one();
            return Ok(());
        }
        thread::Builder::new().name("ublk-control".into()).spawn(serve)?;
        self.all += 1;
        Ok(())
    }

    /// Whether a thread without work ends.
    fn has_too_many(&self) -> bool {
        self.all > KEPT && self.idle >= MOST_IDLE
    }
}

fn serve() {
    signals::block();
    let mut threads = lock();
    loop {
        if let Some(work) = threads.waiting.pop_front() {
            drop(threads);
            // Whoever waits for the work hears of a panic; the thread goes on.
            let _panic = catch_unwind(AssertUnwindSafe(work));
            threads = lock();
            continue;
        }
        if threads.has_too_many() {
            break;
        }
        let stays = threads.all <= KEPT;
        threads.idle += 1;
        let mut waited = false;
        if stays {
            threads = WORK.wait(threads).unwrap_or_else(PoisonError::into_inner);
        } else {
            let woken = WORK.wait_timeout(threads, IDLE).unwrap_or_else(PoisonError::into_inner);
            (threads, waited) = (woken.0, woken.1.timed_out());
        }
        threads.idle -= 1;
        if waited && threads.waiting.is_empty() && threads.all > KEPT {
            break;
        }
    }
    threads.all -= 1;
}

fn lock() -> MutexGuard<'static, Threads> {
    THREADS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Instant;

    use super::*;

    #[test]
    fn no_work_waits_for_other_work() {
        let (tell, told) = channel();
        let (blocked, blockers): (Vec<_>, Vec<_>) =
            (0..3 * MOST_IDLE).map(|_| channel::<()>()).unzip();
        for (number, blocker) in blockers.into_iter().enumerate() {
            let tell = tell.clone();
            run(move || {
                tell.send(number).unwrap();
                let _ended = blocker.recv();
            })
            .unwrap();
        }
        let mut begun: Vec<_> = (0..blocked.len())
            .map(|_| told.recv_timeout(Duration::from_secs(20)).expect("work that waits"))
            .collect();
        begun.sort_unstable();
        assert!(begun.into_iter().eq(0..blocked.len()));
    }

    #[test]
    fn threads_outlive_panics_of_work_and_idle_threads_end() {
        for _ in 0..3 * MOST_IDLE {
            run(|| panic!("on purpose")).unwrap();
        }
        let deadline = Instant::now() + 8 * IDLE;
        while lock().all != KEPT {
            assert!(Instant::now() < deadline, "{} threads are left", lock().all);
            thread::sleep(Duration::from_millis(10));
        }
        let (tell, told) = channel();
        run(move || tell.send(()).unwrap()).unwrap();
        told.recv_timeout(Duration::from_secs(20)).unwrap();
    }
}
