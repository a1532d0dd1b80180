//! A queue's reads of a file.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::Http;
use super::reads::{End, Read};
use crate::memory::Region;
use crate::remote::ends::{Ends, Hearing};
use crate::remote::{Entries, Job, Session, Ticket};
use crate::targets::StepKind;

/// See the module.
#[derive(Debug)]
pub(super) struct HttpSession {
    remote: Arc<Http>,
    ends: Arc<Ends<End>>,
    hearing: Hearing<End>,
    /// The number of jobs that threads have.
    away: usize,
    answers: VecDeque<(Ticket, i32)>,
    /// Entries of this session name no memory.
    memory: Arc<Region>,
}

impl HttpSession {
    pub(super) fn new(remote: Arc<Http>, capacity: usize) -> io::Result<Self> {
        Ok(Self {
            remote,
            ends: Arc::new(Ends::new(capacity)?),
            hearing: Hearing::new(capacity),
            away: 0,
            answers: VecDeque::with_capacity(capacity),
            memory: Arc::new(Region::new(1)?),
        })
    }
}

impl Session for HttpSession {
    fn memory(&self) -> &Arc<Region> {
        &self.memory
    }

    unsafe fn start(&mut self, job: Job) {
        if job.kind == StepKind::Read {
            self.away += 1;
            self.remote.submit(Read { job, ends: Arc::clone(&self.ends) });
        } else {
            self.answers.push_back((job.ticket, -libc::EROFS));
        }
    }

    fn completed(&mut self, _entry: u8, _result: i32) {
        let told = self.hearing.hear(&self.ends);
        self.away -= told.len();
        self.answers.extend(&told);
        self.hearing.heard(told);
    }

    fn push(&mut self, entries: &mut dyn Entries) -> io::Result<()> {
        self.hearing.push(&self.ends, entries)
    }

    fn answer(&mut self) -> Option<(Ticket, i32)> {
        self.answers.pop_front()
    }

    fn close(&mut self) {
        self.hearing.close(&self.ends);
    }

    fn is_idle(&self) -> bool {
        self.hearing.is_idle() && self.away == 0
    }
}
