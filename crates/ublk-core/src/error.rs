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
            Self::Kernel => "ERR_UBLK_KERNEL",
            Self::Internal => "ERR_UBLK_INTERNAL",
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

    /// An error of a system call or command; `tried` says what it was for.
    pub fn os(
        code: Code,
        tried: impl fmt::Display,
        syscall: &'static str,
        error: &io::Error,
    ) -> Self {
        Self {
            code,
            message: format!("{tried}: {}", describe(error)),
            errno: error.raw_os_error(),
            syscall: Some(syscall),
            hint: None,
        }
    }

    /// The error of a thread that could not be started.
    pub fn no_thread(error: &io::Error) -> Self {
        Self::os(Code::Kernel, "cannot start a thread", "clone", error).hint(TASK_LIMITS)
    }

    /// Adds what is probably wrong and what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
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
