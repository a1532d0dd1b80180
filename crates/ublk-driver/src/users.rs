//! Who uses a block device.

use std::fmt;

/// One use of a block device, or of a partition of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum User {
    /// A mount, in whichever mount namespace.
    Mount {
        /// The mount point, as its namespace names it.
        at: String,
    },
    /// Another block device that is made of this one (device-mapper, md, loop).
    Device {
        /// Its name in `/sys/block`.
        name: String,
    },
    /// The kernel swaps to it.
    Swap,
    /// A process has it open.
    Process {
        /// The process id.
        pid: u32,
        /// The name of its program.
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

/// The users of a block device that this process may see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users {
    /// Mounts first, then devices, swap space, processes.
    pub found: Vec<User>,
    /// Whether all places were looked at: false where this user may not look into other users'
    /// processes, or where there are more processes and files than the search takes.
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
