//! One control command on `/dev/ublk-control`.
//!
//! A thread sends its commands through a ring of its own, until one is not answered: that one must not
//! hold up the next. Kernels up to 7.2 leave a command that sleeps lying among the work of io_uring's
//! workers now and then, and none of them looks (trap 26). Other work makes one look: with
//! [`nudge`], commands that were lost for their whole 30 seconds were answered after one.

use std::cell::Cell;
use std::fs::OpenOptions;
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use ublk_sys::{UBLK_CMD_ADD_DEV, UBLK_CMD_START_USER_RECOVERY, ublksrv_ctrl_cmd};

use super::spare;
use super::time_limit::TimeLimit;
use super::turn::{Turn, kernel_loses_commands};
use crate::driver::ControlAnswer;

pub(super) type ControlRing = IoUring<squeue::Entry128, cqueue::Entry>;

/// After so long without an answer the workers are nudged, and again after twice as long each time: a
/// nudge makes a worker, and with 1,000 commands that wait the workers alone keep the machine busy. Most
/// are answered sooner.
const NUDGE_AFTER: Duration = Duration::from_secs(1);

/// Between two tries of a command that the kernel has no worker for.
const PAUSE: Duration = Duration::from_millis(50);

const COMMAND: u64 = 0;
const NUDGE: u64 = 1;

thread_local! {
    /// Open from one command to the next. Where it is not, Linux 7.0 to 7.2 lose commands that
    /// sleep: workers leave when their thread has no ring any more (`io_wq_set_exit_on_idle`), and
    /// one that is about to leave is still trusted with the next command.
    static RING: Cell<Option<ControlRing>> = const { Cell::new(None) };
}

pub(super) fn send(
    operation: u32,
    mut command: ublksrv_ctrl_cmd,
    mut buffer: Option<Box<[u8]>>,
    limit: Duration,
) -> io::Result<ControlAnswer> {
    if let Some(bytes) = &mut buffer {
        point_at(&mut command, bytes)?;
    }
    let control = OpenOptions::new().read(true).write(true).open("/dev/ublk-control")?;
    let mut ring = RING.take().map_or_else(|| IoUring::builder().build(4), Ok)?;
    if makes_a_device_ours(operation) {
        spare::prepare()?;
    }
    let mut time = TimeLimit::new(operation, command.dev_id, limit);
    let _turn = Turn::take(operation, limit);
    let result = loop {
        let sent = attempt(&mut ring, control.as_raw_fd(), operation, &command, &mut time);
        match sent.and_then(|result| without_worker(result, operation, &command, &mut time)) {
            // A signal to this thread interrupts a command that sleeps (trap 27).
            Ok(result) if result == -libc::EINTR && time.lasts() => {}
            // Tasks end: the next may find a worker.
            Ok(result) if result == -libc::ECANCELED && time.lasts() => thread::sleep(PAUSE),
            Ok(result) => break result,
            Err(error) => {
                // The kernel still owns the command and may yet write to the buffer.
                mem::forget(buffer);
                return Err(error);
            }
        }
    };
    RING.set(Some(ring));
    match result {
        0.. => Ok(ControlAnswer { result, buffer }),
        _ => Err(io::Error::from_raw_os_error(-result)),
    }
}

/// Gives a command its buffer.
pub(super) fn point_at(command: &mut ublksrv_ctrl_cmd, buffer: &mut [u8]) -> io::Result<()> {
    command.addr = buffer.as_mut_ptr() as u64;
    command.len = u16::try_from(buffer.len()).map_err(io::Error::other)?;
    Ok(())
}

/// The result of a command, of another try if the kernel could make no worker for it.
fn without_worker(
    result: i32,
    operation: u32,
    command: &ublksrv_ctrl_cmd,
    time: &mut TimeLimit,
) -> io::Result<i32> {
    match result {
        _ if result != -libc::ECANCELED => Ok(result),
        _ => Ok(spare::send(operation, command, time)?.unwrap_or(result)),
    }
}

/// Whether this process has a device to take down after the command. The number is the same,
/// encoded as an ioctl or not.
fn makes_a_device_ours(operation: u32) -> bool {
    let numbers = [UBLK_CMD_ADD_DEV, UBLK_CMD_START_USER_RECOVERY].map(u32::from);
    numbers.contains(&(operation & 0xff))
}

/// What the kernel answers; an error if it does not.
pub(super) fn attempt(
    ring: &mut ControlRing,
    fd: i32,
    operation: u32,
    command: &ublksrv_ctrl_cmd,
    time: &mut TimeLimit,
) -> io::Result<i32> {
    let entry = opcode::UringCmd80::new(Fd(fd), operation).cmd(command.to_sqe_cmd()).build();
    push(ring, &entry.user_data(COMMAND))?;
    let mut patience = if kernel_loses_commands() { NUDGE_AFTER } else { Duration::MAX };
    loop {
        let timespec = Timespec::from(time.left().min(patience));
        let waited = ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timespec));
        if let Some(answer) = ring.completion().find(|one| one.user_data() == COMMAND) {
            return Ok(answer.result());
        }
        match waited {
            Err(error) if error.raw_os_error() == Some(libc::ETIME) => {
                if !time.lasts() {
                    return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
                }
                if kernel_loses_commands() {
                    nudge(ring)?;
                    patience = patience.saturating_mul(2);
                }
            }
            Err(error) if error.raw_os_error() != Some(libc::EINTR) => return Err(error),
            _ => {}
        }
    }
}

/// Gives the kernel's workers something to do, and with it a command that waits among their work
/// while none of them looks.
fn nudge(ring: &mut ControlRing) -> io::Result<()> {
    let nothing = opcode::Nop::new().build().flags(squeue::Flags::ASYNC).user_data(NUDGE);
    push(ring, &nothing.into())
}

pub(super) fn push(ring: &mut ControlRing, entry: &squeue::Entry128) -> io::Result<()> {
    // SAFETY: what a command's `addr` points to lives until the answer, or for ever (see `send`);
    // nothing else points anywhere.
    unsafe { ring.submission().push(entry) }.map_err(io::Error::other)
}
