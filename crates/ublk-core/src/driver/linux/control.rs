//! One control command on `/dev/ublk-control`.
//!
//! Each command gets a ring of its own: commands are rare, and one that the kernel never answers
//! (trap 26) must not hold up the next.

use std::fs::OpenOptions;
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use ublk_sys::ublksrv_ctrl_cmd;

use crate::driver::ControlAnswer;

type ControlRing = IoUring<squeue::Entry128, cqueue::Entry>;

pub(super) fn send(
    operation: u32,
    mut command: ublksrv_ctrl_cmd,
    mut buffer: Option<Box<[u8]>>,
    limit: Duration,
) -> io::Result<ControlAnswer> {
    if let Some(bytes) = &mut buffer {
        command.addr = bytes.as_mut_ptr() as u64;
        command.len = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    }
    let control = OpenOptions::new().read(true).write(true).open("/dev/ublk-control")?;
    let mut ring: ControlRing = IoUring::builder().build(4)?;
    let deadline = Instant::now() + limit;
    loop {
        match attempt(&mut ring, control.as_raw_fd(), operation, &command, deadline) {
            // A signal to this thread interrupts a command that sleeps (trap 27).
            Err(error)
                if error.raw_os_error() == Some(libc::EINTR) && Instant::now() < deadline => {}
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                // The kernel still owns the command and may yet write to the buffer.
                mem::forget(buffer);
                return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
            }
            Err(error) => return Err(error),
            Ok(result) => return Ok(ControlAnswer { result, buffer }),
        }
    }
}

fn attempt(
    ring: &mut ControlRing,
    fd: i32,
    operation: u32,
    command: &ublksrv_ctrl_cmd,
    deadline: Instant,
) -> io::Result<i32> {
    let entry = opcode::UringCmd80::new(Fd(fd), operation).cmd(command.to_sqe_cmd()).build();
    // SAFETY: what `command.addr` points to lives until the answer, or for ever (see `send`).
    unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timespec = Timespec::from(left);
        let waited = ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timespec));
        if let Some(completion) = ring.completion().next() {
            let result = completion.result();
            return if result < 0 {
                Err(io::Error::from_raw_os_error(-result))
            } else {
                Ok(result)
            };
        }
        match waited {
            Err(error) if error.raw_os_error() == Some(libc::ETIME) => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) if error.raw_os_error() != Some(libc::EINTR) => return Err(error),
            _ => {}
        }
    }
}
