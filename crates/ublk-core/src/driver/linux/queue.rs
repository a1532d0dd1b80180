//! Writes to `/sys/block/ublkbN/queue`.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::child;

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
    let mut shell = start(id, name, value, r#"printf %s "$0""#)?;
    let mut complaint = shell.stderr.take().expect("stderr is a pipe");
    if !child::answers(complaint.as_fd(), LIMIT)? {
        child::reap_later(shell.id().cast_signed());
        return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
    }
    complaint.read_to_string(&mut String::new())?;
    match shell.wait()?.success() {
        true => Ok(()),
        false => Err(io::Error::from_raw_os_error(libc::EINVAL)),
    }
}

/// [`write`] without a wait for the kernel: a device is created in the time of some ten such waits. Waits
/// until the shell runs: up to then a child has the descriptors of its parent, `/dev/ublkcN` among them.
pub(super) fn write_soon(id: u32, name: &str, value: &str) -> io::Result<()> {
    let mut shell = start(id, name, value, r#"exec 2>&-; printf %s "$0""#)?;
    let closed = shell.stderr.take().expect("stderr is a pipe");
    let _runs = child::answers(closed.as_fd(), LIMIT)?;
    child::reap_later(shell.id().cast_signed());
    Ok(())
}

fn start(id: u32, name: &str, value: &str, script: &str) -> io::Result<Child> {
    let attribute =
        File::options().write(true).open(format!("/sys/block/ublkb{id}/queue/{name}"))?;
    Command::new("/bin/sh")
        .args(["-c", script, value])
        .stdin(Stdio::null())
        .stdout(attribute)
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => io::Error::from_raw_os_error(libc::ENOSYS),
            _ => error,
        })
}
