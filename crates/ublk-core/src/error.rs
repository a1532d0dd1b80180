//! The one error type of the control plane. Requests fail with an errno; people get this.

use std::fmt;
use std::io;

/// What went wrong, as programs branch on it. The names are those of the TypeScript API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The kernel has no ublk driver, or its module is not loaded.
    NoDriver,
    /// io_uring is disabled for this process or cannot do what is needed.
    NoIoUring,
    /// This user may not.
    Permission,
    /// The kernel lacks a feature that was asked for.
    Unsupported,
    /// A value is out of range, or two do not go together.
    InvalidArgument,
    /// No device has this id.
    NoDevice,
    /// The id is taken.
    DeviceExists,
    /// The device, or what lies behind it, is in use by somebody else.
    Busy,
    /// What should lie behind the device does not exist.
    NoBackend,
    /// What should lie behind the device cannot serve as such.
    BadBackend,
    /// The kernel did not answer in time.
    Timeout,
    /// The device has ended.
    Closed,
    /// A resource has run out: descriptors, threads, memory, or the tables of a pool.
    Resources,
    /// Anything else that the kernel refused.
    Kernel,
    /// A defect of ours.
    Internal,
}

impl Code {
    /// The code as JavaScript sees it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoDriver => "ERR_UBLK_NO_DRIVER",
            Self::NoIoUring => "ERR_UBLK_NO_IO_URING",
            Self::Permission => "ERR_UBLK_PERMISSION",
            Self::Unsupported => "ERR_UBLK_UNSUPPORTED",
            Self::InvalidArgument => "ERR_UBLK_INVALID_ARGUMENT",
            Self::NoDevice => "ERR_UBLK_NO_DEVICE",
            Self::DeviceExists => "ERR_UBLK_DEVICE_EXISTS",
            Self::Busy => "ERR_UBLK_BUSY",
            Self::NoBackend => "ERR_UBLK_NO_BACKEND",
            Self::BadBackend => "ERR_UBLK_BAD_BACKEND",
            Self::Timeout => "ERR_UBLK_TIMEOUT",
            Self::Closed => "ERR_UBLK_CLOSED",
            Self::Resources => "ERR_UBLK_RESOURCES",
            Self::Kernel => "ERR_UBLK_KERNEL",
            Self::Internal => "ERR_UBLK_INTERNAL",
        }
    }

    /// The code of a failed system call on a file that a target needs.
    pub(crate) fn of_file(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::NoBackend,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::Permission,
            _ => Self::BadBackend,
        }
    }
}

/// An error that reaches a person: what was tried, what the kernel answered, what is probably
/// wrong and what to do.
#[derive(Clone, Debug)]
pub struct Error {
    /// What went wrong, for programs.
    pub code: Code,
    /// What was tried and what came of it, for people.
    pub message: String,
    /// What the kernel answered, positive.
    pub errno: Option<i32>,
    /// The system call or ublk command that answered.
    pub syscall: Option<&'static str>,
    /// What is probably wrong, and what to do about it.
    pub hint: Option<String>,
}

/// What keeps the kernel from making a thread, for us or for io_uring's workers.
pub(crate) const TASK_LIMITS: &str = "as many tasks are running as may be: see pids.max of this \
    process's cgroup (TasksMax= of its systemd unit), RLIMIT_NPROC (`ulimit -u`) of its user, and \
    /proc/sys/kernel/threads-max; each device needs a thread per queue and a few more";

/// The result of the control plane.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error that is not the kernel's.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), errno: None, syscall: None, hint: None }
    }

    /// An error of a system call or command; `tried` says what it was for. Where a resource has run
    /// out, the code is [`Code::Resources`] whatever `code` says, and the hint names the limit.
    pub fn os(
        code: Code,
        tried: impl fmt::Display,
        syscall: &'static str,
        error: &io::Error,
    ) -> Self {
        let limit = error.raw_os_error().and_then(|errno| limit_of(errno, syscall));
        let tried = tried.to_string();
        // A program that meets a limit meets it anywhere: which call it was tells what to raise.
        let call = match limit {
            Some(_) if !tried.contains(syscall) => format!("{syscall}: "),
            _ => String::new(),
        };
        Self {
            code: if limit.is_some() { Code::Resources } else { code },
            message: format!("{tried}: {call}{}", describe(error)),
            errno: error.raw_os_error(),
            syscall: Some(syscall),
            hint: limit.map(Into::into),
        }
    }

    /// The error of a thread that could not be started.
    pub fn no_thread(error: &io::Error) -> Self {
        Self::os(Code::Kernel, "cannot start a thread", "clone", error)
    }

    /// Adds what is probably wrong and what to do. Where a resource has run out, the hint that names
    /// the limit stays.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        if self.code != Code::Resources || self.hint.is_none() {
            self.hint = Some(hint.into());
        }
        self
    }
}

/// The limit that a system call has met, and how to raise it.
fn limit_of(errno: i32, syscall: &str) -> Option<&'static str> {
    match (errno, syscall) {
        (libc::EMFILE, _) => Some(
            "the process has as many files open as it may: raise `ulimit -n` (systemd: LimitNOFILE=)",
        ),
        (libc::ENFILE, _) => {
            Some("the system has as many files open as it may: raise sysctl fs.file-max")
        }
        (libc::EAGAIN, "clone") => Some(
            "no more threads may be started: raise `ulimit -u`, pids.max of the cgroup (systemd: \
             TasksMax=), or sysctl kernel.threads-max",
        ),
        (
            libc::ENOSPC,
            "open" | "write" | "fallocate" | "ftruncate" | "fsync" | "fdatasync" | "linkat",
        ) => Some("the file system is full: make space"),
        (libc::EDQUOT, _) => {
            Some("the quota of the file system is used up: make space, or raise it")
        }
        (libc::ENOMEM, "io_uring_setup") => Some(
            "memory for the ring has run out: raise memory.max of the cgroup (systemd: MemoryMax=), \
             or, before Linux 5.12, `ulimit -l`",
        ),
        (libc::ENOMEM, "mmap") => Some(
            "memory has run out: raise memory.max of the cgroup (systemd: MemoryMax=), `ulimit -v`, \
             or sysctl vm.max_map_count",
        ),
        (libc::ENOMEM, _) => {
            Some("memory has run out: raise memory.max of the cgroup (systemd: MemoryMax=)")
        }
        _ => None,
    }
}

fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    // std says "Device or resource busy (os error 16)"; the number is in `errno` already.
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_that_has_run_out_is_told_with_its_call_and_its_limit() {
        let os = |errno, syscall| {
            let error = io::Error::from_raw_os_error(errno);
            Error::os(Code::Kernel, "cannot start a reactor", syscall, &error).hint("another cause")
        };
        for (errno, syscall, limit) in [
            (libc::EMFILE, "eventfd", "ulimit -n"),
            (libc::ENFILE, "open", "fs.file-max"),
            (libc::EAGAIN, "clone", "pids.max"),
            (libc::ENOMEM, "io_uring_setup", "ulimit -l"),
            (libc::ENOMEM, "mmap", "vm.max_map_count"),
            (libc::ENOMEM, "ADD_DEV", "memory.max"),
            (libc::ENOSPC, "fallocate", "make space"),
            (libc::EDQUOT, "write", "quota"),
        ] {
            let error = os(errno, syscall);
            assert_eq!(error.code, Code::Resources);
            assert!(error.message.starts_with(&format!("cannot start a reactor: {syscall}: ")));
            assert!(error.hint.unwrap().contains(limit));
        }
        let busy = os(libc::EBUSY, "open");
        assert_eq!((busy.code, busy.hint.as_deref()), (Code::Kernel, Some("another cause")));
        assert_eq!(os(libc::EAGAIN, "read").code, Code::Kernel);
        // Of a command, the errno means something else.
        assert_eq!(os(libc::ENOSPC, "ADD_DEV").code, Code::Kernel);
    }
}
