//! Steps that do not move a request's bytes: they let time pass, or move a request's metadata or what
//! the target has in memory of its own.

use io_uring::opcode;
use io_uring::squeue::Entry;
use io_uring::types::Timespec;

use super::{Engine, entries};
use crate::buffers::Pool;
use crate::driver::Ring;
use crate::file_table::{CHAR_DEVICE, FIRST_OF_TARGET};
use crate::pass::Pass;
use crate::tag::Tag;
use crate::targets::{Place, Step, StepKind, Target};

/// How long each step waits, where the kernel finds it: one place for each step of each tag.
pub(super) type Waits = Box<[Timespec]>;

impl<T: Target> Engine<T> {
    /// The entry of a step that [`entries::step`] does not know.
    #[cold]
    pub(super) fn special_entry<R: Ring>(
        &mut self,
        pass: &Pass<'_, R>,
        tag: Tag,
        index: usize,
    ) -> Entry {
        let step = self.steps[index];
        let from = self.progress[index].from;
        match (step.kind, step.place) {
            (StepKind::Wait, _) => self.wait(index, step.length),
            (StepKind::FetchMetadata, _) => self.copy_metadata(pass, tag, (&step, from), false),
            (StepKind::StoreMetadata, _) => self.copy_metadata(pass, tag, (&step, from), true),
            (_, Place::Own) => transfer(pass, &step, from, self.own(&step, from)),
            _ => {
                let room = self.metadata().at(tag.index(), step.at + from);
                transfer(pass, &step, from, room)
            }
        }
    }

    /// Lets `microseconds` pass. The step's place is read when the entry is submitted, and not
    /// written before it has completed.
    pub(super) fn wait(&mut self, index: usize, microseconds: u32) -> Entry {
        let nanoseconds = microseconds % 1_000_000 * 1000;
        let wait = Timespec::new().sec((microseconds / 1_000_000).into()).nsec(nanoseconds);
        self.waits[index] = wait;
        opcode::Timeout::new(&raw const self.waits[index]).build()
    }

    /// Where the rest of a step lies in the target's own memory.
    pub(super) fn own(&self, step: &Step, from: u32) -> *mut u8 {
        let own = self.own.as_ref().expect("a target with steps in memory of its own has some");
        assert!(u64::from(step.at) + u64::from(step.length) <= own.size() as u64);
        own.base().wrapping_add((step.at + from) as usize)
    }

    fn metadata(&self) -> &Pool {
        self.aids.metadata.as_ref().expect("a target with integrity has rooms")
    }

    /// Copies metadata between a request and the room for it: to the request with `out`.
    fn copy_metadata<R: Ring>(
        &self,
        pass: &Pass<'_, R>,
        tag: Tag,
        (step, from): (&Step, u32),
        out: bool,
    ) -> Entry {
        let memory = (self.metadata().at(tag.index(), step.at + from), step.length - from);
        let offset = ublk_sys::user_copy_offset(self.queue, tag.number(), step.at + from);
        let position = offset | ublk_sys::UBLKSRV_IO_INTEGRITY_FLAG;
        entries::user_copy(pass.file(CHAR_DEVICE), memory, position, out)
    }
}

/// What is left of a read or write between a file and memory of ours.
fn transfer<R: Ring>(pass: &Pass<'_, R>, step: &Step, from: u32, memory: *mut u8) -> Entry {
    let file = pass.file(FIRST_OF_TARGET + u32::from(step.file));
    let (length, place) = (step.length - from, step.offset + u64::from(from));
    match step.kind {
        StepKind::Read => opcode::Read::new(file, memory, length).offset(place).build(),
        StepKind::Write { dsync } => {
            let flags = if dsync { libc::RWF_DSYNC } else { 0 };
            opcode::Write::new(file, memory, length).offset(place).rw_flags(flags).build()
        }
        other => unreachable!("no step that moves bytes: {other:?}"),
    }
}
