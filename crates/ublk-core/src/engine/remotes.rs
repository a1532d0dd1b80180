//! Steps on remotes: the engine gives the steps to sessions, and takes the sessions' answers for
//! completions.

use std::io;
use std::mem;
use std::sync::Arc;

use io_uring::squeue::Entry;

use super::entries::Bytes;
use super::{Engine, Outcome};
use crate::driver::Ring;
use crate::memory::Region;
use crate::pass::Pass;
use crate::remote::{Entries, Job, Remote, Session, Ticket};
use crate::tag::Tag;
use crate::targets::{Place, Target};
use crate::token::{Kind, Token};

/// The sessions of a queue, one for each remote of the target.
#[derive(Debug, Default)]
pub(crate) struct Remotes {
    sessions: Vec<Box<dyn Session>>,
    /// The seat is in the list of seats with work at the end of the pass.
    put_off: bool,
}

impl Remotes {
    /// Begins a session per remote, each for so many steps at a time.
    ///
    /// # Errors
    /// Those of [`Remote::begin`].
    pub(crate) fn begin(remotes: &[Arc<dyn Remote>], capacity: usize) -> io::Result<Self> {
        let begin = |remote: &Arc<dyn Remote>| Arc::clone(remote).begin(capacity);
        let sessions = remotes.iter().map(begin).collect::<io::Result<_>>()?;
        Ok(Self { sessions, put_off: false })
    }

    /// The memory of the sessions.
    pub(crate) fn memory(&self) -> impl Iterator<Item = &Arc<Region>> {
        self.sessions.iter().map(|session| session.memory())
    }

    /// Ends all sessions, whose jobs have been answered; returns whether no entry is in flight.
    pub(crate) fn close(&mut self) -> bool {
        self.sessions.iter_mut().for_each(|session| session.close());
        self.sessions.iter().all(|session| session.is_idle())
    }

    /// Called when the reactor ends: leaks the memory that entries in flight may still use.
    pub(crate) fn abandon(&mut self) {
        if !self.close() {
            mem::forget(mem::take(&mut self.sessions));
        }
    }
}

/// The reactor's ring for the session with this number.
struct Way<'a, 'b, R> {
    pass: &'a mut Pass<'b, R>,
    session: u16,
}

impl<R: Ring> Entries for Way<'_, '_, R> {
    unsafe fn push(&mut self, entry: Entry, number: u8) -> io::Result<()> {
        self.pass.reserve(1)?;
        let token = Token { step: number, ..Token::numbered(Kind::Session, self.session) };
        // SAFETY: passed on to our caller.
        unsafe { self.pass.push(entry, token) };
        Ok(())
    }
}

impl<T: Target> Engine<T> {
    /// Gives a step to the session of the step's remote.
    #[cold]
    pub(super) fn start_remote<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        token: Token,
        bytes: Bytes,
    ) {
        let index = token.tag.index() * self.max_steps + usize::from(token.step);
        let (step, from) = (self.steps[index], self.progress[index].from);
        let memory = match (step.place, bytes) {
            (Place::Own, _) => self.own(&step, from),
            (Place::Request, Bytes::Memory(base)) => base.wrapping_add((step.at + from) as usize),
            (Place::Request, Bytes::Slot(_)) if !step.uses_buffer() => std::ptr::null_mut(),
            // `needs::check_remotes` has refused such devices.
            other => unreachable!("no address of {other:?} for a remote"),
        };
        self.flights[token.tag.index()].pending += 1;
        let job = Job {
            ticket: Ticket { tag: token.tag, step: token.step },
            kind: step.kind,
            offset: step.offset + u64::from(from),
            length: step.length - from,
            memory,
        };
        let number = step.file & !crate::targets::REMOTE;
        // SAFETY: a tag's memory, and the target's own, stays as long as a step of the tag is pending.
        unsafe { self.remotes.sessions[usize::from(number)].start(job) };
        self.put_off(pass);
    }

    /// Comes back to the sessions at the end of the pass.
    fn put_off<R: Ring>(&mut self, pass: &mut Pass<'_, R>) {
        if !mem::replace(&mut self.remotes.put_off, true) {
            pass.put_off.push(pass.seat.number);
        }
    }

    /// An entry of a session has completed.
    pub(crate) fn remote_completed<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        token: Token,
        result: i32,
    ) {
        self.remotes.sessions[token.tag.index()].completed(token.step, result);
        self.put_off(pass);
    }

    /// Whether the end of a pass is for the sessions: the sessions have pushed their entries then.
    pub(crate) fn push_remotes<R: Ring>(&mut self, pass: &mut Pass<'_, R>) -> io::Result<bool> {
        if !mem::take(&mut self.remotes.put_off) {
            return Ok(false);
        }
        for (number, session) in (0..).zip(&mut self.remotes.sessions) {
            session.push(&mut Way { pass: &mut *pass, session: number })?;
        }
        Ok(true)
    }

    /// Takes the next answer of a session; returns the tag, and what becomes of the request.
    pub(crate) fn answered<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
    ) -> io::Result<Option<(Tag, Outcome)>> {
        let answer = self.remotes.sessions.iter_mut().find_map(|session| session.answer());
        let Some((Ticket { tag, step }, result)) = answer else { return Ok(None) };
        let outcome = self.completed(pass, Token { kind: Kind::Step, tag, step }, result)?;
        Ok(Some((tag, outcome)))
    }

    /// Whether there are sessions, which need [`tick_remotes`](Self::tick_remotes).
    pub(crate) fn has_remotes(&self) -> bool {
        !self.remotes.sessions.is_empty()
    }

    /// A second has passed.
    pub(crate) fn tick_remotes<R: Ring>(&mut self, pass: &mut Pass<'_, R>) {
        if self.has_remotes() {
            self.remotes.sessions.iter_mut().for_each(|session| session.tick());
            self.put_off(pass);
        }
    }

    /// Begins the sessions' connections.
    pub(crate) fn enter_remotes<R: Ring>(&mut self, pass: &mut Pass<'_, R>) {
        if self.has_remotes() {
            self.put_off(pass);
        }
    }
}

impl<T> Engine<T> {
    /// As [`Remotes::close`].
    pub(crate) fn close_remotes(&mut self) -> bool {
        self.remotes.close()
    }

    /// As [`Remotes::abandon`].
    pub(crate) fn abandon_remotes(&mut self) {
        self.remotes.abandon();
    }
}
