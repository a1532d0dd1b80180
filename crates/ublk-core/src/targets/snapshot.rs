//! Snapshots and merges of a disk that is being served.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::Duration;

use uuid::Uuid;

use crate::error::Result;

/// How a snapshot is taken.
#[derive(Clone, Debug)]
pub struct SnapshotOptions {
    /// The file of the snapshot, in the folder of the disk's; absent: the name of the disk's file, a dot,
    /// and the generation.
    pub file: Option<PathBuf>,
    /// New disks that begin with what the snapshot holds: their files, in the same folder.
    pub children: Vec<PathBuf>,
    /// How long the requests may take that are under way when the snapshot is taken.
    pub limit: Duration,
}

/// What a disk held at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The file of the frozen layer.
    pub file: PathBuf,
    /// The identity of the frozen layer.
    pub layer: Uuid,
    /// The generation of the frozen layer: later snapshots of the disk have larger ones.
    pub generation: u64,
}

/// How the frozen layers of a disk are merged.
#[derive(Clone, Copy, Debug)]
pub struct FlattenOptions {
    /// Remove the files of merged layers on which no other layer stands.
    pub prunes: bool,
    /// How long requests may take that may know the files of the merged layers.
    pub limit: Duration,
}

/// The frozen layers below a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frozen {
    /// How many there are.
    pub layers: u32,
    /// Bytes that their files take.
    pub allocated: u64,
    /// Bytes that a single layer with the same contents stores.
    pub stored: u64,
}

/// What a merge of layers has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// The merged layers that are still there, the highest first.
    pub kept: Vec<PathBuf>,
    /// The merged layers that were removed, the highest first.
    pub removed: Vec<PathBuf>,
}

/// The queues of a device that is being served.
pub trait Queues {
    /// Every queue of the device finds `file` at this place among the target's files from now on: one of the
    /// [spare places](super::Target::spare_places), or a place that no step under way names.
    ///
    /// # Errors
    /// When a reactor is lost, or does not answer in time: some queues may have the file then.
    fn add_file(&self, place: u16, file: BorrowedFd<'_>) -> Result<()>;

    /// Lets system calls see what the queues' steps have written: on Linux they do; a simulation has a cache
    /// of its own.
    ///
    /// # Errors
    /// When a simulation cannot write to a file.
    fn write_back(&self) -> Result<()>;
}
