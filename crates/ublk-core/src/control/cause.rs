//! What is probably wrong when the control plane refuses.

use std::fs;
use std::io;

use crate::error::Code;

/// The code and the hint for a command's error.
pub(super) fn explain(command: &str, error: &io::Error) -> (Code, Option<String>) {
    let errno = error.raw_os_error().unwrap_or(0);
    let (code, hint): (Code, &str) = match errno {
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
        libc::EEXIST if command == "ADD_DEV" => {
            (Code::DeviceExists, "leave the id out and the kernel chooses a free one")
        }
        libc::EEXIST => (Code::DeviceExists, "the device is started already"),
        libc::EBUSY => {
            (Code::Busy, "somebody has the device open; `fuser -v /dev/ublkb*` tells who")
        }
        libc::EOPNOTSUPP => (Code::Unsupported, "this kernel's ublk driver is too old for it"),
        libc::EINVAL => (Code::InvalidArgument, "the kernel's log (`dmesg`) may say more"),
        libc::ETIMEDOUT => (
            Code::Timeout,
            "the driver is stuck; `dmesg` and /proc/PID/stack of this process's threads tell where",
        ),
        _ => return (Code::Kernel, None),
    };
    (code, Some(hint.to_owned()))
}

fn io_uring_disabled() -> bool {
    fs::read_to_string("/proc/sys/kernel/io_uring_disabled").is_ok_and(|value| value.trim() != "0")
}
