//! A queue's reads of a file. The only entry on the reactor's ring is a poll of the line's bell.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::sync::Arc;

use io_uring::opcode;
use io_uring::types::Fd;

use super::Http;
use super::reads::{Line, Read};
use crate::memory::Region;
use crate::remote::{Entries, Job, Session, Ticket};
use crate::target::StepKind;

/// The number of the only entry.
const BELL: u8 = 0;

/// See the module.
#[derive(Debug)]
pub(super) struct HttpSession {
    remote: Arc<Http>,
    line: Arc<Line>,
    /// The number of jobs that threads have.
    away: usize,
    answers: VecDeque<(Ticket, i32)>,
    /// Exchanged with the line's.
    ends: Vec<(Ticket, i32)>,
    /// A poll of the bell is in flight.
    polls: bool,
    closing: bool,
    /// Entries of this session name no memory.
    memory: Arc<Region>,
}

impl HttpSession {
    pub(super) fn new(remote: Arc<Http>, capacity: usize) -> io::Result<Self> {
        Ok(Self {
            remote,
            line: Line::new(capacity)?,
            away: 0,
            answers: VecDeque::with_capacity(capacity),
            ends: Vec::with_capacity(capacity),
            polls: false,
            closing: false,
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
            self.remote.submit(Read { job, line: Arc::clone(&self.line) });
        } else {
            self.answers.push_back((job.ticket, -libc::EROFS));
        }
    }

    fn completed(&mut self, _entry: u8, _result: i32) {
        self.polls = false;
        let mut ends = mem::take(&mut self.ends);
        self.line.take(&mut ends);
        self.away -= ends.len();
        self.answers.extend(ends.drain(..));
        self.ends = ends;
    }

    fn push(&mut self, entries: &mut dyn Entries) -> io::Result<()> {
        if !self.polls && !self.closing {
            let events = u32::from(libc::POLLIN.cast_unsigned());
            let entry = opcode::PollAdd::new(Fd(self.line.bell().fd()), events).build();
            // SAFETY: names no memory.
            unsafe { entries.push(entry, BELL)? };
            self.polls = true;
        }
        Ok(())
    }

    fn answer(&mut self) -> Option<(Ticket, i32)> {
        self.answers.pop_front()
    }

    fn close(&mut self) {
        if !mem::replace(&mut self.closing, true) {
            self.line.bell().ring();
        }
    }

    fn is_idle(&self) -> bool {
        !self.polls && self.away == 0
    }
}
