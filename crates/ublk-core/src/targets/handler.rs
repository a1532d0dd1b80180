//! A target whose requests are answered by a handler beyond a bridge: a TypeScript object.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use super::children::{self, Children, Question, refused};
use super::native::Native;
use super::{
    DiscardLimits, Durability, Elsewhere, Errno, Geometry, Op, Plan, Reach, Remap, Request, Target,
    Unfit, ZonedLimits,
};
use crate::bridge::{Bridge, Misfit, Piece, Pieces};
use crate::error::Result;
use crate::remote::Remote;

/// The most steps of one plan: the engine counts them in 8 bits.
const MOST_STEPS: usize = 250;

/// What a handler is to be.
#[derive(Debug)]
pub struct HandlerOptions {
    /// The device's size in bytes.
    pub size: u64,
    /// The unit of addressing in bytes; absent: what the neediest backend needs, else 512.
    pub logical_block: Option<u32>,
    /// The kinds of requests that it answers. A flush that it does not answer goes to all
    /// backends; without backends, the device has no volatile cache.
    pub ops: Vec<Op>,
    /// Whether its writes heed FUA; absent: if its backends do, and it leaves flushes to them.
    pub fua: Option<bool>,
    /// Whether it refuses writes.
    pub read_only: bool,
    /// Its zones, where it has any; it answers what zoned devices are asked for.
    pub zones: Option<HandlerZones>,
    /// What it can say that bytes are on.
    pub backends: Vec<Native>,
    /// The way to it.
    pub bridge: Arc<Bridge>,
}

/// The zones of a handler, which it keeps the state of.
#[derive(Clone, Copy, Debug)]
pub struct HandlerZones {
    /// In bytes, a power of two.
    pub size: u64,
    /// How many there can be open and active.
    pub limits: ZonedLimits,
}

/// A handler's part on this side.
#[derive(Debug)]
pub struct Handler {
    geometry: Geometry,
    ops: Vec<Op>,
    backends: Option<Children>,
    max_steps: usize,
    bridge: Arc<Bridge>,
}

impl Handler {
    /// # Errors
    /// `InvalidArgument`: it answers neither reads nor writes; a backend is a handler; blocks that
    /// are smaller than a backend's.
    pub fn new(options: HandlerOptions) -> Result<Self> {
        let HandlerOptions { size, logical_block, ops, fua, read_only, zones, .. } = options;
        let HandlerOptions { backends, bridge, .. } = options;
        if !ops.contains(&Op::Read) {
            return Err(refused("the handler does not answer reads".into()));
        }
        let max_pieces = usize::from(bridge.options().max_pieces);
        let longest = backends.iter().map(Target::max_steps).max().unwrap_or(0);
        let backends = match backends.is_empty() {
            true => None,
            false => Some(Children::new("the handler", backends)?),
        };
        let below = backends.as_ref().map(|children| children.geometry(size));
        let needed = below.map_or(512, |below| below.logical_block);
        let block = logical_block.unwrap_or(needed);
        if block < needed {
            return Err(refused(format!(
                "blockSize is {block}; a backend needs blocks of {needed} bytes"
            )));
        }
        let flushes = ops.contains(&Op::Flush);
        let cached = below.is_some_and(|below| below.volatile_cache);
        let geometry = Geometry {
            logical_block: block,
            physical_block: below.map_or(4096, |below| below.physical_block).max(block),
            read_only: read_only || !ops.contains(&Op::Write),
            volatile_cache: flushes || cached,
            fua: fua.unwrap_or(!flushes && below.is_some_and(|below| below.fua)),
            discard: discard_limits(&ops, block),
            ..below.unwrap_or(Geometry::new(size))
        };
        let geometry = match zones {
            Some(HandlerZones { size: chunk, limits }) => {
                Geometry { chunk, zoned: Some(limits), discard: None, ..geometry }
            }
            None => geometry,
        };
        let all = backends.as_ref().map_or(0, Children::max_steps);
        let max_steps = (max_pieces * longest).max(all).min(MOST_STEPS);
        Ok(Self { geometry, ops, backends, max_steps, bridge })
    }

    /// Adds a step that the handler asks for: with the request's buffer, or without data.
    fn add_step(
        &self,
        request: &Request,
        piece: &Piece,
        done: &mut u32,
        plan: &mut Plan<'_>,
    ) -> std::result::Result<Added, Unfit> {
        let op = op_of(piece)?;
        if op.has_data() {
            if !request.op.has_data() {
                return Err(Misfit::Op.into());
            }
            // The kernel refuses such a step on pages that it lends; in memory of ours the step would
            // change what the client has written, or store what nobody has read.
            if op.fills() != request.op.fills() {
                return Err(Misfit::Direction.into());
            }
            check_end(request, piece)?;
        }
        self.add(&Request { op, ..*request }, piece, done, plan)
    }

    /// Adds the steps of a piece behind its first `done` bytes, as far as the plan has room: several
    /// steps where the backend wants requests to be cut.
    fn add(
        &self,
        request: &Request,
        piece: &Piece,
        done: &mut u32,
        plan: &mut Plan<'_>,
    ) -> std::result::Result<Added, Unfit> {
        let backends = self.backends.as_ref().ok_or(Misfit::Backend)?;
        let child = piece.backend as usize;
        let (geometry, max_steps) = backends.child(child).ok_or(Misfit::Backend)?;
        check(&Request { offset: piece.offset, length: piece.length, ..*request }, geometry)?;
        let cut = if request.op.has_data() { geometry.chunk } else { 0 };
        loop {
            if plan.room() < max_steps {
                return Ok(Added::InPart);
            }
            let offset = piece.offset + u64::from(*done);
            // A peer that writes a shorter piece meanwhile gets nothing more of it.
            let rest = u64::from(piece.length.saturating_sub(*done));
            let length = if cut == 0 { rest } else { rest.min(cut - offset % cut) };
            let at = u64::from(piece.at) + u64::from(*done);
            let part = children::Piece { child, at, length, offset };
            backends.ask(part, Question::Plan, request, plan)?;
            #[expect(clippy::cast_possible_truncation, reason = "no longer than the piece")]
            let added = length as u32;
            *done += added;
            if *done >= piece.length {
                return Ok(Added::Whole);
            }
        }
    }
}

/// How much of a piece a plan has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Added {
    Whole,
    /// The plan is full.
    InPart,
}

fn op_of(piece: &Piece) -> std::result::Result<Op, Misfit> {
    u8::try_from(piece.op).ok().and_then(Op::of).ok_or(Misfit::Op)
}

/// Whether a piece ends inside of its request.
fn check_end(request: &Request, piece: &Piece) -> std::result::Result<(), Misfit> {
    let end = piece.at.checked_add(piece.length).ok_or(Misfit::BeyondRequest)?;
    if end > request.length { Err(Misfit::BeyondRequest) } else { Ok(()) }
}

fn discard_limits(ops: &[Op], block: u32) -> Option<DiscardLimits> {
    /// Below 4 GiB, a multiple of any block.
    const LONGEST: u32 = !4095;
    let limit = |op| if ops.contains(&op) { LONGEST } else { 0 };
    let limits = DiscardLimits {
        granularity: block.max(4096),
        max_discard: limit(Op::Discard),
        max_write_zeroes: limit(Op::WriteZeroes),
    };
    (limits.max_discard > 0 || limits.max_write_zeroes > 0).then_some(limits)
}

/// Whether a backend can do what it is asked for, there.
fn check(there: &Request, backend: &Geometry) -> std::result::Result<(), Misfit> {
    let &Request { op, offset, length, .. } = there;
    if op == Op::Flush {
        return Ok(());
    }
    // A power of two.
    let within_block = u64::from(backend.logical_block - 1);
    let end = offset.checked_add(length.into()).ok_or(Misfit::BeyondBackend)?;
    if length == 0 || (offset | u64::from(length)) & within_block != 0 {
        return Err(Misfit::Alignment);
    }
    if end > backend.size {
        return Err(Misfit::BeyondBackend);
    }
    if backend.read_only && op != Op::Read {
        return Err(Misfit::Op);
    }
    Ok(())
}

impl Target for Handler {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn files(&self) -> &[RawFd] {
        self.backends.as_ref().map_or(&[], Children::files)
    }

    fn remotes(&self) -> &[Arc<dyn Remote>] {
        self.backends.as_ref().map_or(&[], Children::remotes)
    }

    fn durability(&self) -> &Durability {
        self.backends.as_ref().map_or(Durability::NONE, Children::durability)
    }

    fn max_steps(&self) -> usize {
        self.max_steps
    }

    fn longest_wait(&self) -> Duration {
        self.backends.as_ref().map_or(Duration::ZERO, Children::longest_wait)
    }

    /// What the handler is not asked for: flushes.
    fn plan(&self, request: &Request, plan: &mut Plan<'_>) -> std::result::Result<(), Errno> {
        match &self.backends {
            Some(backends) if request.op == Op::Flush => {
                backends.ask_all(Question::Plan, request, plan)?;
                plan.order_stages();
                Ok(())
            }
            _ => Err(Errno(libc::EOPNOTSUPP)),
        }
    }

    fn elsewhere(&self) -> Option<&dyn Elsewhere> {
        Some(self)
    }
}

impl Elsewhere for Handler {
    fn bridge(&self) -> &Arc<Bridge> {
        &self.bridge
    }

    fn asks(&self, op: Op) -> bool {
        self.ops.contains(&op)
    }

    fn plan_of(
        &self,
        request: &Request,
        pieces: &Pieces<'_>,
        reach: &mut Reach,
        plan: &mut Plan<'_>,
    ) -> std::result::Result<(), Unfit> {
        if *reach == Reach::default() && request.op != Op::Flush {
            pieces.cover(request.length, request.op != Op::Read)?;
        }
        for piece in pieces.iter().skip(reach.piece.into()) {
            if op_of(&piece)? != request.op {
                return Err(Misfit::Op.into());
            }
            check_end(request, &piece)?;
            if self.add(request, &piece, &mut reach.done, plan)? == Added::InPart {
                break;
            }
            reach.pass();
        }
        plan.order_stages();
        Ok(())
    }

    fn remap_of(&self, request: &Request, backend: usize, offset: u64) -> Remap {
        let Some(backends) = &self.backends else { return Remap::Plan };
        let there = Request { offset, ..*request };
        match backends.child(backend) {
            Some((geometry, _)) if check(&there, geometry).is_ok() => {
                backends.remap(backend, &there)
            }
            _ => Remap::Plan,
        }
    }

    fn steps_of(
        &self,
        request: &Request,
        pieces: &Pieces<'_>,
        reach: &mut Reach,
        plan: &mut Plan<'_>,
        refuse: &mut dyn FnMut(u8, Unfit),
    ) {
        for piece in pieces.iter().skip(reach.piece.into()) {
            let Reach { piece: number, done } = reach;
            match plan.step(*number, |plan| self.add_step(request, &piece, done, plan)) {
                Ok(Added::Whole) => {}
                Ok(Added::InPart) => break,
                Err(unfit) => refuse(*number, unfit),
            }
            reach.pass();
        }
        plan.order_stages();
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::AlwaysFails;
    use super::super::striped::Striped;
    use super::super::testing::{file, request};
    use super::super::{Step, StepKind, ZoneOp};
    use super::*;
    use crate::bridge::BridgeOptions;

    fn handler(ops: &[Op], backends: Vec<Native>) -> Result<Handler> {
        let bridge =
            BridgeOptions { queues: 1, depth: 1, max_pieces: 4, timeout: Duration::from_secs(1) };
        Handler::new(HandlerOptions {
            size: 1 << 20,
            logical_block: None,
            ops: ops.to_vec(),
            fua: None,
            read_only: false,
            zones: None,
            backends,
            bridge: Arc::new(Bridge::unwatched(&bridge).unwrap()),
        })
    }

    const BOTH: [Op; 2] = [Op::Read, Op::Write];

    fn piece(backend: u32, op: Op, at: u32, offset: u64, length: u32) -> Piece {
        Piece { backend, op: op.number().into(), at, length, offset }
    }

    /// Of a step: file, offset there, place in the buffer, length.
    type Part = (u16, u64, u32, u32);

    /// The steps of all plans of `pieces`.
    fn plan(
        handler: &Handler,
        request: &Request,
        pieces: &[Piece],
    ) -> std::result::Result<Vec<Part>, Unfit> {
        Ok(plans(handler, request, pieces)?.concat())
    }

    /// The steps of each plan of `pieces`.
    fn plans(
        handler: &Handler,
        request: &Request,
        pieces: &[Piece],
    ) -> std::result::Result<Vec<Vec<Part>>, Unfit> {
        let (mut reach, mut plans) = (Reach::default(), Vec::new());
        while usize::from(reach.piece) < pieces.len() {
            let mut steps = vec![Step::EMPTY; handler.max_steps()];
            let mut plan = Plan::new(&mut steps);
            Pieces::with(pieces, |pieces| handler.plan_of(request, pieces, &mut reach, &mut plan))?;
            let part = |step: &Step| (step.file, step.offset, step.at, step.length);
            plans.push(plan.steps().iter().map(part).collect());
        }
        Ok(plans)
    }

    /// Which of the steps that are asked for those of the plan belong to, and which are refused.
    fn planned(
        handler: &Handler,
        request: &Request,
        pieces: &[Piece],
    ) -> (Vec<u8>, Vec<(u8, Unfit)>) {
        let mut steps = vec![Step::EMPTY; handler.max_steps()];
        let mut plan = Plan::new(&mut steps);
        let mut refused = Vec::new();
        Pieces::with(pieces, |pieces| {
            let mut refuse = |number, unfit| refused.push((number, unfit));
            handler.steps_of(request, pieces, &mut Reach::default(), &mut plan, &mut refuse);
        });
        (plan.steps().iter().map(|step| step.asked).collect(), refused)
    }

    #[test]
    fn what_it_answers_is_what_the_device_can() {
        let geometry = handler(&[Op::Read], vec![]).unwrap().geometry;
        assert!(geometry.read_only && !geometry.volatile_cache && geometry.discard.is_none());
        let all = [Op::Read, Op::Write, Op::Flush, Op::Discard];
        let geometry = handler(&all, vec![]).unwrap().geometry;
        assert!(!geometry.read_only && geometry.volatile_cache && !geometry.fua);
        let limits = geometry.discard.unwrap();
        assert!(limits.max_discard > 0 && limits.max_write_zeroes == 0);
        assert!(handler(&[Op::Write], vec![]).is_err());
    }

    #[test]
    fn pieces_become_steps_of_their_backends() {
        let handler = handler(&BOTH, vec![file(3, 8192), file(4, 1 << 20)]).unwrap();
        let pieces = [piece(1, Op::Read, 0, 4096, 2048), piece(0, Op::Read, 2048, 512, 2048)];
        let steps = plan(&handler, &request(Op::Read, 0, 4096), &pieces).unwrap();
        assert_eq!(steps, [(1, 4096, 0, 2048), (0, 512, 2048, 2048)]);
    }

    #[test]
    fn pieces_on_stripes_are_cut_where_a_stripe_ends() {
        let stripes = Striped::new(vec![file(3, 1 << 20), file(4, 1 << 20)], 4096).unwrap();
        let handler = handler(&BOTH, vec![Native::Striped(stripes)]).unwrap();
        let pieces = [piece(0, Op::Read, 0, 4096, 12288)];
        let steps = plan(&handler, &request(Op::Read, 0, 12288), &pieces).unwrap();
        assert_eq!(steps, [(1, 0, 0, 4096), (0, 4096, 4096, 4096), (1, 4096, 8192, 4096)]);
    }

    #[test]
    fn pieces_that_do_not_fit_are_refused() {
        let handler = handler(&BOTH, vec![file(3, 8192)]).unwrap();
        let refused = |op, pieces: &[Piece]| match plan(&handler, &request(op, 0, 4096), pieces) {
            Err(Unfit::Misfit(misfit)) => misfit,
            other => panic!("{other:?}"),
        };
        let read = |at, offset, length| piece(0, Op::Read, at, offset, length);
        assert_eq!(refused(Op::Read, &[piece(1, Op::Read, 0, 0, 4096)]), Misfit::Backend);
        assert_eq!(refused(Op::Read, &[piece(0, Op::Write, 0, 0, 4096)]), Misfit::Op);
        assert_eq!(refused(Op::Read, &[read(0, 0, 8192)]), Misfit::BeyondRequest);
        assert_eq!(refused(Op::Read, &[read(u32::MAX, 0, 4096)]), Misfit::Gap);
        assert_eq!(refused(Op::Read, &[read(0, 8192, 4096)]), Misfit::BeyondBackend);
        assert_eq!(refused(Op::Read, &[read(0, u64::MAX - 511, 4096)]), Misfit::BeyondBackend);
        assert_eq!(refused(Op::Read, &[read(0, 1, 4096)]), Misfit::Alignment);
        assert_eq!(refused(Op::Read, &[read(0, 0, 2048)]), Misfit::Gap);
        assert_eq!(refused(Op::Read, &[read(0, 0, 4096), read(0, 0, 4096)]), Misfit::Overlap);
    }

    #[test]
    fn pieces_beyond_the_room_of_one_plan_wait_for_the_next() {
        let stripes = Striped::new(vec![file(3, 1 << 20), file(4, 1 << 20)], 4096).unwrap();
        let handler = handler(&BOTH, vec![Native::Striped(stripes), file(5, 65536)]).unwrap();
        let room = handler.max_steps();
        let pieces = [
            piece(1, Op::Read, 0, 0, 512),
            piece(0, Op::Read, 512, 2048, 14 * 4096),
            piece(1, Op::Read, 512 + 14 * 4096, 0, 512),
        ];
        let request = request(Op::Read, 0, 1024 + 14 * 4096);
        let plans = plans(&handler, &request, &pieces).unwrap();
        assert!(plans.len() > 1 && plans.iter().all(|plan| plan.len() <= room), "{plans:?}");
        let steps = plans.concat();
        assert_eq!(steps.len(), 1 + 15 + 1);
        let mut reached = 0;
        for (_, _, at, length) in steps {
            assert_eq!(at, reached);
            reached += length;
        }
        assert_eq!(reached, request.length);
    }

    #[test]
    fn steps_need_not_be_the_whole_request_nor_do_what_it_does() {
        let handler = handler(&BOTH, vec![file(3, 8192)]).unwrap();
        let write = request(Op::Write, 0, 4096);
        let steps = [piece(0, Op::Write, 512, 0, 512), piece(0, Op::Flush, 0, 0, 0)];
        assert_eq!(planned(&handler, &write, &steps), ([0, 1].into(), [].into()));
        let nowhere = [piece(0, Op::Read, 0, 0, 0)];
        let refused = [(0, Unfit::Misfit(Misfit::Op))].into();
        assert_eq!(planned(&handler, &request(Op::Flush, 0, 0), &nowhere), ([].into(), refused));
    }

    #[test]
    fn a_step_that_does_not_fit_keeps_no_other_from_being_done() {
        let stripes = Striped::new(vec![file(3, 1 << 20), file(4, 1 << 20)], 4096).unwrap();
        let broken = AlwaysFails::new(1 << 20);
        let backends = vec![Native::Striped(stripes), Native::Error(broken)];
        let handler = handler(&BOTH, backends).unwrap();
        let steps = [
            piece(0, Op::Write, 4096, 0, 4096),
            piece(1, Op::Write, 0, 0, 4096),
            piece(0, Op::Write, 0, 4096, 8192),
        ];
        let refused =
            [(0, Unfit::Misfit(Misfit::BeyondRequest)), (1, Unfit::Fails(Errno(libc::EIO)))].into();
        let request = request(Op::Write, 0, 8192);
        let beyond = [piece(0, Op::Write, 4096, 0, 8192), steps[1], steps[2]];
        assert_eq!(planned(&handler, &request, &beyond), ([2, 2].into(), refused));
        assert_eq!(planned(&handler, &request, &steps).0, [0, 2, 2]);
    }

    #[test]
    fn steps_move_bytes_the_way_that_their_request_does() {
        let handler = handler(&BOTH, vec![file(3, 1 << 20)]).unwrap();
        let refused = (vec![], vec![(0, Unfit::Misfit(Misfit::Direction))]);
        let append = Op::Zone(ZoneOp::Append);
        for (asked, step) in [(Op::Write, Op::Read), (append, Op::Read), (Op::Read, Op::Write)] {
            let found = planned(&handler, &request(asked, 0, 4096), &[piece(0, step, 0, 0, 4096)]);
            assert_eq!(found, refused, "a step to {step:?} of a request to {asked:?}");
        }
        for (asked, step) in [(Op::Write, Op::Write), (append, Op::Write), (Op::Read, Op::Read)] {
            let found = planned(&handler, &request(asked, 0, 4096), &[piece(0, step, 0, 0, 4096)]);
            assert_eq!(found, (vec![0], vec![]));
        }
    }

    #[test]
    fn a_whole_request_in_one_place_of_a_file_is_remapped_and_nothing_else() {
        let stripes = Striped::new(vec![file(3, 1 << 20), file(4, 1 << 20)], 4096).unwrap();
        let backends = vec![Native::Striped(stripes), file(5, 65536)];
        let handler = handler(&BOTH, backends).unwrap();
        let request = request(Op::Write, 4096, 8192);
        let third = Remap::To { file: 2, offset: 16384 };
        assert_eq!(handler.remap_of(&request, 1, 16384), third, "behind the files of the stripes");
        for (backend, offset) in
            [(0, 16384), (2, 16384), (1, 16385), (1, 65536 - 4096), (1, u64::MAX - 511)]
        {
            let remapped = handler.remap_of(&request, backend, offset);
            assert_eq!(remapped, Remap::Plan, "{offset} of {backend}");
        }
    }

    #[test]
    fn a_flush_that_it_does_not_answer_reaches_every_backend() {
        let handler = handler(&BOTH, vec![file(3, 8192), file(4, 8192)]).unwrap();
        let mut steps = vec![Step::EMPTY; handler.max_steps()];
        let mut plan = Plan::new(&mut steps);
        handler.plan(&request(Op::Flush, 0, 0), &mut plan).unwrap();
        assert!(plan.steps().iter().all(|step| step.kind == StepKind::Sync));
        assert_eq!(plan.len(), 2);
    }
}
