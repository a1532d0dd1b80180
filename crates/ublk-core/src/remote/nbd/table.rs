//! The jobs of a session that have no answer yet.

use std::collections::VecDeque;
use std::time::Instant;

use ublk_nbd::client::Cover;

use crate::remote::Job;

/// How far a job has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// No job.
    Free,
    /// The request waits to be sent.
    Waiting,
    /// An entry in flight sends the request.
    Sending,
    /// The server has the request.
    Sent,
}

/// A place for a job.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) job: Job,
    pub(super) stage: Stage,
    /// Counts the requests sent for jobs of this slot: tells a request from earlier ones.
    generation: u32,
    /// What of a read has come.
    pub(super) cover: Cover,
    /// The first error of the reply, positive; 0: none.
    pub(super) errno: i32,
    /// The result, where the reply has ended before the entry that sends the request.
    pub(super) early: Option<i32>,
    /// When a connection was first lost with the job.
    pub(super) lost: Option<Instant>,
}

/// All jobs, and the order of those to be sent.
#[derive(Debug)]
pub(super) struct Table {
    slots: Box<[Slot]>,
    free: Vec<u16>,
    waiting: VecDeque<u16>,
}

impl Table {
    /// # Panics
    /// Beyond 65,535 jobs.
    pub(super) fn new(capacity: usize, none: Job) -> Self {
        let slot = |_| Slot {
            job: none,
            stage: Stage::Free,
            generation: 0,
            cover: Cover::default(),
            errno: 0,
            early: None,
            lost: None,
        };
        let count = u16::try_from(capacity).expect("fewer steps than 65,536 at a time");
        Self {
            slots: (0..count).map(slot).collect(),
            free: (0..count).rev().collect(),
            waiting: VecDeque::with_capacity(capacity),
        }
    }

    pub(super) fn add(&mut self, job: Job) {
        let number = self.free.pop().expect("no more jobs than the session's capacity");
        let slot = &mut self.slots[usize::from(number)];
        (slot.job, slot.lost) = (job, None);
        self.wait(number);
    }

    /// Puts a job at the end of those to be sent, as if never sent.
    fn wait(&mut self, number: u16) {
        let slot = &mut self.slots[usize::from(number)];
        slot.stage = Stage::Waiting;
        (slot.cover, slot.errno, slot.early) = (Cover::default(), 0, None);
        self.waiting.push_back(number);
    }

    /// The next job to be sent, with the cookie of the request.
    pub(super) fn next(&mut self) -> Option<(u16, u64, Job)> {
        let number = self.waiting.pop_front()?;
        let slot = &mut self.slots[usize::from(number)];
        slot.stage = Stage::Sending;
        slot.generation = slot.generation.wrapping_add(1);
        let cookie = u64::from(slot.generation) << 32 | u64::from(number);
        Some((number, cookie, slot.job))
    }

    pub(super) fn slot(&mut self, number: u16) -> &mut Slot {
        &mut self.slots[usize::from(number)]
    }

    /// The job of a reply with this cookie, if there is one whose reply has not ended.
    pub(super) fn find(&mut self, cookie: u64) -> Option<u16> {
        let number = u16::try_from(cookie & u64::from(u32::MAX)).ok()?;
        let slot = self.slots.get(usize::from(number))?;
        let sent = matches!(slot.stage, Stage::Sending | Stage::Sent) && slot.early.is_none();
        (sent && u64::from(slot.generation) == cookie >> 32).then_some(number)
    }

    /// Whether there is no job.
    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    pub(super) fn free(&mut self, number: u16) {
        self.slots[usize::from(number)].stage = Stage::Free;
        self.free.push(number);
    }

    /// Lets all jobs wait to be sent again, those not sent before last. No entry names the jobs' memory.
    pub(super) fn resend(&mut self, now: Instant) {
        let waiting = self.waiting.len();
        for number in 0..self.slots.len() {
            let slot = &mut self.slots[number];
            if matches!(slot.stage, Stage::Sending | Stage::Sent) {
                slot.lost.get_or_insert(now);
                // Fits: see `new`.
                self.wait(u16::try_from(number).unwrap_or(u16::MAX));
            }
        }
        self.waiting.rotate_left(waiting);
    }

    /// Removes the waiting jobs that `fails` picks, and tells `failed`.
    pub(super) fn give_up(&mut self, fails: impl Fn(&Slot) -> bool, mut failed: impl FnMut(Job)) {
        for _ in 0..self.waiting.len() {
            let Some(number) = self.waiting.pop_front() else { return };
            let slot = &self.slots[usize::from(number)];
            if fails(slot) {
                failed(slot.job);
                self.free(number);
            } else {
                self.waiting.push_back(number);
            }
        }
    }
}
