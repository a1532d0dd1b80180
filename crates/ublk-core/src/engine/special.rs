//! Steps that do not move a request's bytes: they let time pass, move a request's metadata, or write
//! what the target has in memory of its own.

use io_uring::opcode;
use io_uring::squeue::Entry;
use io_uring::types::Timespec;

use super::{Engine, entries};
use crate::driver::Ring;
use crate::file_table::{CHAR_DEVICE, FIRST_OF_TARGET};
use crate::pass::Pass;
use crate::target::{Step, StepKind, Target};

/// How long each step waits, where the kernel finds it: one place for each step of each tag.
pub(super) type Waits = Box<[Timespec]>;

impl<T: Target> Engine<T> {
    /// The entry of a step that [`entries::step`] does not know.
    #[cold]
    pub(super) fn special_entry<R: Ring>(
        &mut self,
        pass: &Pass<'_, R>,
        tag: u16,
        index: usize,
    ) -> Entry {
        let step = self.steps[index];
        match step.kind {
            StepKind::Wait => self.wait(index, step.length),
            StepKind::WriteOwn => self.write_own(pass, &step, self.progress[index].from),
            _ => self.move_metadata(pass, tag, &step, self.progress[index].from),
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

    fn write_own<R: Ring>(&self, pass: &Pass<'_, R>, step: &Step, from: u32) -> Entry {
        let own = self.own.as_ref().expect("a target that writes from memory of its own has some");
        let (at, length) = ((step.at + from) as usize, step.length - from);
        assert!(at + length as usize <= own.size());
        let file = pass.file(FIRST_OF_TARGET + u32::from(step.file));
        let place = step.offset + u64::from(from);
        opcode::Write::new(file, own.base().wrapping_add(at), length).offset(place).build()
    }

    fn move_metadata<R: Ring>(
        &self,
        pass: &Pass<'_, R>,
        tag: u16,
        step: &Step,
        from: u32,
    ) -> Entry {
        let room = self.aids.metadata.as_ref().expect("a target with integrity has rooms");
        let (memory, length) = (room.at(tag, step.at + from), step.length - from);
        let kernel = || {
            let offset = ublk_sys::user_copy_offset(self.queue, tag, step.at + from);
            (pass.file(CHAR_DEVICE), offset | ublk_sys::UBLKSRV_IO_INTEGRITY_FLAG)
        };
        let file = pass.file(FIRST_OF_TARGET + u32::from(step.file));
        let place = step.offset + u64::from(from);
        match step.kind {
            StepKind::FetchMetadata => {
                let (device, position) = kernel();
                entries::user_copy(device, (memory, length), position, false)
            }
            StepKind::StoreMetadata => {
                let (device, position) = kernel();
                entries::user_copy(device, (memory, length), position, true)
            }
            StepKind::ReadMetadata => opcode::Read::new(file, memory, length).offset(place).build(),
            StepKind::WriteMetadata { dsync } => {
                let flags = if dsync { libc::RWF_DSYNC } else { 0 };
                opcode::Write::new(file, memory, length).offset(place).rw_flags(flags).build()
            }
            other => unreachable!("no step that is special: {other:?}"),
        }
    }
}
