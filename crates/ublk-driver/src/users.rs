//! Who uses a block device.

use std::fmt;

/// One use of a block device, or of a partition of the device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum User {
    /// A mount in any mount namespace.
    Mount {
        /// The mount point's path in the mount's namespace.
        at: String,
    },
    /// Another block device, made of the device (device-mapper, md, loop).
    Device {
        /// The other device's name in `/sys/block`.
        name: String,
    },
    /// Swap space of the kernel.
    Swap,
    /// A process with an open file of the device.
    Process {
        /// The process id.
        pid: u32,
        /// The name of the process's program.
        name: String,
    },
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mount { at } => write!(f, "mounted on {at}"),
            Self::Device { name } => write!(f, "part of {name}"),
            Self::Swap => f.write_str("used as swap space"),
            Self::Process { pid, name } => write!(f, "open in process {pid} ({name})"),
        }
    }
}

/// The users of a block device, as far as the asking process may see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users {
    /// Mounts first, then devices, swap space, processes.
    pub found: Vec<User>,
    /// Whether the search has looked everywhere: false without permission to look into other users'
    /// processes, and with more processes and files than the search takes.
    pub complete: bool,
}

/// How many users a sentence names.
const MOST_NAMED: usize = 8;

impl fmt::Display for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.found.is_empty() {
            return f.write_str(if self.complete {
                "open in no process that is left; the kernel itself may have it (nvmet, LIO)"
            } else {
                "open in a process that this user cannot see"
            });
        }
        let named: Vec<String> =
            self.found.iter().take(MOST_NAMED).map(ToString::to_string).collect();
        f.write_str(&named.join(", "))?;
        match self.found.len().saturating_sub(MOST_NAMED) {
            0 => Ok(()),
            more => write!(f, ", and {more} more"),
        }
    }
}
