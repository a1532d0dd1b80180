//! The disk of a frozen layer, for reading only: a base of other disks, in any folder.
//!
//! Nobody ever writes to a frozen layer. So there is one index of all layers, made at open, and a request is
//! one round of steps on the layers' files and on those of the base.

use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ublk_overlay::extent::{BLOCK, BLOCK_SHIFT, Place};
use ublk_overlay::index::Index;
use ublk_overlay::superblock::Superblock;

use super::super::file::{File, FileOptions};
use super::super::native::Native;
use super::super::pieces::{self, Disk, MOST_STEPS};
use super::super::{Durability, Errno, Geometry, Op, Plan, Request, Step, StepKind, Target};
use super::OverlayOptions;
use super::chain::{Layer, failed, unfit};
use super::checks::{blocks, check_asked, check_base, check_same_base};
use super::open::geometry;
use super::reads::plan_below;
use super::sectors::{self, Clip, clip};
use crate::allocation::Allocation;
use crate::error::{Code, Error, Result};
use crate::remote::Remote;

/// A base and frozen layers.
#[derive(Debug)]
pub struct Fixed {
    base: Native,
    geometry: Geometry,
    index: Index,
    /// The files of the layers, the lowest first, and those of the base.
    files: Vec<RawFd>,
    /// The place of the base's first file.
    base_files: u16,
    durability: Durability,
    max_steps: usize,
    superblock: Superblock,
    _layers: Vec<File>,
}

impl Fixed {
    /// Opens the frozen layer at `path` and the layers below, for reading. Other servers may read them, too.
    /// Of the options, the ways to open files count.
    ///
    /// # Errors
    /// `NoBackend` when a layer is missing; `BadBackend` when a layer is damaged or of another base;
    /// `InvalidArgument` for a live layer, and for an unsuitable base; `Busy` while a server writes to the
    /// layer.
    pub fn open(base: Native, path: &Path, options: &OverlayOptions) -> Result<Self> {
        let found = (blocks(&base)?, check_base(&base)?);
        let path = fs::canonicalize(path).map_err(|error| failed(path, "stat", &error))?;
        let how = FileOptions {
            direct: options.direct,
            promised: options.promised,
            read_only: true,
            ..FileOptions::default()
        };
        let (highest, how) = sectors::open(&path, how)?;
        let superblock = *highest.superblock();
        if !superblock.frozen {
            let message =
                format!("{} is a live layer, which a server may write to", path.display());
            return Err(Error::new(Code::InvalidArgument, message)
                .hint(format!("freeze it first: ublk overlay fork {} CHILD", path.display())));
        }
        check_same_base(&path, &superblock, found)?;
        sectors::check_base(&base, superblock.logical_block)?;
        check_asked(&highest, options.logical_block)?;
        let mut all = highest.parents(&how)?;
        all.push(highest);
        let (mut index, mut layers) = (Index::new(), Vec::with_capacity(all.len()));
        for (number, Layer { path, contents, file, .. }) in (0..).zip(all) {
            contents.load(number, &mut index).map_err(|error| unfit(&path, &error))?;
            layers.push(file);
        }
        let below = (base.max_steps().max(1), base.geometry().chunk);
        let disk = Disk { index: &index, blocks: superblock.blocks, block: BLOCK, below };
        let cut = disk.cut(MOST_STEPS.max(below.0));
        let mut files: Vec<_> = layers.iter().map(|layer| layer.files()[0]).collect();
        // Fits: there are at most 255 layers.
        let base_files = u16::try_from(files.len()).unwrap_or(u16::MAX);
        files.extend_from_slice(base.files());
        let geometry = Geometry {
            read_only: true,
            volatile_cache: false,
            discard: None,
            chunk: cut.chunk,
            ..geometry(&base, &layers.iter().collect::<Vec<_>>(), superblock.logical_block)
        };
        Ok(Self {
            geometry,
            index,
            durability: Durability::of(files.len()),
            files,
            base_files,
            max_steps: cut.most,
            superblock,
            base,
            _layers: layers,
        })
    }

    /// What disks on this one remember of their base, in place of a time.
    pub(super) fn identity(&self) -> i64 {
        identity(&self.superblock)
    }

    fn plan_read(&self, request: &Request, plan: &mut Plan<'_>) -> std::result::Result<(), Errno> {
        let (from, to) = sectors::blocks(request);
        for piece in self.index.pieces(from, to) {
            let Clip { within: at, skipped, length } = clip(request, piece.block, piece.count);
            // Fits: inside of the request.
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            let step = Step { at, length, kind: StepKind::Zeros, ..Step::EMPTY };
            match piece.place {
                Some(Place::At { layer, block }) => {
                    let file = u16::try_from(layer).unwrap_or(u16::MAX);
                    let offset = (block << BLOCK_SHIFT) + skipped;
                    plan.push(Step { kind: StepKind::Read, file, offset, ..step });
                }
                Some(Place::Zero) => plan.push(step),
                None => {
                    let piece = Request {
                        offset: (piece.block << BLOCK_SHIFT) + skipped,
                        length,
                        ..*request
                    };
                    plan_below(&self.base, self.base_files, at, &piece, plan)?;
                }
            }
        }
        plan.order_stages();
        Ok(())
    }
}

/// A number for a frozen layer that is never a time of modification of a file: whatever is done to the file of the
/// layer, its contents are the same.
pub(super) fn identity(frozen: &Superblock) -> i64 {
    let (a, b) = frozen.layer.as_u64_pair();
    // Negative: files are younger than 1970.
    (a ^ b).wrapping_add(frozen.generation).cast_signed() | i64::MIN
}

impl Target for Fixed {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn files(&self) -> &[RawFd] {
        &self.files
    }

    fn remotes(&self) -> &[Arc<dyn Remote>] {
        self.base.remotes()
    }

    /// A merge may replace the files of the layers.
    fn laid_out(&self) -> &[RawFd] {
        self.base.laid_out()
    }

    fn durability(&self) -> &Durability {
        &self.durability
    }

    fn layout(&self) -> Option<String> {
        let Superblock { layer, generation, .. } = self.superblock;
        Some(format!("frozen({layer} of generation {generation}, {})", self.base.layout()?))
    }

    fn max_steps(&self) -> usize {
        self.max_steps
    }

    fn longest_wait(&self) -> Duration {
        self.base.longest_wait()
    }

    fn plan(&self, request: &Request, plan: &mut Plan<'_>) -> std::result::Result<(), Errno> {
        match request.op {
            Op::Read => self.plan_read(request, plan),
            // Nothing was written.
            Op::Flush => Ok(()),
            _ => Err(Errno(libc::EROFS)),
        }
    }

    fn allocation(&self, offset: u64, length: u64) -> io::Result<Allocation> {
        let (length, place) = pieces::first(&self.index, BLOCK, offset, length);
        match place {
            Some(Place::At { .. }) => Ok(Allocation::data(length)),
            Some(Place::Zero) => Ok(Allocation::hole(length)),
            None => self.base.allocation(offset, length),
        }
    }
}
