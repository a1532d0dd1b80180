//! A zoned device (`UBLK_F_ZONED`, Linux 6.6): zones that are written in order, from their start to
//! their write pointer, and emptied as a whole.
//!
//! A zone's write pointer moves when a write is planned. So a write that fails, or a server that is
//! killed, leaves it where the write would have ended, unless nothing came after.

use std::os::fd::{FromRawFd, RawFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::file::{File, FileOptions};
use super::state::{self, Data, Wanted};
use super::{
    Durability, Errno, Geometry, Op, Plan, Request, Step, StepKind, Target, ZoneOp, ZonedLimits,
};
use crate::error::{Code, Error, Result};

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
    files: [RawFd; 2],
    durability: Durability,
}

const DATA: u16 = 0;
const STATE: u16 = 1;
/// The longest range that one step gives back.
const LONGEST: u64 = 0xffff_0000;

impl Zoned {
    /// Opens and locks `path`, and the state of its zones. The state is made if it is missing and
    /// the data is empty, or if the options ask for it.
    ///
    /// # Errors
    /// As [`File::open`]; `InvalidArgument` for zones that cannot be; `BadBackend` when the state
    /// is that of other zones, or would not outlive a reboot; `NoBackend` when it is missing;
    /// `Busy` when another target has it.
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
        let store = Store::open(opened, &shape).map_err(|unfit| explain(&path_of_state, unfit))?;
        Ok(Self::new(data, shape, store))
    }

    /// In memory, gone with the device. `size` is cut to whole zones.
    ///
    /// # Errors
    /// `InvalidArgument` for zones that cannot be; `Kernel` when there is no memory.
    pub fn in_memory(size: u64, options: &ZonedOptions) -> Result<Self> {
        let shape = options.shape(size)?;
        let no_memory = |error: &std::io::Error| {
            Error::os(Code::Kernel, "cannot make memory for zones", "memfd_create", error)
        };
        let data = File::in_memory(size).map_err(|error| no_memory(&error))?;
        // SAFETY: plain arguments.
        let fd = unsafe { libc::memfd_create(c"ublk-zones".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(no_memory(&std::io::Error::last_os_error()));
        }
        // SAFETY: a new descriptor that nobody else has.
        let state = unsafe { std::fs::File::from_raw_fd(fd) };
        state::fill(&state, &shape).map_err(|error| no_memory(&error))?;
        let store = Store::open(state, &shape)
            .map_err(|unfit| explain(Path::new("the zones in memory"), unfit))?;
        Ok(Self::new(data, shape, store))
    }

    fn new(data: File, shape: Shape, (store, zones): (Store, Vec<table::Zone>)) -> Self {
        let files = [data.files()[0], store.fd()];
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
        let table = Mutex::new(Table::new(shape, zones, store));
        Self { data, table, shape, geometry, files, durability: Durability::of(2) }
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
                plan.push(step(StepKind::Read, STATE, length, offset));
                Ok(())
            }
            ZoneOp::Append => {
                let offset = self.table().append(offset, length)?;
                plan.push(step(StepKind::Write { dsync: false }, DATA, length, offset));
                Ok(())
            }
            ZoneOp::Open => self.table().open(offset),
            ZoneOp::Close => self.table().close(offset),
            ZoneOp::Finish => self.table().finish(offset),
            ZoneOp::Reset => {
                self.table().reset(offset)?;
                self.give_back(offset, offset + self.shape.zone_size, plan);
                Ok(())
            }
            ZoneOp::ResetAll => {
                self.table().reset_all();
                let start = self.shape.start(self.shape.conventional);
                self.give_back(start, self.geometry.size, plan);
                Ok(())
            }
        }
    }

    fn give_back(&self, mut from: u64, to: u64, plan: &mut Plan<'_>) {
        while from < to {
            let length = u32::try_from((to - from).min(LONGEST)).unwrap_or(u32::MAX);
            plan.push(step(self.data.discard_step(), DATA, length, from));
            from += u64::from(length);
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
                self.table().write(request.offset, request.length)?;
                self.data.plan(request, plan)
            }
            Op::Flush => {
                // The data first: no write pointer is ever durable before what lies below it.
                plan.push(step(StepKind::Sync, DATA, 0, 0));
                plan.push(Step { stage: 1, ..step(StepKind::Sync, STATE, 0, 0) });
                Ok(())
            }
            Op::Zone(op) => self.plan_zone(op, request, plan),
            Op::Discard | Op::WriteZeroes => Err(Errno(libc::EOPNOTSUPP)),
        }
    }

    fn retry(
        &self,
        request: &Request,
        errno: Errno,
        _round: u8,
        _plan: &mut Plan<'_>,
    ) -> std::result::Result<(), Errno> {
        match (request.op, errno.0) {
            // The zones are empty, whether or not their space could be given back.
            (Op::Zone(ZoneOp::Reset | ZoneOp::ResetAll), libc::EOPNOTSUPP) => Ok(()),
            (Op::Write, _) => {
                self.table().take_back(request.offset, request.length);
                Err(errno)
            }
            _ => Err(errno),
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
            Error::os(Code::BadBackend, format!("cannot keep zones in {state}"), "mmap", &error)
        }
        Unfit::Damaged(zone) => {
            Error::new(Code::BadBackend, format!("{state} is damaged at zone {zone}"))
        }
    }
}

#[cfg(test)]
mod tests;
