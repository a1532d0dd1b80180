//! What is probably wrong when the control plane refuses.

use std::fs;
use std::io;
use std::time::Duration;

use crate::error::{Code, Error};

/// The error of a command that the kernel refused.
pub(super) fn refused(command: &'static str, id: u32, limit: Duration, error: &io::Error) -> Error {
    let (code, hint) = explain(command, id, error);
    let mut tried = match id {
        u32::MAX => command.to_owned(),
        _ if command == "GET_FEATURES" => command.to_owned(),
        id => format!("{command} of ublk device {id}"),
    };
    tried = match code {
        Code::NoDriver => "cannot reach the ublk driver: open /dev/ublk-control".to_owned(),
        Code::NoIoUring => format!("cannot use io_uring, which {command} needs"),
        Code::Permission if id == u32::MAX || command == "GET_FEATURES" => {
            format!("this user may not control ublk: {command}")
        }
        _ => tried,
    };
    if code == Code::Timeout {
        tried = format!("{tried}: no answer within {} s", limit.as_secs());
    }
    let refused = Error::os(code, tried, command, error);
    match hint {
        Some(hint) => refused.hint(hint),
        None => refused,
    }
}

/// The code and the hint for a command's error: what the command alone makes of an errno, or what
/// it always means.
fn explain(command: &str, id: u32, error: &io::Error) -> (Code, Option<String>) {
    let errno = error.raw_os_error().unwrap_or(0);
    of_command(command, id, errno).map_or_else(
        || {
            let (code, hint) = of_errno(errno);
            (code, hint.map(str::to_owned))
        },
        |(code, hint)| (code, Some(hint)),
    )
}

fn of_command(command: &str, id: u32, errno: i32) -> Option<(Code, String)> {
    let (code, hint) = match (command, errno) {
        ("ADD_DEV", libc::EEXIST) => {
            (Code::DeviceExists, "leave the id out and the kernel chooses a free one".into())
        }
        ("ADD_DEV", libc::EACCES) => (
            Code::Permission,
            "there are as many unprivileged devices as may be: see \
             /sys/module/ublk_drv/parameters/ublks_max"
                .into(),
        ),
        ("ADD_DEV", libc::EPERM) if !io_uring_disabled() => (
            Code::Permission,
            "run as root, or ask for an unprivileged device; `ublk doctor` tells what these need"
                .into(),
        ),
        ("START_USER_RECOVERY", libc::EINVAL) => (
            Code::InvalidArgument,
            "the device was created without recovery: it ends with its server".into(),
        ),
        ("START_USER_RECOVERY" | "END_USER_RECOVERY", libc::EBUSY) => {
            (Code::Busy, "its server has not let go of it".into())
        }
        ("QUIESCE_DEV", libc::EOPNOTSUPP) => (
            Code::Unsupported,
            "the device was created without recovery, or before Linux 6.16".into(),
        ),
        ("QUIESCE_DEV", libc::EBUSY) => {
            (Code::Busy, "its server answers no requests; `ublk delete` removes the device".into())
        }
        (_, libc::EBUSY) => (
            Code::Busy,
            format!("somebody has the device open; `fuser -vm /dev/ublkb{id}` tells who"),
        ),
        _ => return None,
    };
    Some((code, hint))
}

fn of_errno(errno: i32) -> (Code, Option<&'static str>) {
    let (code, hint) = match errno {
        libc::ENOENT => (
            Code::NoDriver,
            "/dev/ublk-control is missing: load the driver with `modprobe ublk_drv` (Linux 6.0 or \
             later, CONFIG_BLK_DEV_UBLK)",
        ),
        libc::EPERM if io_uring_disabled() => (
            Code::NoIoUring,
            "io_uring is disabled: `sysctl kernel.io_uring_disabled=0` enables it",
        ),
        libc::ENOSYS => (Code::NoIoUring, "this kernel, or a seccomp filter, has no io_uring"),
        libc::EPERM | libc::EACCES => {
            (Code::Permission, "run as root, or give this user access to /dev/ublk-control")
        }
        libc::ENODEV => (Code::NoDevice, "`ublk list` shows the devices that there are"),
        libc::EEXIST => (Code::DeviceExists, "the device is started already"),
        libc::EOPNOTSUPP => (Code::Unsupported, "this kernel's ublk driver is too old for it"),
        libc::EINVAL => (Code::InvalidArgument, "the kernel's log (`dmesg`) may say more"),
        // No thread of ours could be made, or none of io_uring's workers for the command.
        libc::EAGAIN | libc::ECANCELED => (Code::Kernel, crate::error::TASK_LIMITS),
        libc::ETIMEDOUT => (
            Code::Timeout,
            "the driver is stuck; `dmesg` and /proc/PID/stack of this process's threads tell where",
        ),
        _ => return (Code::Kernel, None),
    };
    (code, Some(hint))
}

fn io_uring_disabled() -> bool {
    fs::read_to_string("/proc/sys/kernel/io_uring_disabled").is_ok_and(|value| value.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_tells_without_its_hint_what_is_missing() {
        let limit = Duration::from_secs(1);
        let told = |command, id, errno| {
            refused(command, id, limit, &io::Error::from_raw_os_error(errno)).message
        };
        let expected = [
            (
                told("GET_FEATURES", 0, libc::ENOENT),
                "cannot reach the ublk driver: open /dev/ublk-control",
            ),
            (told("ADD_DEV", u32::MAX, libc::EACCES), "this user may not control ublk: ADD_DEV"),
            (told("ADD_DEV", 3, libc::ENOSYS), "cannot use io_uring, which ADD_DEV needs"),
            (
                told("GET_DEV_INFO", 3, libc::ENODEV),
                "GET_DEV_INFO of ublk device 3: No such device",
            ),
        ];
        for (message, start) in expected {
            assert!(message.starts_with(start), "{message}");
        }
    }
}
