//! A thread of the process, with a ring and one of io_uring's workers, for commands that a thread
//! which sends them itself gets no worker for.
//!
//! Where as many tasks are running as may be (`pids.max`, `RLIMIT_NPROC`), the kernel answers
//! `ECANCELED` to a command that sleeps: it cannot make the worker that should sleep. A device could
//! be stopped and deleted no more. The kernel keeps a task's last worker as long as the task has a
//! ring, so a worker is made before the first device is, and stays.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use io_uring::types::Fd;
use io_uring::{IoUring, opcode, squeue};
use ublk_sys::ublksrv_ctrl_cmd;

use super::control::{ControlRing, push};
use super::time_limit::TimeLimit;

/// One command, and who waits for its result.
struct Job {
    operation: u32,
    command: ublksrv_ctrl_cmd,
    answer: SyncSender<i32>,
}

static SPARE: Mutex<Option<Sender<Job>>> = Mutex::new(None);

/// Makes sure that the thread and its worker are there.
pub(super) fn prepare() -> io::Result<()> {
    let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
    if spare.is_none() {
        let (jobs, inbox) = channel();
        let (ready, made) = sync_channel(1);
        thread::Builder::new().name("ublk-spare".into()).spawn(move || serve(&inbox, &ready))?;
        made.recv().map_err(io::Error::other)??;
        *spare = Some(jobs);
    }
    Ok(())
}

/// The result of a command that this thread sends, one after another; none, where there is no such
/// thread. The memory that the command points to must live until there is a result; for ever, if
/// this fails.
pub(super) fn send(
    operation: u32,
    command: &ublksrv_ctrl_cmd,
    time: &mut TimeLimit,
) -> io::Result<Option<i32>> {
    let spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let Some(spare) = spare else { return Ok(None) };
    let (answer, result) = sync_channel(1);
    if spare.send(Job { operation, command: *command, answer }).is_err() {
        return Ok(None);
    }
    loop {
        match result.recv_timeout(time.left()) {
            Ok(result) => return Ok(Some(result)),
            Err(_) if time.lasts() => {}
            Err(_) => return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT)),
        }
    }
}

fn serve(inbox: &Receiver<Job>, ready: &SyncSender<io::Result<()>>) {
    let mut made = make();
    let told = ready.send(made.as_ref().map(drop).map_err(copy));
    let (Ok(ring), Ok(())) = (&mut made, told) else { return };
    while let Ok(Job { operation, command, answer }) = inbox.recv() {
        let result = execute(ring, operation, &command)
            .unwrap_or_else(|error| -error.raw_os_error().unwrap_or(libc::EIO));
        // A caller that has given up hears nothing.
        let _unheard = answer.send(result);
    }
}

/// Sends one command. The control device is open only meanwhile, since an open file would keep the
/// module of the driver loaded.
fn execute(ring: &mut ControlRing, operation: u32, command: &ublksrv_ctrl_cmd) -> io::Result<i32> {
    let control = OpenOptions::new().read(true).write(true).open("/dev/ublk-control")?;
    let entry = opcode::UringCmd80::new(Fd(control.as_raw_fd()), operation)
        .cmd(command.to_sqe_cmd())
        .build();
    loop {
        let result = run(ring, &entry)?;
        if result != -libc::EINTR {
            return Ok(result);
        }
    }
}

fn make() -> io::Result<ControlRing> {
    let mut ring = IoUring::builder().build(4)?;
    let nothing = opcode::Nop::new().build().flags(squeue::Flags::ASYNC);
    match run(&mut ring, &nothing.into())? {
        0 => Ok(ring),
        // As clone(2) says it.
        _ => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
    }
}

fn copy(error: &io::Error) -> io::Error {
    io::Error::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EIO))
}

fn run(ring: &mut ControlRing, entry: &squeue::Entry128) -> io::Result<i32> {
    push(ring, entry)?;
    loop {
        let waited = ring.submit_and_wait(1);
        if let Some(answer) = ring.completion().next() {
            return Ok(answer.result());
        }
        match waited {
            Err(error) if error.raw_os_error() != Some(libc::EINTR) => return Err(error),
            _ => {}
        }
    }
}
