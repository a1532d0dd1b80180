//! Writes to `/sys/block/ublkbN/queue`.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long the kernel may wait for the requests in flight before it takes a setting.
const LIMIT: Duration = Duration::from_secs(30);

/// Writes `value` to the attribute `name` of device `id`, from a shell.
///
/// For most attributes the kernel freezes the queue: write(2) waits for every request in flight, and no
/// signal ends that wait. A thread of the server's process must not wait so. If the process is killed
/// meanwhile, that thread keeps the process's descriptors and memory, `/dev/ublkcN` is never released,
/// the kernel fails none of the requests, and the process can neither end nor be replaced.
///
/// # Errors
/// Those of open(2); `EINVAL` if the kernel refuses the value; `ETIMEDOUT` if requests in flight are
/// not answered; `ENOSYS` without `/bin/sh`.
pub(super) fn write(id: u32, name: &str, value: &str) -> io::Result<()> {
    let attribute =
        File::options().write(true).open(format!("/sys/block/ublkb{id}/queue/{name}"))?;
    let mut shell = Command::new("/bin/sh")
        .args(["-c", r#"printf %s "$0""#, value])
        .stdin(Stdio::null())
        .stdout(attribute)
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => io::Error::from_raw_os_error(libc::ENOSYS),
            _ => error,
        })?;
    let mut complaint = shell.stderr.take().expect("stderr is a pipe");
    if !ends_in_time(complaint.as_fd())? {
        reap_later(shell);
        return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
    }
    complaint.read_to_string(&mut String::new())?;
    match shell.wait()?.success() {
        true => Ok(()),
        false => Err(io::Error::from_raw_os_error(libc::EINVAL)),
    }
}

/// Waits for output of the shell, or for its end, which closes the pipe.
fn ends_in_time(pipe: BorrowedFd) -> io::Result<bool> {
    let mut events = libc::pollfd { fd: pipe.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let limit = libc::c_int::try_from(LIMIT.as_millis()).expect("the limit is short");
    // SAFETY: `events` is one pollfd, which lives through the call.
    match unsafe { libc::poll(&raw mut events, 1, limit) } {
        0 => Ok(false),
        count if count > 0 => Ok(true),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends the shell when the kernel has let it go.
fn reap_later(mut shell: Child) {
    let reaper = std::thread::Builder::new().name("ublk-reaper".into());
    // Without a thread the process has a zombie until its end, which harms nobody.
    let _zombie = reaper.spawn(move || {
        let _gone = shell.kill();
        let _status = shell.wait();
    });
}
