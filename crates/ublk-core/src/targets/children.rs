//! The targets below a layer.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use super::native::Native;
use super::{
    DiscardLimits, Durability, Ended, Errno, Geometry, Next, Part, Plan, REMOTE, Remap, Request,
    Target,
};
use crate::error::{Code, Error, Result};
use crate::remote::Remote;

/// The maximal number of a layer's children; keeps the layer's plans below 255 steps.
const MOST: usize = 64;

/// A question to a target: for the first round, or for the round after a failed round.
#[derive(Clone, Copy, Debug)]
pub enum Question {
    /// [`Target::plan`].
    Plan,
    /// [`Target::next`].
    Next(Ended),
}

impl Question {
    fn ask(
        self,
        target: &Native,
        request: &Request,
        plan: &mut Plan<'_>,
    ) -> std::result::Result<(), Errno> {
        match self {
            Self::Plan => target.plan(request, plan),
            Self::Next(ended) => match target.next(request, ended, plan) {
                Next::Done | Next::Round => Ok(()),
                Next::Fail(errno) => Err(errno),
                Next::Park(_) => unreachable!("targets that wait are not below layers"),
            },
        }
    }
}

/// A piece of a request, inside its range; all in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) child: usize,
    /// The beginning of the piece, from the request's start.
    pub(super) at: u64,
    pub(super) length: u64,
    /// The offset on the child.
    pub(super) offset: u64,
}

/// A target made of other targets; cuts requests up for these children.
pub trait Layer: Send + Sync + 'static {
    /// The children.
    fn children(&self) -> &Children;

    /// The properties of the layer for the block layer.
    fn geometry(&self) -> &Geometry;

    /// [`Target::layout`].
    fn layout(&self) -> Option<String>;

    /// Collects the children's answers to a question about a request.
    ///
    /// # Errors
    /// The errno for the failed request.
    fn answer(
        &self,
        question: Question,
        request: &Request,
        plan: &mut Plan<'_>,
    ) -> std::result::Result<(), Errno>;
}

impl<L: Layer> Target for L {
    fn geometry(&self) -> &Geometry {
        Layer::geometry(self)
    }

    fn layout(&self) -> Option<String> {
        Layer::layout(self)
    }

    fn files(&self) -> &[RawFd] {
        self.children().files()
    }

    fn remotes(&self) -> &[Arc<dyn Remote>] {
        self.children().remotes()
    }

    fn durability(&self) -> &Durability {
        self.children().durability()
    }

    fn max_steps(&self) -> usize {
        self.children().max_steps()
    }

    fn longest_wait(&self) -> Duration {
        self.children().longest_wait()
    }

    fn plan(&self, request: &Request, plan: &mut Plan<'_>) -> std::result::Result<(), Errno> {
        self.answer(Question::Plan, request, plan)
    }

    /// Any child may have failed: the layer asks all children.
    fn next(&self, request: &Request, ended: Ended, plan: &mut Plan<'_>) -> Next {
        if ended.result.is_ok() {
            return Next::Done;
        }
        match self.answer(Question::Next(ended), request, plan) {
            Ok(()) => Next::Round,
            Err(errno) => Next::Fail(errno),
        }
    }
}

#[derive(Debug)]
struct Child {
    target: Native,
    /// The index of the child's first file among the layer's files.
    files: u16,
    /// The index of the child's first remote among the layer's remotes.
    remotes: u16,
}

/// Targets below a layer, their files and remotes put together.
#[derive(Debug)]
pub struct Children {
    children: Box<[Child]>,
    files: Box<[RawFd]>,
    remotes: Box<[Arc<dyn Remote>]>,
    durability: Durability,
    max_steps: usize,
}

impl Children {
    /// # Errors
    /// `InvalidArgument` when there are none or too many, or their plans could be too long.
    pub(super) fn new(layer: &str, targets: Vec<Native>) -> Result<Self> {
        if !(1..=MOST).contains(&targets.len()) {
            return Err(refused(format!(
                "{layer} has {} targets; it must have from 1 to {MOST}",
                targets.len()
            )));
        }
        let geometries = || targets.iter().map(Target::geometry);
        if geometries().any(|one| one.zoned.is_some() || one.integrity.is_some()) {
            let what = "zoned targets, or of targets with integrity";
            return Err(refused(format!("{layer} cannot be made of {what}")));
        }
        if targets.iter().any(|target| target.elsewhere().is_some()) {
            return Err(refused(format!("a handler cannot lie below {layer}")));
        }
        // A layer hears of failures only.
        if targets.iter().any(Target::takes_rounds) {
            return Err(refused(format!("an overlay cannot lie below {layer}")));
        }
        let max_steps = targets.iter().map(Target::max_steps).sum();
        let (mut files, mut remotes) = (Vec::new(), Vec::new());
        let mut children = Vec::with_capacity(targets.len());
        for target in targets {
            if !target.remotes().is_empty() && target.geometry().chunk != 0 {
                let most = target.geometry().chunk;
                return Err(refused(format!(
                    "a server that takes requests of at most {most} bytes cannot lie below {layer}"
                )));
            }
            let first = u16::try_from(files.len()).ok().filter(|&first| first < REMOTE);
            let first = first.ok_or_else(|| too_deep(layer))?;
            let first_remote = u16::try_from(remotes.len()).map_err(|_| too_deep(layer))?;
            files.extend_from_slice(target.files());
            remotes.extend_from_slice(target.remotes());
            children.push(Child { target, files: first, remotes: first_remote });
        }
        // The engine counts steps in 8 bits, and a delay may add one.
        if max_steps > 250 {
            return Err(too_deep(layer));
        }
        let durability = Durability::of(files.len());
        let (children, files, remotes) = (children.into(), files.into(), remotes.into());
        Ok(Self { children, files, remotes, durability, max_steps })
    }

    pub(super) fn len(&self) -> usize {
        self.children.len()
    }

    pub(super) fn files(&self) -> &[RawFd] {
        &self.files
    }

    pub(super) fn remotes(&self) -> &[Arc<dyn Remote>] {
        &self.remotes
    }

    pub(super) fn durability(&self) -> &Durability {
        &self.durability
    }

    pub(super) fn max_steps(&self) -> usize {
        self.max_steps
    }

    pub(super) fn longest_wait(&self) -> Duration {
        self.children.iter().map(|child| child.target.longest_wait()).max().unwrap_or_default()
    }

    /// The layout of each child, if every child has a layout.
    pub(super) fn layouts(&self) -> Option<Vec<String>> {
        self.children.iter().map(|child| child.target.layout()).collect()
    }

    /// A child's geometry, and the maximal number of steps of the child's plans.
    #[inline]
    pub(super) fn child(&self, child: usize) -> Option<(&Geometry, usize)> {
        let target = &self.children.get(child)?.target;
        Some((target.geometry(), target.max_steps()))
    }

    /// The place of the bytes of a request to a child, if the bytes are in one place of a file.
    #[inline]
    pub(super) fn remap(&self, child: usize, request: &Request) -> Remap {
        let Child { target, files, .. } = &self.children[child];
        match target.remap(request) {
            Remap::To { file, offset } => Remap::To { file: files + file, offset },
            _ => Remap::Plan,
        }
    }

    pub(super) fn geometries(&self) -> impl Iterator<Item = &Geometry> {
        self.children.iter().map(|child| child.target.geometry())
    }

    /// Adds the answer of the child below a piece of the request.
    #[inline]
    pub(super) fn ask(
        &self,
        piece: Piece,
        question: Question,
        request: &Request,
        plan: &mut Plan<'_>,
    ) -> std::result::Result<(), Errno> {
        let Child { target, files, remotes } = &self.children[piece.child];
        #[expect(clippy::cast_possible_truncation, reason = "inside the request, below 4 GiB")]
        let (at, length) = (piece.at as u32, piece.length as u32);
        let request = Request { offset: piece.offset, length, ..*request };
        let part = Part { files: *files, remotes: *remotes, at, stage: 0 };
        plan.part(part, |plan| question.ask(target, &request, plan))
    }

    /// Asks every child about a request without a range: a flush.
    pub(super) fn ask_all(
        &self,
        question: Question,
        request: &Request,
        plan: &mut Plan<'_>,
    ) -> std::result::Result<(), Errno> {
        let whole = |child| Piece { child, at: 0, length: 0, offset: 0 };
        (0..self.len()).try_for_each(|child| self.ask(whole(child), question, request, plan))
    }

    /// The geometry of a device of `size` bytes over all children: the abilities common to all,
    /// with the needs of the neediest.
    pub(super) fn geometry(&self, size: u64) -> Geometry {
        let merged = self.geometries().copied().reduce(merge).unwrap_or(Geometry::new(size));
        Geometry { size, chunk: 0, ..merged }
    }
}

fn merge(a: Geometry, b: Geometry) -> Geometry {
    let durable = |one: &Geometry| !one.volatile_cache || one.fua;
    Geometry {
        size: a.size,
        logical_block: a.logical_block.max(b.logical_block),
        physical_block: a.physical_block.max(b.physical_block),
        io_min: a.io_min.max(b.io_min),
        io_opt: a.io_opt.max(b.io_opt),
        read_only: a.read_only || b.read_only,
        rotational: a.rotational || b.rotational,
        volatile_cache: a.volatile_cache || b.volatile_cache,
        fua: durable(&a) && durable(&b),
        discard: a.discard.zip(b.discard).map(|(a, b)| DiscardLimits {
            granularity: a.granularity.max(b.granularity),
            max_discard: a.max_discard.min(b.max_discard),
            max_write_zeroes: a.max_write_zeroes.min(b.max_write_zeroes),
        }),
        dma_alignment: a.dma_alignment.max(b.dma_alignment),
        virt_boundary: a.virt_boundary | b.virt_boundary,
        segments: match (a.segments, b.segments) {
            (Some(a), Some(b)) => Some(a.and(b)),
            (a, b) => a.or(b),
        },
        chunk: 0,
        zoned: None,
        integrity: None,
    }
}

fn too_deep(layer: &str) -> Error {
    refused(format!("{layer} has too many targets below it: its plans would exceed 250 steps"))
}

pub(super) fn refused(message: String) -> Error {
    Error::new(Code::InvalidArgument, message)
}
