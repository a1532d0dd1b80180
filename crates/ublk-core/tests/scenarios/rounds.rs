//! A target whose requests take several rounds: one without steps, then each half of the request, with
//! pauses between them, and a round in which a read's bytes are zeroed before they are read. Of some reads and
//! writes the first round is the last.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use ublk_core::targets::{Ended, Errno, Next, Op, Part, Plan, Request, Step, StepKind, Target};

use crate::scenario::SECTOR;

/// The requests in rounds of a run.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    /// The number of requests that have asked and not ended.
    running: AtomicI64,
    asked: AtomicU64,
    /// The end of some requests will never be reported.
    deserted: AtomicBool,
}

/// The contents of a ticket: the round planned last, and the number of repeated rounds.
#[derive(Clone, Copy)]
struct Ticket {
    phase: u64,
    retries: u16,
}

impl Ticket {
    fn new(phase: u64) -> Self {
        Self { phase, retries: 0 }
    }

    fn pack(self) -> u64 {
        self.phase | u64::from(self.retries) << 8
    }

    fn unpack(ticket: u64) -> Self {
        Self { phase: ticket & 0xff, retries: u16::try_from(ticket >> 8).unwrap() }
    }
}

const EMPTY: u64 = 1;
const ZEROED: u64 = 2;
const FIRST: u64 = 3;
const SECOND: u64 = 4;
const WHOLE: u64 = 5;

impl Rounds {
    pub(crate) fn plan(
        &self,
        target: &dyn Target,
        request: &Request,
        plan: &mut Plan<'_>,
    ) -> Result<(), Errno> {
        let transfers = matches!(request.op, Op::Read | Op::Write);
        if transfers && self.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(3) {
            target.plan(request, plan)?;
            plan.ask_last(Ticket::new(WHOLE).pack());
        } else {
            plan.ask(Ticket::new(EMPTY).pack());
        }
        self.running.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn next(
        &self,
        target: &dyn Target,
        request: &Request,
        ended: Ended,
        plan: &mut Plan<'_>,
    ) -> Next {
        let ticket = Ticket::unpack(ended.ticket);
        let next = match ended.result {
            Err(errno) => self.again(target, request, (ticket, errno), plan),
            Ok(()) => self.go_on(target, request, ticket, plan),
        };
        if matches!(next, Next::Done | Next::Fail(_)) {
            self.ended();
        }
        next
    }

    fn go_on(
        &self,
        target: &dyn Target,
        request: &Request,
        ticket: Ticket,
        plan: &mut Plan<'_>,
    ) -> Next {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        if ticket.phase != WHOLE && asked % 5 == 1 {
            return Next::Park(u32::try_from(asked % 3).unwrap() * 50);
        }
        let phase = match ticket.phase {
            EMPTY if request.op == Op::Read && asked.is_multiple_of(2) => {
                let length = request.length;
                plan.push(Step { kind: StepKind::Zeros, length, ..Step::EMPTY });
                plan.ask(Ticket::new(ZEROED).pack());
                return Next::Round;
            }
            EMPTY | ZEROED => FIRST,
            FIRST if half(request, SECOND).is_some() => SECOND,
            _ => return Next::Done,
        };
        let (at, piece) = half(request, phase).expect("checked");
        let planned = plan.part(Part { at, ..Part::default() }, |plan| target.plan(&piece, plan));
        plan.ask(Ticket::new(phase).pack());
        planned.map_or_else(Next::Fail, |()| Next::Round)
    }

    /// A round has failed: asks the target below for another plan.
    fn again(
        &self,
        target: &dyn Target,
        request: &Request,
        (ticket, errno): (Ticket, Errno),
        plan: &mut Plan<'_>,
    ) -> Next {
        let Ticket { phase, retries } = ticket;
        if phase < FIRST {
            return Next::Fail(errno);
        }
        let (at, piece) = half(request, phase).expect("it was planned");
        let ended = Ended { round: retries, ..Ended::failed(errno) };
        let mut next = Next::Done;
        let part = Part { at, ..Part::default() };
        let _ = plan.part(part, |plan| {
            next = target.next(&piece, ended, plan);
            Ok(())
        });
        if matches!(next, Next::Done | Next::Round) {
            plan.ask(Ticket { phase, retries: retries + 1 }.pack());
            return Next::Round;
        }
        next
    }

    pub(crate) fn ended(&self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn desert(&self) {
        self.deserted.store(true, Ordering::Relaxed);
    }

    /// Checks that the target has heard of the end of every request that has asked, once.
    pub(crate) fn check(&self) -> Result<(), String> {
        let running = self.running.load(Ordering::Relaxed);
        if running == 0 || running > 0 && self.deserted.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(format!("{running} requests in rounds have not heard of their end, or heard it twice"))
    }
}

/// The part of the request for a round, and the beginning of the part in the request's bytes; none for the
/// second round of a request of one sector.
fn half(request: &Request, phase: u64) -> Option<(u32, Request)> {
    if phase == WHOLE {
        return Some((0, *request));
    }
    let sector = u32::try_from(SECTOR).unwrap();
    let sectors = request.length / sector;
    if !matches!(request.op, Op::Read | Op::Write) || sectors < 2 {
        return (phase == FIRST).then_some((0, *request));
    }
    let middle = sectors / 2 * sector;
    Some(if phase == FIRST {
        (0, Request { length: middle, ..*request })
    } else {
        let offset = request.offset + u64::from(middle);
        (middle, Request { offset, length: request.length - middle, ..*request })
    })
}
