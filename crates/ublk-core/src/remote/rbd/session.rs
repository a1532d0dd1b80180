//! A queue's operations on an image.
//!
//! All sessions use one handle of the image, which librbd allows, so the exclusive lock has one owner however
//! many queues there are.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::Rbd;
use super::api::{Completion, THICK};
use super::line::{End, Line};
use crate::memory::Region;
use crate::remote::ends::Hearing;
use crate::remote::{Entries, Job, Session, Ticket, settle};
use crate::targets::StepKind;

/// A job that librbd has.
#[derive(Clone, Copy, Debug)]
struct Slot {
    job: Job,
    /// The operation is the flush behind a durable write.
    flushes: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct RbdSession {
    remote: Arc<Rbd>,
    line: Arc<Line>,
    hearing: Hearing<End>,
    slots: Box<[Option<Slot>]>,
    free: Vec<u16>,
    answers: VecDeque<(Ticket, i32)>,
    /// Entries of this session name no memory.
    memory: Arc<Region>,
}

impl RbdSession {
    pub(super) fn new(remote: Arc<Rbd>, capacity: usize) -> io::Result<Self> {
        let count = u16::try_from(capacity).map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(Self {
            line: Line::new(remote.api(), count)?,
            hearing: Hearing::new(capacity),
            slots: vec![None; capacity].into(),
            free: (0..count).rev().collect(),
            answers: VecDeque::with_capacity(capacity),
            memory: Arc::new(Region::new(1)?),
            remote,
        })
    }

    /// Gives librbd the operation of a slot; answers the job where librbd refuses.
    fn begin(&mut self, number: u16, slot: Slot) {
        self.slots[usize::from(number)] = Some(slot);
        let begun = self.line.expect(number).and_then(|completion| {
            // SAFETY: the completion is new. The job's memory stays until the job is answered, which is
            // after the operation has ended.
            match unsafe { self.submit(&slot, completion) } {
                0.. => Ok(()),
                error => {
                    // SAFETY: librbd has refused the operation.
                    unsafe { self.line.forget(completion) };
                    Err(error)
                }
            }
        });
        if let Err(error) = begun {
            self.finish(number, slot.job, error);
        }
    }

    /// # Safety
    /// The completion is new, and the job's memory stays until the operation has ended.
    unsafe fn submit(&self, slot: &Slot, completion: Completion) -> i32 {
        let (api, image) = (self.remote.api(), self.remote.handle());
        let Job { kind, offset, length, memory, .. } = slot.job;
        let (bytes, memory) = (length as usize, memory.cast::<libc::c_char>());
        // SAFETY: passed on to our caller; the image is open as long as there is the remote.
        unsafe {
            match kind {
                _ if slot.flushes => (api.rbd_aio_flush)(image, completion),
                StepKind::Sync => (api.rbd_aio_flush)(image, completion),
                StepKind::Read => (api.rbd_aio_read)(image, offset, bytes, memory, completion),
                StepKind::Write { .. } => {
                    (api.rbd_aio_write)(image, offset, bytes, memory, completion)
                }
                StepKind::Discard => {
                    (api.rbd_aio_discard)(image, offset, length.into(), completion)
                }
                StepKind::PunchHole => {
                    (api.rbd_aio_write_zeroes)(image, offset, bytes, completion, 0, 0)
                }
                StepKind::ZeroRange => {
                    (api.rbd_aio_write_zeroes)(image, offset, bytes, completion, THICK, 0)
                }
                _ => -libc::EOPNOTSUPP,
            }
        }
    }

    /// An operation has ended.
    fn ended(&mut self, number: u16, result: i64) {
        let Some(slot) = self.slots[usize::from(number)] else { return };
        let Job { kind, length, .. } = slot.job;
        let result = match kind {
            _ if result < 0 => i32::try_from(result).unwrap_or(-libc::EIO),
            StepKind::Write { dsync: true } if !slot.flushes => {
                return self.begin(number, Slot { flushes: true, ..slot });
            }
            // Only where the image has become shorter than the device.
            StepKind::Read if result != i64::from(length) => -libc::EIO,
            _ => i32::try_from(length).unwrap_or(i32::MAX),
        };
        self.finish(number, slot.job, result);
    }

    /// Answers a job.
    fn finish(&mut self, number: u16, job: Job, result: i32) {
        let result = settle(&self.remote.durability, job.kind, result);
        self.slots[usize::from(number)] = None;
        self.free.push(number);
        self.answers.push_back((job.ticket, result));
    }
}

impl Session for RbdSession {
    fn memory(&self) -> &Arc<Region> {
        &self.memory
    }

    unsafe fn start(&mut self, job: Job) {
        let number = self.free.pop().expect("no more jobs than the session's capacity");
        self.begin(number, Slot { job, flushes: false });
    }

    fn completed(&mut self, _entry: u8, _result: i32) {
        let told = self.hearing.hear(self.line.ends());
        for &(number, result) in &told {
            self.ended(number, result);
        }
        self.hearing.heard(told);
    }

    fn push(&mut self, entries: &mut dyn Entries) -> io::Result<()> {
        self.hearing.push(self.line.ends(), entries)
    }

    fn answer(&mut self) -> Option<(Ticket, i32)> {
        self.answers.pop_front()
    }

    fn close(&mut self) {
        self.hearing.close(self.line.ends());
    }

    fn is_idle(&self) -> bool {
        self.hearing.is_idle() && self.free.len() == self.slots.len()
    }
}
