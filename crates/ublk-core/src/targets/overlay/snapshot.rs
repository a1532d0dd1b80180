//! Snapshots of a running disk: the live layer is frozen, and the disk goes on in a new layer.
//!
//! The frozen layer gets the name of the snapshot, and the new layer the name of the disk, in one step. A
//! kill before leaves the disk in the old layer, and a kill afterwards in the new layer; what is left to
//! do then, [`Layer::parents`] does.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::Duration;

use ublk_overlay::extent::MAX_LAYERS;
use ublk_overlay::index::Index;
use ublk_overlay::superblock::{FileName, Parent, Superblock};

use uuid::Uuid;

use super::super::{Queues, Snapshot, SnapshotOptions};
use super::chain::{Layer, failed};
use super::loaded::{Awake, Loaded};
use super::make::{Birth, Unnamed};
use super::naming;
use super::settle::{self, Flush};
use super::unused::Draining;
use super::verbs::{check_folder, committing, reading};
use super::{Gate, Overlay};
use crate::error::{Code, Error, Result};

/// Generations whose default names are looked at for what killed snapshots have left: each server adds one.
const LOOKED_BACK: u64 = 16;

const MERGE: &str = "merge layers: device.flatten(), or ublk service flatten DEVICE";

/// How far a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The new layer has a name.
    Made,
    /// No request other than reads is under way.
    Drained,
    /// The live layer is durable.
    Durable,
    /// The files have exchanged their names.
    Exchanged,
    /// The old layer is frozen.
    Frozen,
}

impl Overlay {
    /// Freezes what the disk holds now, as a layer that others may stand on, and goes on in a new layer.
    /// Requests other than reads wait meanwhile; none fails. The frozen layer is durable.
    ///
    /// # Errors
    /// `Busy` while another snapshot is taken; `BadBackend` where the file exists, where the disk's file has
    /// been moved, or where the live layer cannot be written; `InvalidArgument` for a file in another
    /// folder, or named twice; `Resources` on a full file system, and for the 65th layer that one server adds; `Timeout` when
    /// requests do not end; `Unsupported` at 255 layers, and on a file system that cannot exchange names;
    /// `Closed` when a thread that serves the disk is gone. The disk goes on as before, but for an error of
    /// the last write: then it goes on in the new layer, and its next server freezes the old one. A child
    /// that could not get its name is missing; the snapshot is there.
    pub fn take_snapshot(
        &self,
        options: &SnapshotOptions,
        queues: &dyn Queues,
    ) -> Result<Snapshot> {
        self.take_observed_snapshot(options, queues, &mut |_| Ok(()))
    }

    /// `reached` may end the snapshot at a stage.
    pub(super) fn take_observed_snapshot(
        &self,
        options: &SnapshotOptions,
        queues: &dyn Queues,
        reached: &mut dyn FnMut(Stage) -> Result<()>,
    ) -> Result<Snapshot> {
        let work = Work::begin(self)?;
        let name = work.name(options.file.as_deref())?;
        let children = work.make_children(&name, &options.children)?;
        let (mut draft, new) = work.make(name)?;
        reached(Stage::Made)?;
        let file = new.file.backing().map_err(|error| failed(&draft.path, "dup", &error))?;
        queues.add_file(work.place, file.as_fd())?;
        // Most of what is dirty, before anybody waits.
        work.sync(&work.backing).map_err(|error| failed(&self.path, "fdatasync", &error))?;
        work.drain(options.limit)?;
        reached(Stage::Drained)?;
        queues.write_back()?;
        work.make_durable().map_err(|error| failed(&self.path, "write", &error))?;
        reached(Stage::Durable)?;
        let durable = draft.exchange(&work)?;
        reached(Stage::Exchanged)?;
        let frozen = self.live().head.frozen();
        // Frozen under the name of the disk, the layer could not be opened after a power cut.
        let written = durable.and_then(|()| settle::write(&work.backing, &frozen));
        reached(Stage::Frozen)?;
        work.go_on_in(new, written.is_ok());
        let Superblock { layer, generation, .. } = frozen;
        let file = draft.path.clone();
        written.map_err(|error| {
            failed(&file, "write", &error)
                .hint("the disk goes on; others can stand on the snapshot from its next server on")
        })?;
        children.into_iter().try_for_each(|child| child.name().map(drop))?;
        Ok(Snapshot { file, layer, generation })
    }
}

/// A snapshot on its way. The gate opens at the end.
struct Work<'a> {
    overlay: &'a Overlay,
    /// The superblock of the live layer, and the layer's file.
    live: Superblock,
    backing: fs::File,
    /// The number of the new layer among the disk's, and the place of the new layer's file.
    layer: u32,
    place: u16,
    /// Whether this server has taken no snapshot yet.
    is_first: bool,
}

impl<'a> Work<'a> {
    /// # Errors
    /// Why there can be no snapshot.
    fn begin(overlay: &'a Overlay) -> Result<Self> {
        let path = overlay.path.display();
        let mut live = overlay.live();
        if live.gate != Gate::Open {
            let message = format!("another snapshot of {path} is being taken");
            return Err(Error::new(Code::Busy, message));
        }
        if live.lost || live.flights.is_deserted() || overlay.durability.is_lost(live.place()) {
            let message =
                format!("{path} has lost a thread that serves it, or what was written to it");
            return Err(Error::new(Code::Closed, message).hint("end the server and serve it again"));
        }
        if live.head.superblock().committing {
            return Err(committing(&overlay.path));
        }
        if live.layers.count() >= MAX_LAYERS as usize {
            let message = format!("{path} stands on {} layers, as many as can be", MAX_LAYERS - 1);
            return Err(Error::new(Code::Unsupported, message).hint(MERGE));
        }
        let backing = live.backing.try_clone();
        let backing = backing.map_err(|error| failed(&overlay.path, "dup", &error))?;
        // A merge needs a place, too.
        let Some((layer, place)) = live.layers.reserve(1) else {
            let message = format!("the server of {path} has no place for another snapshot");
            return Err(Error::new(Code::Resources, message).hint(MERGE));
        };
        live.gate = Gate::Preparing;
        let (live, is_first) = (*live.head.superblock(), !live.has_snapshots);
        Ok(Self { overlay, live, backing, layer, place, is_first })
    }

    /// The generation of the frozen layer.
    fn generation(&self) -> u64 {
        self.live.generation + 1
    }

    /// The name of the frozen layer. What killed snapshots have left is removed: of killed servers, so that
    /// the default names are looked at once.
    fn name(&self, asked: Option<&Path>) -> Result<PathBuf> {
        let disk = &self.overlay.path;
        let of_generation = |generation| {
            let mut name = OsString::from(disk);
            name.push(format!(".{generation}"));
            PathBuf::from(name)
        };
        let name = asked.map_or_else(|| of_generation(self.generation()), Path::to_owned);
        check_folder(disk, &name)?;
        let looked_back = if self.is_first { LOOKED_BACK } else { 0 };
        let generations = self.generation().saturating_sub(looked_back)..self.generation();
        for name in generations.map(of_generation).chain([name.clone()]) {
            self.remove_left_over(&name).map_err(|error| failed(&name, "unlink", &error))?;
        }
        Ok(name)
    }

    /// Removes a layer that was to take the name of the disk, and the history of the layer: such a layer
    /// names itself as what it stands on.
    fn remove_left_over(&self, name: &Path) -> io::Result<()> {
        let Ok(layer) = Layer::open(name, &reading()) else { return Ok(()) };
        let Superblock { parent, layer: id, .. } = *layer.superblock();
        let own = file_name(name);
        let is_ours = |parent: Parent| Some(parent.file) == own && parent.layer == self.live.layer;
        if !parent.is_some_and(is_ours) {
            return Ok(());
        }
        self.overlay.memory.forget(id, &layer.backing);
        fs::remove_file(name)
    }

    /// What a layer is like that stands on the frozen layer, whose name will be `path`.
    fn birth(&self, path: &Path) -> Result<Birth> {
        let file = file_name(path).ok_or_else(|| {
            let message = format!("{} is no name of a file", path.display());
            Error::new(Code::InvalidArgument, message)
        })?;
        let parent = Parent { layer: self.live.layer, generation: self.generation(), file };
        Ok(Birth::like(&self.live, Some(parent)))
    }

    /// Makes new disks, without names as yet, that will stand on the frozen layer.
    fn make_children(&self, name: &Path, children: &[PathBuf]) -> Result<Vec<Unnamed>> {
        for (at, child) in children.iter().enumerate() {
            check_folder(&self.overlay.path, child)?;
            if child == name || children[..at].contains(child) {
                let message = format!("{} is named twice", child.display());
                return Err(Error::new(Code::InvalidArgument, message));
            }
        }
        let birth = self.birth(name)?;
        children.iter().map(|child| Unnamed::make(child, &birth)).collect()
    }

    /// Makes the new layer, under the name that the frozen layer will have.
    fn make(&self, path: PathBuf) -> Result<(Draft<'a>, Awake)> {
        let identity = Some((Uuid::new_v4(), self.live.disk, self.generation()));
        let birth = Birth { identity, ..self.birth(&path)? };
        Unnamed::make(&path, &birth)?.name()?;
        let Overlay { memory, how, .. } = self.overlay;
        let awake = Layer::open(&path, how)
            .and_then(|layer| Loaded::of(layer, self.layer, Index::new(), memory)?.wake(memory));
        match awake {
            Ok(awake) => {
                let history = awake.history.path().to_owned();
                Ok((Draft { overlay: self.overlay, path, history, named: false }, awake))
            }
            Err(error) => {
                // The error is the one to tell.
                let _removed = fs::remove_file(&path);
                Err(error)
            }
        }
    }

    /// Syncs the live layer's file. A sync that fails is final.
    fn sync(&self, file: &fs::File) -> io::Result<()> {
        let overlay = self.overlay;
        file.sync_data().inspect_err(|_| overlay.durability.lose(overlay.live().place()))
    }

    /// Closes the gate, and waits until what has begun has ended.
    fn drain(&self, limit: Duration) -> Result<()> {
        let mut live = self.overlay.live();
        live.gate = Gate::Closed;
        let waited = self.overlay.drained.wait_timeout_while(live, limit, |live| {
            live.flights.any_writing() && !live.flights.is_deserted()
        });
        let (live, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let path = self.overlay.path.display();
        if live.flights.is_deserted() {
            let message = format!("a thread that serves {path} is gone");
            return Err(Error::new(Code::Closed, message));
        }
        if live.flights.any_writing() {
            let message = format!("requests of {path} do not end: no snapshot was taken");
            return Err(Error::new(Code::Timeout, message).hint("they, and all others, go on"));
        }
        Ok(())
    }

    /// Everything that was published is durable, and the log names it. The gate is closed.
    fn make_durable(&self) -> io::Result<()> {
        let (flush, mark) = {
            let mut live = self.overlay.live();
            (Flush::of(&mut live.head)?, live.history.mark())
        };
        flush.write(&self.backing, |file| self.sync(file))?;
        let mut live = self.overlay.live();
        live.history.durable(mark);
        let unused = live.head.flushed(flush.number);
        let now = live.flights.now();
        live.draining.add(now, unused);
        Ok(())
    }

    /// The new layer is the live layer from now on.
    fn go_on_in(&self, new: Awake, frozen: bool) {
        let mut live = self.overlay.live();
        let Awake { mut head, history, allocated, file, backing } = new;
        let (below, id) = (live.head.index().clone(), head.superblock().layer);
        head.stand_on(self.layer, below.clone());
        live.below = below;
        if let Some(old) = live.layers.get(live.head.layer()) {
            // Where there are no locks, none is in the way of others.
            let _shared = old.file.share();
        }
        if frozen {
            // A frozen layer has no use for a history.
            let _removed = live.history.remove();
        }
        (live.head, live.history, live.allocated) = (head, history, allocated);
        (live.backing, live.draining) = (backing, Draining::default());
        live.layers.fill(self.layer, id, file);
        live.has_snapshots = true;
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        let mut live = self.overlay.live();
        live.layers.cancel(self.layer);
        live.gate = Gate::Open;
    }
}

/// The new layer; gone when dropped, unless it has the name of the disk.
struct Draft<'a> {
    overlay: &'a Overlay,
    /// The name of the new layer, and of the frozen layer once the names are exchanged.
    path: PathBuf,
    /// The history of the new layer.
    history: PathBuf,
    named: bool,
}

impl Draft<'_> {
    /// Gives the new layer the name of the disk, and the old one the name of the snapshot. Answers whether
    /// the names are durable.
    ///
    /// # Errors
    /// When each file has the name that it had.
    fn exchange(&mut self, work: &Work<'_>) -> Result<io::Result<()>> {
        let disk = &self.overlay.path;
        let cannot = |error: &io::Error| match error.raw_os_error() {
            Some(libc::EINVAL | libc::ENOSYS) => {
                let message = format!(
                    "cannot snapshot {}: its file system cannot exchange names",
                    disk.display()
                );
                Error::new(Code::Unsupported, message).hint("ext4, xfs, btrfs and tmpfs can")
            }
            _ => failed(disk, "renameat2", error),
        };
        let found = fs::metadata(disk).map_err(|error| failed(disk, "stat", &error))?;
        let own = work.backing.metadata().map_err(|error| failed(disk, "fstat", &error))?;
        if (found.dev(), found.ino()) != (own.dev(), own.ino()) {
            let message = format!("{} is another file than the one that is served", disk.display());
            return Err(Error::new(Code::BadBackend, message).hint("give the file its name back"));
        }
        naming::exchange(&self.path, disk).map_err(|error| cannot(&error))?;
        let synced = naming::sync(disk);
        // Without the way back the new layer has the name for good.
        self.named = synced.is_ok() || naming::exchange(&self.path, disk).is_err();
        match (synced, self.named) {
            (Err(error), false) => Err(failed(disk, "fsync", &error)),
            (synced, _) => Ok(synced),
        }
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.named && !self.overlay.memory.boot.is_over() {
            // The error that brought us here is the one to tell; the next snapshot removes what is left.
            let _left = fs::remove_file(&self.history).and_then(|()| fs::remove_file(&self.path));
        }
    }
}

fn file_name(path: &Path) -> Option<FileName> {
    FileName::new(path.file_name()?.as_bytes())
}
