//! Commands that wait in the kernel, deaf to signals, for requests that this process answers.
//!
//! If the process is killed meanwhile, a thread or a worker of its own that waits keeps `/dev/ublkcN`
//! open, the kernel fails none of the requests, and neither the process nor the wait ever ends (trap 68).
//! A child process waits instead: a copy without the parent's descriptors and without its mappings of the
//! driver's memory ([`Mapping`](crate::memory::Mapping)).

use std::fs::OpenOptions;
use std::io::{self, PipeReader, PipeWriter, Read};
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::panic::catch_unwind;
use std::time::Duration;

use io_uring::IoUring;
use ublk_sys::{
    UBLK_F_ZONED, UBLK_U_CMD_GET_DEV_INFO, UBLK_U_CMD_TRY_STOP_DEV, ublksrv_ctrl_cmd,
    ublksrv_ctrl_dev_info,
};

use super::time_limit::TimeLimit;
use super::{child, control, sysfs, turn};
use crate::driver::ControlAnswer;

/// The child waits as long as the kernel does.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// The first kernel whose START_DEV leaves the partition table to a worker of the kernel (trap 65).
const FIRST_TO_SCAN_LATER: (u32, u32) = (6, 19);

/// A command as [`Driver::control`](crate::driver::Driver::control) gets it.
pub(super) struct Order {
    pub(super) operation: u32,
    pub(super) command: ublksrv_ctrl_cmd,
    /// The path of `/dev/ublkcN`, from a user who is not root.
    pub(super) buffer: Option<Box<[u8]>>,
    pub(super) limit: Duration,
}

/// Sends STOP_DEV: from this process where no request is in flight and nobody has the disk open, which
/// TRY_STOP_DEV looks for (Linux 7.0); else from a child.
///
/// # Errors
/// Those of STOP_DEV; `ETIMEDOUT` after the limit, which starts anew as long as requests end.
pub(super) fn stop(order: Order) -> io::Result<ControlAnswer> {
    let Order { command, ref buffer, limit, .. } = order;
    let idle = sysfs::requests_in_flight(command.dev_id) == 0;
    if idle
        && let Ok(answer) = control::send(UBLK_U_CMD_TRY_STOP_DEV, command, buffer.clone(), limit)
    {
        return Ok(answer);
    }
    from_child(order)
}

/// Sends START_DEV: from a child where START_DEV reads the partition table (before Linux 6.19) or asks for
/// the zones of the device.
///
/// # Errors
/// Those of START_DEV; `ETIMEDOUT` after the limit.
pub(super) fn start(order: Order) -> io::Result<ControlAnswer> {
    let scans_later = turn::release().is_some_and(|release| release >= FIRST_TO_SCAN_LATER);
    match scans_later && !is_zoned(&order) {
        true => order.send(),
        false => from_child(order),
    }
}

/// Whether the device has zones. A device of a user who is not root has none, and is not asked: zones need
/// user copy, which such a device cannot have.
fn is_zoned(Order { command, limit, .. }: &Order) -> bool {
    let info = vec![0; size_of::<ublksrv_ctrl_dev_info>()].into_boxed_slice();
    let ask = ublksrv_ctrl_cmd { dev_id: command.dev_id, queue_id: u16::MAX, ..Default::default() };
    let answer = control::send(UBLK_U_CMD_GET_DEV_INFO, ask, Some(info), *limit);
    let Ok(ControlAnswer { buffer: Some(info), .. }) = answer else { return false };
    let flags = info[offset_of!(ublksrv_ctrl_dev_info, flags)..].first_chunk();
    flags.is_some_and(|flags| u64::from_ne_bytes(*flags) & UBLK_F_ZONED != 0)
}

impl Order {
    /// From this process.
    fn send(self) -> io::Result<ControlAnswer> {
        control::send(self.operation, self.command, self.buffer, self.limit)
    }
}

fn from_child(mut order: Order) -> io::Result<ControlAnswer> {
    if let Some(bytes) = &mut order.buffer {
        // The child has the buffer at the same address.
        control::point_at(&mut order.command, bytes)?;
    }
    match ask_child(&order)? {
        Some(result @ 0..) => Ok(ControlAnswer { result, buffer: order.buffer }),
        Some(result) if result != -libc::ECANCELED => Err(io::Error::from_raw_os_error(-result)),
        // No task could be made, for the child or for its worker.
        _ => order.send(),
    }
}

/// What the kernel answers a child; nothing without a child.
fn ask_child(order: &Order) -> io::Result<Option<i32>> {
    let mut time = TimeLimit::new(order.operation, order.command.dev_id, order.limit);
    let (answers, answer) = io::pipe()?;
    let Some(child) = fork(order, &answer) else { return Ok(None) };
    drop(answer);
    while !child::answers(answers.as_fd(), time.left())? {
        if !time.lasts() {
            child::reap_later(child);
            return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
        }
    }
    let result = read(answers);
    child::reap(child);
    Ok(result)
}

/// The result that the child has written; nothing from a child that was killed.
fn read(mut answers: PipeReader) -> Option<i32> {
    let mut bytes = [0; size_of::<i32>()];
    answers.read_exact(&mut bytes).ok()?;
    Some(i32::from_ne_bytes(bytes))
}

/// Starts the child, with all signals blocked: handlers are the parent's.
fn fork(order: &Order, answer: &PipeWriter) -> Option<libc::pid_t> {
    // SAFETY: an all-zero set is a valid one, and all pointers are to sets of this frame. The child runs
    // `serve` alone, which never returns: it allocates, which the heaps of glibc and of musl allow, and
    // ours ([`Heap`](crate::locked::Heap)), and takes no lock that another thread may have had.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let child = libc::fork();
        if child == 0 {
            serve(order, answer.as_raw_fd());
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        (child > 0).then_some(child)
    }
}

/// The child: sends the command, writes the result, ends.
fn serve(order: &Order, answer: RawFd) -> ! {
    // SAFETY: descriptors of this process alone; no destructor of the copy runs any more.
    unsafe {
        libc::dup2(answer, 0);
        libc::syscall(libc::SYS_close_range, 1, libc::c_uint::MAX, 0);
        libc::prctl(libc::PR_SET_NAME, c"ublk-apart".as_ptr());
    }
    let result = catch_unwind(|| send_here(order)).unwrap_or(-libc::EIO).to_ne_bytes();
    // SAFETY: `result` has that many bytes; `_exit` runs nothing of the parent's.
    unsafe {
        libc::write(0, result.as_ptr().cast(), result.len());
        libc::_exit(0)
    }
}

fn send_here(Order { operation, command, .. }: &Order) -> i32 {
    let sent = || -> io::Result<i32> {
        let device = OpenOptions::new().read(true).write(true).open("/dev/ublk-control")?;
        let mut ring = IoUring::builder().build(4)?;
        // Without a number of a stop: the parent counts requests and stops.
        let mut time = TimeLimit::new(0, command.dev_id, FOR_EVER);
        control::attempt(&mut ring, device.as_raw_fd(), *operation, command, &mut time)
    };
    sent().unwrap_or_else(|error| -error.raw_os_error().unwrap_or(libc::EIO))
}
