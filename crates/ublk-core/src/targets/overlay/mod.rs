//! A disk that stores only differences from a base: copy-on-write in blocks of 4 KiB.
//!
//! The disk is a read-only base and layers above, each a file; only the highest, the live layer, is
//! written to. The format of the files and the index of blocks are the matter of the crate
//! `ublk-overlay`; here requests become steps on the files.
//!
//! The first write of a block goes to a new place in the live layer's file, and later ones go in place.
//! Reads find a new place once all blocks are written, and the next server does once the extent is in
//! the [history], before the request is answered. A flush syncs the data, writes the layer's log,
//! and syncs again ([flush]).

use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ublk_overlay::extent::{BLOCK, Place};
use ublk_overlay::head::Head;
use ublk_overlay::index::Index;

use super::file::FileOptions;
use super::native::Native;
use super::{
    Durability, Ended, Errno, FlattenOptions, Frozen, Geometry, Merged, Next, Op, Plan, Progress,
    Queues, Request, Snapshot, SnapshotOptions, Step, StepKind, Target, pieces,
};
use crate::allocation::Allocation;
use crate::memory::Region;
use crate::remote::Remote;

mod chain;
mod checks;
mod diff;
mod fills;
mod fixed;
mod flatten;
mod flights;
mod flush;
mod folders;
mod history;
mod layers;
mod loaded;
mod make;
mod naming;
mod offline;
mod open;
mod publish;
mod reads;
mod sectors;
mod settle;
mod simple;
mod snapshot;
mod unused;
mod verbs;
mod writes;

pub(super) use chain::{modified, modified_of};
pub use diff::{Change, diff};
pub use fixed::Fixed;
use flights::Flights;
use flush::Flushing;
use history::{History, Refused};
use layers::Layers;
use loaded::Memory;
pub use offline::{
    Branch, Check, Export, Rebased, check, check_no_base, commit, commit_into_base, export,
    flatten, rebase, receive, send, tree,
};
pub use open::OverlayOptions;
use sectors::{blocks, is_partial, whole_blocks};
use unused::{Allocated, Draining};
pub use verbs::{Info, create, fork, info};

/// Files of layers that may be added while a disk is served, one of them by a merge.
const SPARE: u16 = 65;
/// Steps of a round, beside those of the base.
const ROUND: usize = 16;
/// How long a request waits for the flush of another request before asking again, in microseconds.
const PATIENCE: u32 = 100;

/// A base and the differences from the base.
#[derive(Debug)]
pub struct Overlay {
    base: Native,
    geometry: Geometry,
    /// The files at the time of opening: the live layer's, those of frozen layers, the base's. The files of
    /// layers that are made later have the places behind.
    files: Vec<RawFd>,
    /// The place of the base's first file.
    base_files: u16,
    /// The most steps of a plan of the base, at least 1, and the base's chunk.
    base_plans: (usize, u64),
    durability: Durability,
    /// Memory for log blocks, a page each.
    pages: Arc<Region>,
    /// Whether the file system gives space back.
    punches: bool,
    live: Mutex<Live>,
    /// Woken when a request ends that a snapshot waits for.
    drained: Condvar,
    /// The name of the disk: the live layer's file.
    path: PathBuf,
    memory: Memory,
    /// How files of layers are opened.
    how: FileOptions,
}

/// The state of the live layer.
#[derive(Debug)]
struct Live {
    head: Head,
    history: History,
    flights: Flights,
    allocated: Allocated,
    draining: Draining,
    /// The only flush under way.
    flushing: Option<Flushing>,
    /// When the last flush that has ended began, by the clock of the flights.
    flushed: u64,
    /// A reactor is gone whose steps of a flush may still write to the log: no other flush begins.
    lost: bool,
    /// Free pages of memory, for writes of parts of blocks.
    slots: Vec<u8>,
    /// The live layer's file, through the page cache, for writes before and after requests.
    backing: fs::File,
    layers: Layers,
    gate: Gate,
    /// Whether this server has taken a snapshot.
    has_snapshots: bool,
    /// Whether the frozen layers are being merged.
    merging: bool,
    /// Where all blocks of the frozen layers are.
    below: Index,
}

/// Whether a snapshot is being taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    /// No.
    Open,
    /// The new layer is being made: the live layer keeps its generation.
    Preparing,
    /// Requests other than reads wait.
    Closed,
}

/// The next thing of a request that does not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Round,
    Done,
    Park,
}

impl Overlay {
    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The request has ended.
    fn end(&self, live: &mut Live, ticket: u64) {
        live.end_fill(ticket);
        self.end_simple(live, ticket);
    }

    /// The same for a request that has never filled a block.
    #[inline]
    fn end_simple(&self, live: &mut Live, ticket: u64) {
        live.flights.end(ticket);
        if live.gate == Gate::Closed {
            self.drained.notify_all();
        }
    }

    /// The first round of a request.
    fn begin(
        &self,
        live: &mut Live,
        ticket: u64,
        request: &Request,
        plan: &mut Plan<'_>,
    ) -> Result<Way, Errno> {
        match request.op {
            Op::Read => self.plan_read(live, ticket, request, plan).map(|()| Way::Round),
            Op::Write => self.plan_write(live, ticket, request, plan),
            Op::WriteZeroes if is_partial(request, live.flights.get(ticket).at) => {
                self.plan_write(live, ticket, request, plan)
            }
            // Once the round without steps has ended.
            Op::Discard | Op::WriteZeroes => Ok(Way::Round),
            Op::Flush => self.begin_flush(live, ticket, plan),
            Op::Zone(_) => Err(Errno(libc::EOPNOTSUPP)),
        }
    }

    /// The round after a round that has ended well.
    fn go_on(
        &self,
        live: &mut Live,
        ticket: u64,
        request: &Request,
        plan: &mut Plan<'_>,
    ) -> Result<Way, Errno> {
        let flight = live.flights.get(ticket);
        if flight.waits {
            if live.gate == Gate::Closed {
                return Ok(Way::Park);
            }
            live.flights.get(ticket).waits = false;
        }
        if live.flights.get(ticket).flushes {
            match self.plan_flush(live, plan)? {
                Way::Done => live.flights.get(ticket).flushes = false,
                other => return Ok(other),
            }
            if request.op == Op::Flush {
                return Ok(Way::Done);
            }
        }
        let (_, to) = blocks(request);
        let transfers = matches!(request.op, Op::Read | Op::Write | Op::WriteZeroes);
        let published = match request.op {
            Op::Flush if live.is_flushed(ticket) => return Ok(Way::Done),
            Op::Flush => return self.begin_flush(live, ticket, plan),
            Op::Discard => live.publish_zeros(whole_blocks(request)),
            Op::WriteZeroes => {
                live.publish_parts(ticket).and_then(|()| live.publish_whole(ticket, request))
            }
            _ => live.publish_parts(ticket),
        };
        match published {
            Ok(()) if !transfers || live.flights.get(ticket).at >= to => Ok(Way::Done),
            Ok(()) => self.begin(live, ticket, request, plan),
            Err(Refused::Full) => self.begin_flush(live, ticket, plan),
            Err(Refused::Failed) => {
                // The history may have some of the places: another write must not get these.
                live.flights.get(ticket).parts.clear();
                Err(Errno(libc::EIO))
            }
        }
    }
}

impl Live {
    /// The place of the live layer's file.
    fn place(&self) -> u16 {
        self.layers.place(self.head.layer())
    }

    /// A step on the live layer's file.
    fn step(&self, kind: StepKind, length: u64, offset: u64) -> Step {
        // Fits: a step is no longer than a request, or than the longest run.
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        Step { kind, file: self.place(), length, offset, ..Step::EMPTY }
    }
}

impl Target for Overlay {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn files(&self) -> &[RawFd] {
        &self.files
    }

    fn remotes(&self) -> &[Arc<dyn Remote>] {
        self.base.remotes()
    }

    fn spare_places(&self) -> usize {
        SPARE.into()
    }

    fn laid_out(&self) -> &[RawFd] {
        self.base.laid_out()
    }

    /// The state in the layers; of what no layer has, the state in the base.
    fn allocation(&self, offset: u64, length: u64) -> io::Result<Allocation> {
        let (length, place) = pieces::first(self.live().head.index(), BLOCK, offset, length);
        match place {
            Some(Place::At { .. }) => Ok(Allocation { changed: true, ..Allocation::data(length) }),
            Some(Place::Zero) => Ok(Allocation { changed: true, ..Allocation::hole(length) }),
            None => {
                let below = self.base.allocation(offset, length)?;
                Ok(Allocation { changed: false, ..below })
            }
        }
    }

    fn tells_changes(&self) -> bool {
        true
    }

    fn snapshot(
        &self,
        options: &SnapshotOptions,
        queues: &dyn Queues,
    ) -> crate::error::Result<Snapshot> {
        self.take_snapshot(options, queues)
    }

    fn frozen(&self) -> io::Result<Option<Frozen>> {
        self.look_at_frozen().map(Some)
    }

    fn flatten(
        &self,
        options: &FlattenOptions,
        queues: &dyn Queues,
        progress: &Progress,
    ) -> crate::error::Result<Merged> {
        self.flatten_below(options, queues, progress)
    }

    fn durability(&self) -> &Durability {
        &self.durability
    }

    fn layout(&self) -> Option<String> {
        let base = self.base.layout()?;
        Some(format!("overlay({}, {base})", self.live().head.superblock().disk))
    }

    fn max_steps(&self) -> usize {
        ROUND + self.base.max_steps()
    }

    fn longest_wait(&self) -> Duration {
        self.base.longest_wait()
    }

    fn memory(&self) -> Option<&Arc<Region>> {
        Some(&self.pages)
    }

    fn plan(&self, request: &Request, plan: &mut Plan<'_>) -> Result<(), Errno> {
        let mut live = self.live();
        if self.plan_simple(&mut live, request, plan)? {
            return Ok(());
        }
        let ticket = live.flights.begin(blocks(request).0, request.op != Op::Read);
        let waits = live.gate == Gate::Closed && request.op != Op::Read;
        live.flights.get(ticket).waits = waits;
        let begun =
            if waits { Ok(Way::Park) } else { self.begin(&mut live, ticket, request, plan) };
        match begun {
            // A request that parks is asked again at once.
            Ok(_) => plan.ask(ticket),
            Err(_) => self.end(&mut live, ticket),
        }
        begun.map(drop)
    }

    fn takes_rounds(&self) -> bool {
        true
    }

    fn next(&self, request: &Request, ended: Ended, plan: &mut Plan<'_>) -> Next {
        let (mut live, ticket) = (self.live(), ended.ticket);
        if ended.result.is_ok() && live.flights.get(ticket).simple {
            self.end_simple(&mut live, ticket);
            return Next::Done;
        }
        let result = match ended.result {
            Err(_) if live.may_fail(ticket) => Ok(()),
            result => result,
        };
        let way = result.and_then(|()| self.go_on(&mut live, ticket, request, plan));
        match way {
            Ok(Way::Round) => {
                plan.ask(ticket);
                return Next::Round;
            }
            Ok(Way::Park) => return Next::Park(PATIENCE),
            Ok(Way::Done) => {}
            Err(_) => live.fail(ticket),
        }
        self.end(&mut live, ticket);
        way.map_or_else(Next::Fail, |_| Next::Done)
    }

    fn failed(&self, _request: &Request, ticket: u64) {
        let mut live = self.live();
        // No step is under way any more.
        live.fail(ticket);
        self.end(&mut live, ticket);
    }

    fn deserted(&self) {
        let mut live = self.live();
        live.flights.desert();
        live.lost |= live.flushing.is_some();
        self.drained.notify_all();
    }
}

#[cfg(test)]
mod tests;
