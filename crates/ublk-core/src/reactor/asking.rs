//! Queues whose requests a peer beyond a bridge answers.

use std::io;

use super::Waker;
use super::queue::Queue;
use crate::bridge::layout::{FLAG_FUA, FLAG_NO_UNMAP, NOT_BEGUN};
use crate::bridge::{Ask, Body, Commit, Misfit, Port};
use crate::driver::Ring;
use crate::engine::{self, After, Outcome};
use crate::exchange::Bypass;
use crate::pass::Pass;
use crate::stats;
use crate::tag::Tag;
use crate::targets::{Elsewhere, Errno, Op, Reach, Remap, Request, Target, Unfit};

/// The reactor's side of a queue's bridge.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) port: Port,
    /// The operations that the peer answers, a bit each.
    ops: u32,
    /// Per tag: pieces that did not fit into the running plan.
    left: Box<[Option<Left>]>,
}

/// Pieces of an answer that wait until the plan before them has ended.
#[derive(Clone, Copy, Debug)]
struct Left {
    answer: Answer,
    reach: Reach,
}

/// The pieces of a peer's answer.
#[derive(Clone, Copy, Debug)]
struct Answer {
    count: u8,
    /// What follows the last piece.
    after: After,
}

impl Asking {
    /// The reactor's end of the queue's channel; `waker` wakes the reactor.
    pub(super) fn new(elsewhere: &dyn Elsewhere, queue: u16, waker: &Waker) -> Self {
        let depth = elsewhere.bridge().options().depth;
        let all = (0..32).filter_map(Op::of);
        let asked = all.filter(|&op| elsewhere.asks(op));
        let waker = waker.clone();
        let channel = elsewhere.bridge().channel(queue);
        Self {
            port: Port::new(channel.clone(), Box::new(move || waker.wake())),
            ops: asked.map(bit).sum(),
            left: vec![None; depth.into()].into(),
        }
    }

    /// Lets the peer commit requests past this reactor.
    pub(super) fn open(&self, bypass: Bypass) {
        self.port.open_bypass(Box::new(bypass));
    }

    /// Ends the commits past this reactor.
    #[cold]
    pub(super) fn close(&self) {
        self.port.close_bypass();
    }

    #[inline]
    pub(super) fn asks(&self, op: Op) -> bool {
        self.ops & bit(op) != 0
    }

    /// The errno of a request whose pieces cannot be planned; pieces that do not fit the request are reported.
    #[cold]
    fn errno_of(&self, tag: Tag, unfit: Unfit) -> i32 {
        match unfit {
            Unfit::Fails(errno) => errno.0,
            Unfit::Misfit(misfit) => {
                self.port.misfit(tag, misfit);
                libc::EINVAL
            }
        }
    }
}

#[inline]
fn bit(op: Op) -> u32 {
    1 << op.number()
}

impl Commit for Bypass {
    fn may_commit(&self) -> bool {
        // Only the reactor tells watchers of the end of a request.
        !stats::is_anybody_watching()
    }

    fn failure(&self, errno: i32) -> i32 {
        -engine::for_client(errno)
    }

    fn commit(&mut self, tag: Tag, result: i32, memory: *mut u8) -> io::Result<bool> {
        Self::commit(self, tag, result, memory)
    }
}

impl Ask {
    #[inline]
    fn new(request: &Request) -> Self {
        let op = request.op.number();
        let fua = if request.flags.fua() { FLAG_FUA } else { 0 };
        let no_unmap = if request.flags.no_unmap() { FLAG_NO_UNMAP } else { 0 };
        let (length, offset) = (request.length, request.offset);
        let whole = if request.op.has_data() { length } else { 0 };
        Self { op, flags: fua | no_unmap, length, offset, whole }
    }
}

impl<T: Target> Queue<T> {
    /// Asks the peer about a request.
    #[inline]
    pub(super) fn ask<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        request: Request,
        address: u64,
    ) -> io::Result<()> {
        let Some(asking) = &mut self.asking else { return Ok(()) };
        let ask = Ask::new(&request);
        let asked = match self.engine.admit(pass, tag, (request, address))? {
            Outcome::Held(0) => asking.port.ask(tag, ask),
            Outcome::Running => {
                asking.port.announce(tag, ask);
                true
            }
            _ => false,
        };
        if asked { Ok(()) } else { self.fail(pass, tag, libc::EIO) }
    }

    /// Takes all answers in the ring, and ends overdue requests.
    #[inline]
    pub(super) fn take_answers<R: Ring>(&mut self, pass: &mut Pass<'_, R>) -> io::Result<()> {
        let mut any = false;
        while let Some((tag, body)) = self.asking.as_mut().and_then(|asking| asking.port.next()) {
            any = true;
            self.answered(pass, tag, body)?;
        }
        let Some(asking) = &mut self.asking else { return Ok(()) };
        if any {
            asking.port.answered();
        }
        if asking.port.has_overdue() {
            self.end_overdue(pass)?;
        }
        Ok(())
    }

    #[inline]
    fn answered<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        body: Body,
    ) -> io::Result<()> {
        match body {
            Body::Done => self.succeed(pass, tag),
            Body::Committed(errno) => self.committed_elsewhere(pass, tag, errno),
            Body::Landed(place) => {
                self.engine.landed(tag, place);
                self.succeed(pass, tag)
            }
            Body::Failed(errno) => self.fail(pass, tag, errno),
            Body::Spoilt(errno) => self.spoil(pass, tag, errno),
            Body::Plan(count) => self.run_all(pass, tag, count, After::End),
            Body::Steps(count) => self.run_all(pass, tag, count, After::Hold),
            Body::Remap(backend, offset) => self.remap(pass, tag, backend, offset),
        }
    }

    #[inline]
    fn succeed<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag) -> io::Result<()> {
        let outcome = self.engine.answer(pass, tag, Ok(()))?;
        self.settle(pass, tag, outcome)
    }

    fn fail<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag, errno: i32) -> io::Result<()> {
        let errno = if errno > 0 { errno } else { libc::EIO };
        let outcome = self.engine.answer(pass, tag, Err(Errno(errno)))?;
        self.settle(pass, tag, outcome)
    }

    /// Counts a request that the peer has committed.
    fn committed_elsewhere<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        errno: i32,
    ) -> io::Result<()> {
        let result = if errno == 0 { Ok(()) } else { Err(Errno(errno)) };
        let outcome = self.engine.answer(pass, tag, result)?;
        debug_assert!(matches!(outcome, Outcome::Commit(_)), "there is nothing left to be done");
        Ok(())
    }

    /// Fails a request whose buffer the peer may still use, and gives the tag another buffer. The kernel reads
    /// neither buffer, since the request fails.
    #[cold]
    fn spoil<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag, errno: i32) -> io::Result<()> {
        if let Some(asking) = &mut self.asking
            && let Some(buffer) = asking.port.renew_buffer(tag)
        {
            let place = buffer.base();
            if self.engine.move_buffer(tag, buffer) {
                self.exchange.move_buffer(tag, place);
            }
        }
        self.fail(pass, tag, errno)
    }

    #[cold]
    fn end_overdue<R: Ring>(&mut self, pass: &mut Pass<'_, R>) -> io::Result<()> {
        let refused = self.asking.as_ref().map(|asking| asking.port.take_refused());
        for (tag, result) in refused.into_iter().flatten() {
            self.exchange.commit(pass, tag, result)?;
        }
        let mut from = Tag::default();
        while let Some((tag, errno)) =
            self.asking.as_mut().and_then(|asking| asking.port.next_overdue(from))
        {
            self.spoil(pass, tag, errno)?;
            from = tag.next();
        }
        Ok(())
    }

    /// Transfers a request's bytes at a place of a backend.
    #[inline]
    fn remap<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        backend: u8,
        offset: u64,
    ) -> io::Result<()> {
        let alone = self.may_link::<true>(pass) && self.engine.running() == 1;
        let express = self.engine.express_asked(pass, tag, alone, |target, request| {
            let elsewhere = target.elsewhere();
            elsewhere.map_or(Remap::Plan, |one| one.remap_of(request, backend.into(), offset))
        });
        if let Some(outcome) = express {
            return self.settle(pass, tag, outcome);
        }
        if let Some(asking) = &self.asking {
            asking.port.spell_out(tag, backend, offset);
        }
        self.run_all(pass, tag, 1, After::End)
    }

    /// Runs the pieces of the peer's answer.
    fn run_all<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        count: u8,
        after: After,
    ) -> io::Result<()> {
        self.run(pass, tag, Left { answer: Answer { count, after }, reach: Reach::default() })
    }

    /// Runs as many of the left pieces as one plan has room for.
    fn run<R: Ring>(&mut self, pass: &mut Pass<'_, R>, tag: Tag, left: Left) -> io::Result<()> {
        let alone = self.may_link::<true>(pass) && self.engine.running() == 1;
        let Some(asking) = &mut self.asking else { return Ok(()) };
        let Left { answer: answer @ Answer { count, after }, mut reach } = left;
        let ran = self.engine.run(pass, tag, alone, |target, request, plan| {
            let pieces = asking.port.pieces(tag, count).ok_or(Misfit::Count)?;
            let elsewhere = target.elsewhere().ok_or(Misfit::Op)?;
            if after == After::End {
                elsewhere.plan_of(request, &pieces, &mut reach, plan)?;
            } else {
                elsewhere.steps_of(request, &pieces, &mut reach, plan, &mut |number, unfit| {
                    let errno = asking.errno_of(tag, unfit);
                    asking.port.step_failed(tag, number, errno.cast_unsigned());
                });
            }
            let all = reach.piece >= count;
            asking.left[tag.index()] = (!all).then_some(Left { answer, reach });
            Ok(if all { after } else { After::Hold })
        });
        match ran {
            Ok(outcome) => self.settle(pass, tag, outcome?),
            Err(unfit) => {
                let errno = asking.errno_of(tag, unfit);
                self.fail(pass, tag, errno)
            }
        }
    }

    /// The steps of a request have ended: the peer hears of the end.
    #[cold]
    pub(super) fn resume<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        tag: Tag,
        errno: i32,
    ) -> io::Result<()> {
        if self.engine.has_given_up(tag) {
            self.engine.take_back(pass, tag);
            if let Some(asking) = &mut self.asking {
                asking.left[tag.index()] = None;
            }
            return Ok(());
        }
        let Some(asking) = &mut self.asking else { return Ok(()) };
        let left = asking.left[tag.index()].take();
        match left {
            Some(left) if errno == 0 => return self.run(pass, tag, left),
            Some(Left { answer: Answer { after: After::End, .. }, .. }) => {
                return self.fail(pass, tag, errno);
            }
            _ => {}
        }
        if errno != 0 {
            for (number, errno) in self.engine.failures(tag, errno) {
                let said = errno.map_or(NOT_BEGUN, i32::cast_unsigned);
                asking.port.step_failed(tag, number, said);
            }
        }
        if let Some(Left { answer, reach }) = left {
            for number in reach.piece..answer.count {
                asking.port.step_failed(tag, number, NOT_BEGUN);
            }
        }
        let asked = asking.port.resume(tag, errno != 0);
        if asked { Ok(()) } else { self.fail(pass, tag, libc::EIO) }
    }
}
