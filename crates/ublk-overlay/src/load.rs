//! Reading a layer's file.

use std::io;

use crate::extent::{Extent, Place};
use crate::head::Head;
use crate::index::Index;
use crate::log::Reader;
use crate::space::{Run, Space};
use crate::superblock::{PAGE, Page, SUPERBLOCKS, Superblock, Unfit};
use crate::unflushed::Unflushed;

/// Blocks at the beginning of the file that no data may take.
pub(crate) const RESERVED: u32 = 2;
const _: () = assert!(RESERVED as u64 == SUPERBLOCKS);

/// Why a layer's file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It has no superblock.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// The log names what cannot be.
    #[error("block {block} of the file: {what}")]
    Damaged {
        /// The block of the file.
        block: u64,
        /// What is wrong with it.
        what: String,
    },
}

/// A layer's file, to be read.
#[derive(Debug)]
pub struct LayerFile<R> {
    /// Its superblock.
    pub superblock: Superblock,
    /// The number of its segments, the last one perhaps in part.
    segments: u32,
    read: R,
}

impl<R: FnMut(u64, &mut Page) -> io::Result<()>> LayerFile<R> {
    /// Reads the superblock of a file of `length` bytes, of which `read` fills a page with a block.
    ///
    /// # Errors
    /// When the file cannot be read, or is no layer's.
    pub fn open(length: u64, mut read: R) -> Result<Self, LoadError> {
        if length < SUPERBLOCKS * PAGE as u64 {
            return Err(Unfit::Foreign.into());
        }
        let mut pages = [[0; PAGE]; 2];
        read(0, &mut pages[0])?;
        read(1, &mut pages[1])?;
        let superblock = Superblock::newest(&pages)?;
        let blocks = length.div_ceil(PAGE as u64);
        let segments = u32::try_from(blocks.div_ceil(superblock.segment_blocks()));
        let segments = segments.map_err(|_| Unfit::Damaged)?;
        Ok(Self { superblock, segments, read })
    }

    /// Puts what a frozen layer holds into `index`, as that of layer number `layer`.
    ///
    /// # Errors
    /// When the file cannot be read, or is damaged.
    pub fn load(mut self, layer: u32, index: &mut Index) -> Result<(), LoadError> {
        self.replay(layer, index, None).map(drop)
    }

    /// Puts what the live layer holds into the index of the layers below it. `id` is a random
    /// number; `unflushed` the end of the layer's history, at least what may be missing in the log, in
    /// order: the next flush adds to the log what is missing there.
    ///
    /// # Errors
    /// When the file cannot be read, or is damaged.
    pub fn load_head(
        mut self,
        layer: u32,
        mut index: Index,
        id: u64,
        unflushed: &[Extent],
    ) -> Result<Head, LoadError> {
        // A sync of a server that has not closed the layer may have failed: the page cache then shows
        // blocks that the disk does not have, and a later block would be lost with them.
        let mut doubtful = self.superblock.in_use.is_some().then(Vec::new);
        let reader = self.replay(layer, &mut index, doubtful.as_mut())?;
        let (shift, end) = (self.superblock.segment_shift, self.end());
        for extent in unflushed {
            self.check(reader.place(), *extent, end)?;
        }
        let mut space = Space::new(shift, self.segments, RESERVED);
        for &segment in reader.segments() {
            let place = u64::from(segment) << shift;
            if !space.occupy_log(segment) {
                return Err(damaged(place, "a segment of the log lies outside of the file".into()));
            }
        }
        index.iter().try_for_each(|extent| occupy(&mut space, layer, extent))?;
        let missing = Unflushed::of(&mut index, layer, unflushed);
        missing.pending.iter().try_for_each(|extent| occupy(&mut space, layer, *extent))?;
        space.settle();
        Ok(Head::with(
            self.superblock,
            layer,
            index,
            space,
            reader.into_log(id, doubtful.unwrap_or_default()),
            missing,
        ))
    }

    fn end(&self) -> u64 {
        u64::from(self.segments) << self.superblock.segment_shift
    }

    /// `blocks` gets the blocks of the log.
    fn replay(
        &mut self,
        layer: u32,
        index: &mut Index,
        mut blocks: Option<&mut Vec<(u64, Box<Page>)>>,
    ) -> Result<Reader, LoadError> {
        let Superblock { log, salt, .. } = self.superblock;
        let mut reader = Reader::new(log, salt, self.superblock.segment_blocks());
        let end = self.end();
        let mut page = [0; PAGE];
        loop {
            let place = reader.place();
            if place >= end {
                return Err(damaged(place, "the log leaves the file".into()));
            }
            (self.read)(place, &mut page)?;
            let taken = reader.take(&page);
            let extents =
                taken.map_err(|_| damaged(place, "a block of the log that cannot be".into()))?;
            let Some(extents) = extents else { return Ok(reader) };
            if let Some(blocks) = &mut blocks {
                blocks.push((place, Box::new(page)));
            }
            for extent in extents {
                self.check(place, extent, end)?;
                index.set(extent.in_layer(layer), drop);
            }
        }
    }

    fn check(&self, place: u64, extent: Extent, end: u64) -> Result<(), LoadError> {
        if extent.end() > self.superblock.blocks {
            return Err(damaged(place, format!("{extent:?} lies behind the end of the disk")));
        }
        if let Place::At { block, .. } = extent.place()
            && (block < SUPERBLOCKS || block + u64::from(extent.count()) > end)
        {
            return Err(damaged(place, format!("{extent:?} lies outside of the file's data")));
        }
        Ok(())
    }
}

fn occupy(space: &mut Space, layer: u32, extent: Extent) -> Result<(), LoadError> {
    match extent.place() {
        Place::At { layer: of, block } if of == layer => {
            let taken = space.occupy(Run { block, count: extent.count() });
            taken.then_some(()).ok_or_else(|| damaged(block, format!("{extent:?} lies in the log")))
        }
        _ => Ok(()),
    }
}

fn damaged(block: u64, what: String) -> LoadError {
    LoadError::Damaged { block, what }
}
