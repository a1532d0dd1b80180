//! Chunks laid over several targets in turn (device-mapper's `striped`).

use super::children::{Children, Layer, Piece, Question, refused};
use super::native::Native;
use super::{Errno, Geometry, Op, Plan, Presentation, Request};
use crate::error::Result;

/// The first chunk lies on the first target, the next on the second, and so on.
///
/// The kernel cuts requests where a stripe, one chunk of every target, ends. So each target has a
/// single piece of a request at most, and all pieces run at once.
#[derive(Debug)]
pub struct Striped {
    children: Children,
    chunk: u64,
    /// A chunk of every target, in bytes.
    width: u64,
    geometry: Geometry,
}

impl Striped {
    /// Stripes of `chunk` bytes over `targets`. What does not fill a last stripe is not used.
    ///
    /// # Errors
    /// `InvalidArgument`: not 1 to 64 targets; a chunk that is no power of two from 4 KiB to
    /// 16 MiB; a target that is smaller than a chunk, or is striped itself in shorter stripes.
    pub fn new(targets: Vec<Native>, chunk: u32) -> Result<Self> {
        if !chunk.is_power_of_two() || !(4096..=16 << 20).contains(&chunk) {
            let range = "it must be a power of two from 4096 to 16777216";
            return Err(refused(format!("chunk is {chunk}; {range}")));
        }
        let children = Children::new("striped", targets)?;
        let (chunk, count) = (u64::from(chunk), children.len() as u64);
        let smallest = children.geometries().map(|one| one.size).min().unwrap_or(0);
        if smallest < chunk {
            return Err(refused(format!(
                "the smallest target of striped has {smallest} bytes, less than a chunk of {chunk}"
            )));
        }
        if children.geometries().any(|one| !one.chunk.is_multiple_of(chunk)) {
            return Err(refused(format!(
                "a striped target inside of striped must have stripes of whole chunks of {chunk}"
            )));
        }
        let width = chunk * count;
        let merged = children.geometry(smallest / chunk * width);
        let preferred = merged.io_opt.max(u32::try_from(chunk).unwrap_or(merged.io_opt));
        let geometry = Geometry { io_min: preferred, io_opt: preferred, chunk: width, ..merged };
        Ok(Self { children, chunk, width, geometry })
    }

    /// The same, as a user asks for it.
    ///
    /// # Errors
    /// `InvalidArgument` for a block size that the kernel does not take, or below the target's own.
    pub fn presented(self, asked: Presentation) -> Result<Self> {
        Ok(Self { geometry: self.geometry.presented(asked)?, ..self })
    }

    /// One piece for each chunk that the request touches, all of one stripe.
    fn pieces(
        &self,
        question: Question,
        request: &Request,
        plan: &mut Plan<'_>,
    ) -> std::result::Result<(), Errno> {
        let (mut offset, end) = (request.offset, request.offset + u64::from(request.length));
        let stripe = offset / self.width;
        if end > (stripe + 1) * self.width {
            return Err(Errno(libc::EINVAL));
        }
        while offset < end {
            let within = offset % self.chunk;
            let piece = Piece {
                child: self.child_at(offset),
                at: offset - request.offset,
                length: (self.chunk - within).min(end - offset),
                offset: stripe * self.chunk + within,
            };
            self.children.ask(piece, question, request, plan)?;
            offset += piece.length;
        }
        Ok(())
    }

    #[expect(clippy::cast_possible_truncation, reason = "at most 64 children")]
    fn child_at(&self, offset: u64) -> usize {
        (offset % self.width / self.chunk) as usize
    }

    /// Of a range of any length, each target has one range.
    fn shares(
        &self,
        question: Question,
        request: &Request,
        plan: &mut Plan<'_>,
    ) -> std::result::Result<(), Errno> {
        let end = request.offset + u64::from(request.length);
        for child in 0..self.children.len() {
            let (from, to) = (self.before(child, request.offset), self.before(child, end));
            if from < to {
                let piece = Piece { child, at: 0, length: to - from, offset: from };
                self.children.ask(piece, question, request, plan)?;
            }
        }
        Ok(())
    }

    /// How many of the device's first `offset` bytes lie on a child.
    fn before(&self, child: usize, offset: u64) -> u64 {
        let rest = (offset % self.width).saturating_sub(child as u64 * self.chunk);
        offset / self.width * self.chunk + rest.min(self.chunk)
    }
}

impl Layer for Striped {
    fn children(&self) -> &Children {
        &self.children
    }

    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn layout(&self) -> Option<String> {
        let layouts = self.children.layouts()?.join(", ");
        Some(format!("striped(chunks of {}: {layouts})", self.chunk))
    }

    fn answer(
        &self,
        question: Question,
        request: &Request,
        plan: &mut Plan<'_>,
    ) -> std::result::Result<(), Errno> {
        match request.op {
            Op::Flush => self.children.ask_all(question, request, plan)?,
            Op::Read | Op::Write => self.pieces(question, request, plan)?,
            Op::Discard | Op::WriteZeroes => self.shares(question, request, plan)?,
            Op::Zone(_) => return Err(Errno(libc::EOPNOTSUPP)),
        }
        plan.order_stages();
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "small numbers")]
mod tests {
    use super::super::delay::{Delay, Delays};
    use super::super::testing::{file, pieces, plan, request};
    use super::super::{Ended, Next, StepKind, Target};
    use super::*;
    use crate::error::Code;

    const CHUNK: u64 = 4096;

    fn striped(sizes: &[u64]) -> Striped {
        let targets = sizes.iter().enumerate().map(|(fd, &size)| file(fd as i32, size));
        Striped::new(targets.collect(), CHUNK as u32).unwrap()
    }

    /// File and place of a block, chunk by chunk.
    fn place(offset: u64, count: u64) -> (u16, u64) {
        let chunk = offset / CHUNK;
        ((chunk % count) as u16, chunk / count * CHUNK + offset % CHUNK)
    }

    #[test]
    fn every_block_of_every_request_lies_where_its_chunk_does() {
        let target = striped(&[40960; 3]);
        let width = 3 * CHUNK;
        for first in (0..target.geometry.size).step_by(512) {
            for length in (512..=width - first % width).step_by(512) {
                let mut next = 0;
                for (file, offset, at, length) in pieces(&target, Op::Read, first, length as u32) {
                    assert_eq!(at, next);
                    next += length;
                    for block in (0..u64::from(length)).step_by(512) {
                        let here = first + u64::from(at) + block;
                        assert_eq!((file, offset + block), place(here, 3));
                    }
                }
                assert_eq!(u64::from(next), length);
            }
        }
    }

    #[test]
    fn a_discard_of_any_length_is_one_range_of_each_file() {
        let target = striped(&[40960; 3]);
        for first in (0..target.geometry.size).step_by(512) {
            for end in (first + 512..=target.geometry.size).step_by(1024) {
                let ranges = pieces(&target, Op::Discard, first, (end - first) as u32);
                let mut blocks: Vec<_> = (first..end).step_by(512).map(|at| place(at, 3)).collect();
                blocks.sort_unstable();
                let discarded = ranges.iter().flat_map(|&(file, offset, _, length)| {
                    let end = offset + u64::from(length);
                    (offset..end).step_by(512).map(move |at| (file, at))
                });
                assert_eq!(discarded.collect::<Vec<_>>(), blocks);
            }
        }
    }

    #[test]
    fn a_flush_reaches_every_file() {
        let steps = plan(&striped(&[8192; 4]), &request(Op::Flush, 0, 0)).unwrap();
        let files: Vec<_> = steps.iter().map(|step| (step.kind, step.stage, step.file)).collect();
        assert_eq!(files, [0, 1, 2, 3].map(|file| (StepKind::Sync, 0, file)));
    }

    #[test]
    fn only_whole_stripes_are_used() {
        assert_eq!(striped(&[3 * CHUNK + 512, 9 * CHUNK]).geometry.size, 6 * CHUNK);
    }

    #[test]
    fn requests_are_cut_where_a_stripe_ends() {
        let target = striped(&[8192; 2]);
        assert_eq!(target.geometry.chunk, 2 * CHUNK);
        let over = request(Op::Read, CHUNK, 2 * CHUNK as u32);
        assert_eq!(plan(&target, &over), Err(Errno(libc::EINVAL)));
    }

    #[test]
    fn stages_of_one_target_do_not_mix_with_those_of_another() {
        let late = |fd| Native::Delay(Delay::new(file(fd, 8192), Delays { read: 5, ..none() }));
        let target = Striped::new(vec![late(3), file(4, 8192), late(5)], CHUNK as u32).unwrap();
        let steps = plan(&target, &request(Op::Read, 0, 3 * CHUNK as u32)).unwrap();
        let shape = |stage| {
            let steps = steps.iter().filter(move |step| step.stage == stage);
            let mut shape: Vec<_> =
                steps.map(|step| (step.kind == StepKind::Wait, step.file)).collect();
            shape.sort_unstable();
            shape
        };
        assert_eq!(shape(0), [(false, 1), (true, 0), (true, 2)]);
        assert_eq!(shape(1), [(false, 0), (false, 2)]);
    }

    #[test]
    fn stripes_inside_of_stripes_get_requests_that_end_where_theirs_do() {
        let inner = |chunk| {
            Native::Striped(Striped::new(vec![file(3, 65536), file(4, 65536)], chunk).unwrap())
        };
        let outer = Striped::new(vec![inner(4096), inner(8192)], 8192).unwrap();
        for first in (0..outer.geometry.size).step_by(4096) {
            let length = outer.width - first % outer.width;
            assert!(!pieces(&outer, Op::Read, first, length as u32).is_empty());
        }
        assert!(Striped::new(vec![inner(4096)], 16384).is_err());
    }

    fn none() -> Delays {
        Delays::default()
    }

    #[test]
    fn a_second_attempt_asks_every_target_again() {
        let target = striped(&[8192; 2]);
        let mut steps = vec![super::super::Step::EMPTY; target.max_steps()];
        let mut plan = Plan::new(&mut steps);
        let zeros = request(Op::WriteZeroes, 0, 2 * CHUNK as u32);
        let refused = Ended::failed(Errno(libc::EOPNOTSUPP));
        assert_eq!(target.next(&zeros, refused, &mut plan), Next::Round);
        let kinds: Vec<_> = plan.steps().iter().map(|step| (step.kind, step.file)).collect();
        assert_eq!(kinds, [(StepKind::ZeroRange, 0), (StepKind::ZeroRange, 1)]);
        let broken = Ended::failed(Errno(libc::EIO));
        assert_eq!(target.next(&zeros, broken, &mut plan), Next::Fail(Errno(libc::EIO)));
    }

    #[test]
    fn bad_shapes_are_refused() {
        let two = || vec![file(3, 8192), file(4, 8192)];
        for (targets, chunk) in [
            (two(), 0),
            (two(), 512),
            (two(), 12288),
            (two(), 32 << 20),
            (two(), 16384),
            (vec![], 4096),
        ] {
            assert_eq!(Striped::new(targets, chunk).unwrap_err().code, Code::InvalidArgument);
        }
    }
}
