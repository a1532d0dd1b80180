//! A zoned device (`UBLK_F_ZONED`, Linux 6.6): zones that are written in order, from their start to
//! their write pointer, and emptied as a whole.
//!
//! A zone's write pointer moves when a write is planned. So a write that fails, or a server that is
//! killed, leaves it where the write would have ended, unless nothing came after.

use std::fs::OpenOptions;
use std::os::fd::{FromRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::file::{File, FileOptions};
use super::{Errno, Geometry, Op, Plan, Request, Step, StepKind, Target, ZoneOp, ZonedLimits};
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
}

const DATA: u16 = 0;
const STATE: u16 = 1;
/// The longest range that one step gives back.
const LONGEST: u64 = 0xffff_0000;

impl Zoned {
    /// Opens and locks `path`, and the state of its zones, which is made if it is not there.
    ///
    /// # Errors
    /// As [`File::open`]; `InvalidArgument` for zones that cannot be; `BadBackend` when the state
    /// is that of other zones.
    pub fn open(path: &Path, file: &FileOptions, options: &ZonedOptions) -> Result<Self> {
        if file.read_only {
            return Err(options::refused("a zoned device cannot be read-only".into()));
        }
        let data = File::open(path, file)?;
        let shape = options.shape(data.geometry().size)?;
        let beside = || {
            let mut name = path.as_os_str().to_owned();
            name.push(".zones");
            PathBuf::from(name)
        };
        let state = options.state.clone().unwrap_or_else(beside);
        let mut how = OpenOptions::new();
        let opened = how.read(true).write(true).create(true).truncate(false).open(&state);
        let opened = opened.map_err(|error| {
            Error::os(Code::BadBackend, format!("cannot open {}", state.display()), "open", &error)
        })?;
        let store = Store::open(opened, &shape).map_err(|unfit| explain(&state, unfit))?;
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
        Self { data, table: Mutex::new(Table::new(shape, zones, store)), shape, geometry, files }
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
    let bad = |what: String| Error::new(Code::BadBackend, what);
    match unfit {
        Unfit::Io(error) => {
            Error::os(Code::BadBackend, format!("cannot keep zones in {state}"), "mmap", &error)
        }
        Unfit::Foreign => bad(format!("{state} holds something else than the state of zones"))
            .hint("say with the option state where it shall be kept"),
        Unfit::OtherShape => bad(format!("{state} is the state of zones of another shape"))
            .hint("ask for the zones that it was made for, or remove it with the data"),
        Unfit::Damaged(zone) => bad(format!("{state} is damaged at zone {zone}")),
    }
}

#[cfg(test)]
mod tests;
