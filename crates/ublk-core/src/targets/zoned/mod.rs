//! A zoned device (`UBLK_F_ZONED`, Linux 6.6): zones are written in order, from the start to the
//! write pointer, and emptied as a whole.
//!
//! A zone's write pointer moves when a write is planned, and is recorded when the write is done: a
//! killed server leaves the recorded pointer behind the last write done. Steps write the part of
//! the records that outlives a power cut, after the data: see `durable`. Among concurrent appends,
//! an append that was not done leaves a gap of zeros, or, on a backend without
//! `FALLOC_FL_PUNCH_HOLE`, of the backend's old bytes.

use std::ops::Range;
use std::os::fd::RawFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::file::{File, FileOptions};
use super::state::{self, Data, Wanted};
use super::{
    Boot, Durability, Ended, Errno, Geometry, Next, Op, Place, Plan, Request, Step, StepKind,
    Target, ZoneOp, ZonedLimits,
};
use crate::error::{Code, Error, Result};
use crate::memory::Region;

mod durable;
mod options;
mod store;
mod table;

pub use options::ZonedOptions;
use store::{Store, Unfit};
use table::{Shape, Table};

/// Zones on a file or in memory.
#[derive(Debug)]
pub struct Zoned {
    data: File,
    table: Mutex<Table<Store>>,
    shape: Shape,
    geometry: Geometry,
    image: Arc<Region>,
    /// The data, the reports, and the state, if there is a state file.
    files: Vec<RawFd>,
    durability: Durability,
    boot: Option<Boot>,
}

const DATA: u16 = 0;
const REPORTS: u16 = 1;
const STATE: u16 = 2;
/// In the ticket of a write to a sequential zone, next to the write's place, a multiple of 512.
const NOTED: u64 = 1;
/// The longest range that a step gives back.
const LONGEST: u64 = 0xffff_0000;

impl Zoned {
    /// Opens and locks `path`, and the state of the zones. A missing state is made, if the data is
    /// empty or the options ask for a new state.
    ///
    /// # Errors
    /// As [`File::open`]; `InvalidArgument` for impossible zones; `BadBackend` when the state
    /// belongs to other zones, or would not outlive a reboot; `NoBackend` when the state is
    /// missing; `Busy` when another target has the state.
    pub fn open(path: &Path, file: &FileOptions, options: &ZonedOptions) -> Result<Self> {
        if file.read_only {
            return Err(options::refused("a zoned device cannot be read-only".into()));
        }
        let data = File::open(path, file)?;
        let shape = options.shape(data.geometry().size)?;
        let path_of_state = options.state.clone();
        let path_of_state = path_of_state.unwrap_or_else(|| state::beside(path, ".zones"));
        let wanted = Wanted { create: options.create, read_only: false };
        let size = data.geometry().size;
        let opened = state::open(&path_of_state, &shape, Data { path, size }, wanted)?;
        let boot = options.boot.clone().map_or_else(Boot::of_machine, Ok);
        let boot = boot.map_err(|error| {
            Error::os(Code::Kernel, "cannot ask the kernel for the boot's id", "read", &error)
        })?;
        let store = Store::open(Some((opened, &boot)), &shape);
        let store = store.map_err(|unfit| explain(&path_of_state, unfit))?;
        let mut zoned = Self::new(data, shape, store);
        zoned.boot = Some(boot);
        Ok(zoned)
    }

    /// In memory, gone with the device. `size` is cut to whole zones.
    ///
    /// # Errors
    /// `InvalidArgument` for impossible zones; `Kernel` when there is no memory.
    pub fn in_memory(size: u64, options: &ZonedOptions) -> Result<Self> {
        let shape = options.shape(size)?;
        let data = File::in_memory(size).map_err(|error| {
            Error::os(Code::Kernel, "cannot make memory for zones", "memfd_create", &error)
        })?;
        let store = Store::open(None, &shape)
            .map_err(|unfit| explain(Path::new("the zones in memory"), unfit))?;
        Ok(Self::new(data, shape, store))
    }

    fn new(data: File, shape: Shape, (store, zones): (Store, Vec<table::Zone>)) -> Self {
        let (reports, state) = store.files();
        let files: Vec<_> = [data.files()[0], reports].into_iter().chain(state).collect();
        let zoned = ZonedLimits { max_open: shape.max_open, max_active: shape.max_active };
        let geometry = Geometry {
            size: shape.start(shape.count),
            chunk: shape.zone_size,
            zoned: Some(zoned),
            // Zones are emptied instead; and a durable write would need two files synced.
            discard: None,
            fua: false,
            ..*data.geometry()
        };
        let image = Arc::clone(store.durable.image());
        let table = Mutex::new(Table::new(shape, zones, store));
        let durability = Durability::of(files.len());
        Self { data, table, shape, geometry, image, files, durability, boot: None }
    }

    fn table(&self) -> MutexGuard<'_, Table<Store>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn plan_zone(
        &self,
        op: ZoneOp,
        request: &Request,
        plan: &mut Plan<'_>,
    ) -> std::result::Result<(), Errno> {
        let Request { offset, length, .. } = *request;
        match op {
            ZoneOp::Report => {
                let offset = Store::place(offset / self.shape.zone_size);
                plan.push(step(StepKind::Read, REPORTS, length, offset));
                Ok(())
            }
            ZoneOp::Append => {
                let offset = self.table().append(offset, length)?;
                plan.push(step(StepKind::Write { dsync: false }, DATA, length, offset));
                plan.ask(offset | NOTED);
                Ok(())
            }
            ZoneOp::Open => self.table().open(offset),
            ZoneOp::Close => self.table().close(offset),
            ZoneOp::Finish => self.table().finish(offset),
            ZoneOp::Reset => {
                let zone = self.table().resettable(offset)?;
                self.plan_reset(zone..zone + 1, plan);
                Ok(())
            }
            ZoneOp::ResetAll => {
                self.plan_reset(self.shape.conventional..self.shape.count, plan);
                Ok(())
            }
        }
    }

    fn keeps_state(&self) -> bool {
        self.files.len() > usize::from(STATE)
    }

    /// Syncs the data written until now first: no write pointer is ever durable before the data
    /// below the pointer.
    fn plan_flush(&self, plan: &mut Plan<'_>) {
        plan.push(step(StepKind::Sync, DATA, 0, 0));
        if self.keeps_state() {
            plan.ask(self.table().records.durable.capture());
        }
    }

    /// Called when the data of flush `id` is durable, and again when the captured words are
    /// durable.
    fn next_of_flush(&self, id: u64, round: u16, plan: &mut Plan<'_>) -> Next {
        let mut table = self.table();
        if round == 0 {
            let words = table.records.durable.record(id);
            if !words.is_empty() {
                Self::plan_words(&table.records, words, plan);
                plan.ask(id);
                return Next::Round;
            }
        }
        table.records.durable.keep(id);
        Self::done(&table)
    }

    /// Plans a reset: the zones are durably empty, and the table takes the zones for empty, before
    /// the data goes.
    fn plan_reset(&self, zones: Range<u32>, plan: &mut Plan<'_>) {
        let mut table = self.table();
        let (id, words) = table.records.durable.begin_reset(zones);
        if self.keeps_state() {
            Self::plan_words(&table.records, words, plan);
        }
        plan.ask(id);
    }

    /// The zones of reset `id` are durably empty.
    fn next_of_reset(&self, op: ZoneOp, offset: u64, id: u64, plan: &mut Plan<'_>) -> Next {
        let mut table = self.table();
        table.records.durable.keep(id);
        if op == ZoneOp::ResetAll {
            table.reset_all();
        } else {
            // The plan found the zone resettable.
            let _ = table.reset(offset);
        }
        if table.records.has_failed() {
            return Next::Fail(Errno(libc::EIO));
        }
        drop(table);
        self.give_back(self.zones_of(op, offset), StepKind::PunchHole, plan);
        Next::Round
    }

    /// The zones are empty, even if the space cannot be given back: a block device unable to zero
    /// may discard.
    fn next_way_to_give_back(
        &self,
        (op, offset): (ZoneOp, u64),
        round: u16,
        plan: &mut Plan<'_>,
    ) -> Next {
        if round > 1 || self.data.discard_step() != StepKind::Discard {
            return Next::Done;
        }
        self.give_back(self.zones_of(op, offset), StepKind::Discard, plan);
        Next::Round
    }

    fn done(table: &Table<Store>) -> Next {
        if table.records.has_failed() { Next::Fail(Errno(libc::EIO)) } else { Next::Done }
    }

    /// Writes words of the image and syncs the state.
    fn plan_words(store: &Store, words: Range<u32>, plan: &mut Plan<'_>) {
        // Fits: there are at most 2^20 words.
        let bytes = |count: u32| count * u32::try_from(durable::WORD).unwrap_or(u32::MAX);
        let (length, offset) = (bytes(words.end - words.start), store.place_of_word(words.start));
        let write = step(StepKind::Write { dsync: false }, STATE, length, offset);
        plan.push(Step { place: Place::Own, at: bytes(words.start), ..write });
        plan.push(Step { stage: 1, ..step(StepKind::Sync, STATE, 0, 0) });
    }

    fn give_back(&self, zones: Range<u32>, kind: StepKind, plan: &mut Plan<'_>) {
        let (mut from, to) = (self.shape.start(zones.start), self.shape.start(zones.end));
        while from < to {
            let length = u32::try_from((to - from).min(LONGEST)).unwrap_or(u32::MAX);
            plan.push(step(kind, DATA, length, from));
            from += u64::from(length);
        }
    }

    /// The zones emptied by a reset.
    fn zones_of(&self, op: ZoneOp, offset: u64) -> Range<u32> {
        // Fits: the plan checked the zone.
        let zone = u32::try_from(offset / self.shape.zone_size).unwrap_or(u32::MAX - 1);
        match op {
            ZoneOp::Reset => zone..zone + 1,
            _ => self.shape.conventional..self.shape.count,
        }
    }
}

impl Drop for Zoned {
    /// An orderly end leaves nothing to the next flush.
    fn drop(&mut self) {
        let lost = [DATA, STATE].iter().any(|&file| self.durability.is_lost(file));
        let runs = !lost && self.boot.as_ref().is_some_and(|boot| !boot.is_over());
        // SAFETY: fdatasync of a descriptor owned by `data`.
        if runs && unsafe { libc::fdatasync(self.files[usize::from(DATA)]) } == 0 {
            // The records keep everything not yet durable, until the next boot.
            let _ = self.table().records.close();
        }
    }
}

impl Target for Zoned {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn files(&self) -> &[RawFd] {
        &self.files
    }

    fn durability(&self) -> &Durability {
        &self.durability
    }

    fn layout(&self) -> Option<String> {
        let Shape { capacity, conventional, .. } = self.shape;
        Some(format!("zoned(capacity {capacity}, {conventional} conventional)"))
    }

    fn max_steps(&self) -> usize {
        usize::try_from(self.geometry.size.div_ceil(LONGEST)).unwrap_or(usize::MAX).max(2)
    }

    fn plan(&self, request: &Request, plan: &mut Plan<'_>) -> std::result::Result<(), Errno> {
        match request.op {
            Op::Read => self.data.plan(request, plan),
            Op::Write => {
                let noted = self.table().write(request.offset, request.length)?;
                self.data.plan(request, plan)?;
                if noted {
                    plan.ask(request.offset | NOTED);
                }
                Ok(())
            }
            Op::Flush => {
                self.plan_flush(plan);
                Ok(())
            }
            Op::Zone(op) => self.plan_zone(op, request, plan),
            Op::Discard | Op::WriteZeroes => Err(Errno(libc::EOPNOTSUPP)),
        }
    }

    fn memory(&self) -> Option<&Arc<Region>> {
        Some(&self.image)
    }

    fn takes_rounds(&self) -> bool {
        true
    }

    fn next(&self, request: &Request, ended: Ended, plan: &mut Plan<'_>) -> Next {
        let Ended { result, ticket, round } = ended;
        match (request.op, result) {
            (Op::Zone(op @ (ZoneOp::Reset | ZoneOp::ResetAll)), Err(errno))
                if round > 0 && errno.0 == libc::EOPNOTSUPP =>
            {
                self.next_way_to_give_back((op, request.offset), round, plan)
            }
            (_, Err(errno)) => {
                self.failed(request, ticket);
                Next::Fail(errno)
            }
            (Op::Write | Op::Zone(ZoneOp::Append), Ok(())) => {
                let mut table = self.table();
                table.done(ticket & !NOTED, request.length);
                Self::done(&table)
            }
            (Op::Flush, Ok(())) => self.next_of_flush(ticket, round, plan),
            (Op::Zone(op), Ok(())) => self.next_of_reset(op, request.offset, ticket, plan),
            (_, Ok(())) => Next::Done,
        }
    }

    fn failed(&self, request: &Request, ticket: u64) {
        match request.op {
            Op::Write | Op::Zone(ZoneOp::Append) if ticket & NOTED != 0 => {
                self.table().failed(ticket & !NOTED, request.length);
            }
            Op::Write | Op::Zone(ZoneOp::Append) => {}
            _ => self.table().records.durable.abandon(ticket),
        }
    }
}

fn step(kind: StepKind, file: u16, length: u32, offset: u64) -> Step {
    Step { kind, file, length, offset, ..Step::EMPTY }
}

fn explain(state: &Path, unfit: Unfit) -> Error {
    let state = state.display();
    match unfit {
        Unfit::Io(error) => {
            Error::os(Code::BadBackend, format!("cannot keep zones in {state}"), "write", &error)
        }
        Unfit::Damaged(zone) => {
            Error::new(Code::BadBackend, format!("{state} is damaged at zone {zone}"))
        }
    }
}

#[cfg(test)]
mod tests;
