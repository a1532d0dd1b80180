//! Answers of a driver: to a control command, and about a device or its block device.

use std::fmt;
use std::io;

/// Tells one device from all others, including earlier and later devices with the same number. The
/// text form is for other processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// When the system began.
    pub boot: u128,
    /// Unique among all devices since the system began.
    pub number: u64,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}/{}", self.boot, self.number)
    }
}

/// The state of the path of a block device, `/dev/ublkbN`.
#[derive(Debug)]
pub enum BlockNode {
    /// The node of the device, ready to be opened.
    Ready,
    /// Nothing to open; udev may still be making the node (trap 42).
    NotYet,
    /// Something else, described in words, and permanent.
    Occupied(String),
    /// Nothing, and the node cannot be made.
    Missing(io::Error),
}

/// The block layer's facts about a device's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskFacts {
    /// In bytes; 0 while the disk goes away.
    pub size: u64,
    /// In bytes.
    pub logical_block: u32,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// The answer to a control command.
#[derive(Debug)]
pub struct ControlAnswer {
    /// The command's non-negative result.
    pub result: i32,
    /// The buffer of the command, as the kernel left the buffer.
    pub buffer: Option<Box<[u8]>>,
}
