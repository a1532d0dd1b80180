//! Targets one behind another (device-mapper's `linear`).

use std::iter;

use super::children::{Children, Layer, Piece, Question, refused};
use super::native::Native;
use super::{Errno, Geometry, Op, Plan, Presentation, Request};
use crate::error::Result;

/// The second target begins where the first ends, and so on.
#[derive(Debug)]
pub struct Linear {
    children: Children,
    /// Where each child ends, in bytes of the device.
    ends: Box<[u64]>,
    geometry: Geometry,
}

impl Linear {
    /// `targets` one behind another. Of each, what does not fill a last block is not used.
    ///
    /// # Errors
    /// `InvalidArgument` when there are none or more than 64, or striped ones do not fit together.
    pub fn new(targets: Vec<Native>) -> Result<Self> {
        let children = Children::new("linear", targets)?;
        let merged = children.geometry(0);
        let block = u64::from(merged.logical_block);
        let ends = children.geometries().scan(0, |end, child| {
            *end += child.size / block * block;
            Some(*end)
        });
        let ends: Box<[u64]> = ends.collect();
        let size = ends.last().copied().unwrap_or(0);
        let chunk = common_chunk(&children, &ends)?;
        Ok(Self { children, ends, geometry: Geometry { size, chunk, ..merged } })
    }

    /// The same, as a user asks for it.
    ///
    /// # Errors
    /// `InvalidArgument` for a block size that the kernel does not take, or below the target's own.
    pub fn presented(self, asked: Presentation) -> Result<Self> {
        Ok(Self { geometry: self.geometry.presented(asked)?, ..self })
    }

    fn pieces(
        &self,
        question: Question,
        request: &Request,
        plan: &mut Plan<'_>,
    ) -> std::result::Result<(), Errno> {
        let (mut offset, end) = (request.offset, request.offset + u64::from(request.length));
        if end > self.geometry.size {
            return Err(Errno(libc::EINVAL));
        }
        let mut child = self.ends.partition_point(|&end| end <= offset);
        while offset < end {
            let begin = if child == 0 { 0 } else { self.ends[child - 1] };
            let piece = Piece {
                child,
                at: offset - request.offset,
                length: self.ends[child].min(end) - offset,
                offset: offset - begin,
            };
            self.children.ask(piece, question, request, plan)?;
            offset += piece.length;
            child += 1;
        }
        Ok(())
    }
}

/// Where requests must be cut for those children that have such a rule.
fn common_chunk(children: &Children, ends: &[u64]) -> Result<u64> {
    let chunk = children.geometries().map(|one| one.chunk).max().unwrap_or(0);
    let begins = iter::once(0).chain(ends.iter().copied());
    let fits = |(one, begin): (&Geometry, u64)| {
        one.chunk == 0 || one.chunk == chunk && begin.is_multiple_of(chunk)
    };
    if children.geometries().zip(begins).all(fits) {
        return Ok(chunk);
    }
    Err(refused(format!(
        "striped targets inside of linear must all have stripes of {chunk} bytes, \
         and begin at a multiple of that"
    )))
}

impl Layer for Linear {
    fn children(&self) -> &Children {
        &self.children
    }

    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Where each child begins: the last one may grow.
    fn layout(&self) -> Option<String> {
        let begins = iter::once(0).chain(self.ends.iter().copied());
        let layouts = self.children.layouts()?;
        let placed = layouts.iter().zip(begins).map(|(one, begin)| format!("{one} at {begin}"));
        Some(format!("linear({})", placed.collect::<Vec<_>>().join(", ")))
    }

    fn answer(
        &self,
        question: Question,
        request: &Request,
        plan: &mut Plan<'_>,
    ) -> std::result::Result<(), Errno> {
        if request.op == Op::Flush {
            self.children.ask_all(question, request, plan)?;
        } else {
            self.pieces(question, request, plan)?;
        }
        plan.order_stages();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::striped::Striped;
    use super::super::testing::{file, pieces, plan, request};
    use super::*;

    fn linear() -> Linear {
        // The middle one's last half block is not used.
        Linear::new(vec![file(3, 4096), file(4, 1280), file(5, 8192)]).unwrap()
    }

    #[test]
    fn a_request_is_cut_where_a_target_ends() {
        let target = linear();
        assert_eq!(target.geometry.size, 4096 + 1024 + 8192);
        assert_eq!(pieces(&target, Op::Read, 0, 4096), [(0, 0, 0, 4096)]);
        assert_eq!(pieces(&target, Op::Write, 4096, 512), [(1, 0, 0, 512)]);
        assert_eq!(
            pieces(&target, Op::Read, 3584, 2048),
            [(0, 3584, 0, 512), (1, 0, 512, 1024), (2, 0, 1536, 512)]
        );
        assert_eq!(pieces(&target, Op::Discard, 5120, 8192), [(2, 0, 0, 8192)]);
    }

    #[test]
    fn a_request_beyond_the_end_is_refused() {
        let beyond = request(Op::Read, 4096 + 1024 + 8192 - 512, 1024);
        assert_eq!(plan(&linear(), &beyond), Err(Errno(libc::EINVAL)));
    }

    #[test]
    fn striped_targets_keep_their_stripes_whole() {
        let stripes =
            || Native::Striped(Striped::new(vec![file(3, 8192), file(4, 8192)], 4096).unwrap());
        let target = Linear::new(vec![stripes(), file(5, 512), file(6, 7680), stripes()]).unwrap();
        assert_eq!(target.geometry.chunk, 8192);
        assert!(Linear::new(vec![file(5, 512), stripes()]).is_err());
    }

    #[test]
    fn a_flush_reaches_every_file() {
        let steps = plan(&linear(), &request(Op::Flush, 0, 0)).unwrap();
        assert_eq!(steps.iter().map(|step| step.file).collect::<Vec<_>>(), [0, 1, 2]);
    }
}
