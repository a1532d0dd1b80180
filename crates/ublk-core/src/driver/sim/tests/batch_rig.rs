//! A batch device with a single queue, and the memory of the device's commands and answers.

use std::sync::atomic::{AtomicU16, Ordering};

use ublk_sys::{
    IORING_URING_CMD_MULTISHOT, UBLK_BATCH_F_HAS_BUF_ADDR, UBLK_BATCH_F_HAS_ZONE_LBA,
    UBLK_F_BATCH_IO, UBLK_F_ZONED, UBLK_U_IO_COMMIT_IO_CMDS, UBLK_U_IO_FETCH_IO_CMDS,
    UBLK_U_IO_PREP_IO_CMDS, ublk_batch_io, ublk_elem_header,
};

use crate::driver::sim::tests::rig::*;
use crate::driver::sim::uring::sqe::{BUFFER_SELECT, OP_URING_CMD, Sqe};
use crate::driver::sim::*;
use crate::driver::{Completion, Ring};

/// The buffer group of the tests, and the capacity of the group's ring.
pub(super) const GROUP: u16 = 7;
pub(super) const ENTRIES: u16 = 4;
/// The `user_data` of the commands.
pub(super) const PREP: u64 = 0x50;
pub(super) const COMMIT: u64 = 0x51;
pub(super) const FETCH: u64 = 0x52;

#[repr(C, align(4096))]
pub(super) struct Page(pub(super) [u8; 4096]);

/// The part of an element chosen by the tests.
#[derive(Clone, Copy)]
pub(super) struct Answer {
    pub(super) tag: u16,
    pub(super) result: i32,
}

pub(super) struct BatchRig {
    pub(super) rig: Rig,
    /// The elements of all commands so far.
    elements: Vec<Box<[u64]>>,
    /// The buffer ring, and the buffers named in the ring.
    ring: Box<Page>,
    inbox: Vec<Box<[u16]>>,
    tail: u16,
}

pub(super) fn answers(tags: &[u16], result: i32) -> Vec<Answer> {
    tags.iter().map(|&tag| Answer { tag, result }).collect()
}

/// A batch command.
pub(super) fn batch_sqe(op: u32, header: ublk_batch_io, addr: u64, user_data: u64) -> Sqe {
    let bytes = header.to_bytes();
    let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
    let sqe = sqe(OP_URING_CMD, CHAR, user_data);
    Sqe { off: u64::from(op), addr, addr3: word(0), pad: word(8), ..sqe }
}

pub(super) fn fetch_batch() -> Sqe {
    let header = ublk_batch_io { elem_bytes: 2, ..Default::default() };
    let sqe = batch_sqe(UBLK_U_IO_FETCH_IO_CMDS, header, 0, FETCH);
    let flags = sqe.flags | BUFFER_SELECT;
    Sqe { op_flags: IORING_URING_CMD_MULTISHOT, buf_index: GROUP, flags, ..sqe }
}

impl BatchRig {
    /// A started device with these `UBLK_F_*`, every tag armed, a fetch and all buffers.
    pub(super) fn live(flags: u64, depth: u16) -> Self {
        Self::with(SimConfig::stepping(1), flags, depth)
    }

    pub(super) fn with(config: SimConfig, flags: u64, depth: u16) -> Self {
        let mut this = Self::armed(config, flags, depth);
        (0..ENTRIES).for_each(|_| this.provide(128));
        this.rig.push(&fetch_batch());
        if flags & UBLK_F_ZONED == 0 {
            assert_eq!(this.rig.turn(), []);
        } else {
            let [tag] = this.take()[..] else { panic!("one report") };
            let length = this.rig.fill_report(tag);
            assert_eq!(this.answer(&[tag], length), 8);
        }
        this
    }

    /// A started device with neither fetch nor buffers; a device with zones waits for the zones'
    /// report.
    pub(super) fn armed(config: SimConfig, flags: u64, depth: u16) -> Self {
        let mut this = Self::added(config, flags, depth);
        let tags: Vec<u16> = (0..depth).collect();
        let prep = this.prep(&tags);
        this.rig.push(&prep);
        assert_eq!(this.rig.results(), [(PREP, 0)]);
        let started = start(&this.rig.sim, this.rig.id);
        assert_eq!(started.is_err(), flags & UBLK_F_ZONED != 0);
        this
    }

    pub(super) fn added(config: SimConfig, flags: u64, depth: u16) -> Self {
        let mut rig = Rig::added(config, flags | UBLK_F_BATCH_IO, depth);
        let mut ring = Box::new(Page([0; 4096]));
        // SAFETY: a page, which outlives the rig: fields drop in the order of declaration.
        unsafe { rig.ring.register_buffer_ring(ring.0.as_mut_ptr(), ENTRIES, GROUP).unwrap() };
        Self { rig, elements: Vec::new(), ring, inbox: Vec::new(), tail: 0 }
    }

    /// Gives the kernel another buffer, with room for `tags`.
    pub(super) fn provide(&mut self, tags: usize) {
        let buffer = vec![u16::MAX; tags].into_boxed_slice();
        let id = u16::try_from(self.inbox.len()).unwrap();
        let at = usize::from(self.tail % ENTRIES) * 16;
        let entry = &mut self.ring.0[at..at + 14];
        entry[..8].copy_from_slice(&(buffer.as_ptr() as u64).to_ne_bytes());
        entry[8..12].copy_from_slice(&u32::try_from(tags * 2).unwrap().to_ne_bytes());
        entry[12..14].copy_from_slice(&id.to_ne_bytes());
        self.inbox.push(buffer);
        self.tail += 1;
        // SAFETY: aligned and within the page; no other code writes the page.
        let tail = unsafe { AtomicU16::from_ptr(self.ring.0.as_mut_ptr().add(14).cast()) };
        // Release: the entry comes before the tail that announces the entry.
        tail.store(self.tail, Ordering::Release);
    }

    /// The tags in a completion.
    pub(super) fn tags(&self, done: &Completion) -> Vec<u16> {
        const BUFFER: u32 = 1;
        assert_eq!(done.user_data, FETCH, "{done:?}");
        assert_eq!(done.flags & BUFFER, BUFFER);
        let buffer = &self.inbox[(done.flags >> 16) as usize];
        let count = usize::try_from(done.result).unwrap() / 2;
        // SAFETY: `count` tags of the buffer; volatile, because the model has written the tags.
        (0..count).map(|at| unsafe { buffer.as_ptr().add(at).read_volatile() }).collect()
    }

    /// Runs the device until a completion with tags has come.
    pub(super) fn take(&mut self) -> Vec<u16> {
        const MORE: u32 = 2;
        let all = self.rig.turn();
        assert_eq!(all.len(), 1, "{all:?}");
        assert_eq!(all[0].flags & MORE, MORE, "{all:?}");
        self.tags(&all[0])
    }

    pub(super) fn prep(&mut self, tags: &[u16]) -> Sqe {
        self.command(UBLK_U_IO_PREP_IO_CMDS, &answers(tags, 0), PREP)
    }

    pub(super) fn commit(&mut self, answers: &[Answer]) -> Sqe {
        self.command(UBLK_U_IO_COMMIT_IO_CMDS, answers, COMMIT)
    }

    /// A commit with an append's landing place, in sectors.
    pub(super) fn commit_landed(&mut self, tag: u16, result: i32, sector: u64) -> Sqe {
        let header = ublk_elem_header { tag, buf_index: tag, result };
        let words: Box<[u64]> = [u64::from_ne_bytes(header.to_bytes()), sector].into();
        let flags = UBLK_BATCH_F_HAS_ZONE_LBA;
        let header = ublk_batch_io { flags, nr_elem: 1, elem_bytes: 16, ..Default::default() };
        let sqe = batch_sqe(UBLK_U_IO_COMMIT_IO_CMDS, header, words.as_ptr() as u64, COMMIT);
        self.elements.push(words);
        sqe
    }

    /// Commits, and returns the result.
    pub(super) fn answer(&mut self, tags: &[u16], result: i32) -> i32 {
        let commit = self.commit(&answers(tags, result));
        self.rig.push(&commit);
        let all = self.rig.turn();
        assert_eq!(all.len(), 1, "{all:?}");
        assert_eq!(all[0].user_data, COMMIT);
        all[0].result
    }

    /// The elements in the form of the device's mode: with the buffer's address, or with the slot
    /// of the tag's number.
    fn command(&mut self, op: u32, answers: &[Answer], user_data: u64) -> Sqe {
        let copies = self.rig.sim.lock().devices[0].copies();
        let words = answers.iter().flat_map(|&Answer { tag, result }| {
            let header = ublk_elem_header { tag, buf_index: tag, result };
            let buffer = self.rig.buffers.get(usize::from(tag)).map_or(0, |b| b.as_ptr() as u64);
            [Some(u64::from_ne_bytes(header.to_bytes())), copies.then_some(buffer)]
        });
        let words: Box<[u64]> = words.flatten().collect();
        let header = ublk_batch_io {
            flags: if copies { UBLK_BATCH_F_HAS_BUF_ADDR } else { 0 },
            nr_elem: u16::try_from(answers.len()).unwrap(),
            elem_bytes: if copies { 16 } else { 8 },
            ..Default::default()
        };
        let sqe = batch_sqe(op, header, words.as_ptr() as u64, user_data);
        self.elements.push(words);
        sqe
    }
}

/// A stepped system with these faults.
pub(super) fn faulty(faults: Faults) -> SimConfig {
    SimConfig { faults, ..SimConfig::stepping(1) }
}

/// Submits several requests to any queue.
pub(super) fn submit(client: &Client, count: u64, op: impl Fn(u64) -> ClientOp) {
    for at in 0..count {
        client.submit(&op(at), None);
    }
}

/// The same command with other words in the header.
pub(super) fn with(sqe: Sqe, change: impl FnOnce(&mut ublk_batch_io)) -> Sqe {
    let mut header = sqe.batch_io();
    change(&mut header);
    let other = batch_sqe(0, header, 0, 0);
    Sqe { addr3: other.addr3, pad: other.pad, ..sqe }
}
