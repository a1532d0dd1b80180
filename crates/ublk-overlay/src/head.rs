//! The live layer of a disk: places for writes, durability of flushes, reuse of blocks.
//!
//! A write asks for [places](Head::places), writes there, and then [publishes](Head::publish) the
//! parts: from then on reads see the new blocks. A flush syncs the file, writes the
//! [blocks](Head::log_blocks) of the log filled by [`Head::flush`], syncs again, and reports the
//! success ([`Head::flushed`]). Data is durable before the log names the data's place.

use std::collections::VecDeque;

use crate::extent::{Extent, MAX_COUNT, Place};
use crate::index::{Index, Piece, runs};
use crate::load::RESERVED;
use crate::log::{Full, Log};
use crate::space::{Run, Space};
use crate::superblock::{Page, Superblock};
use crate::unflushed::Unflushed;

/// The live layer of a disk.
#[derive(Debug)]
pub struct Head {
    /// The layer's number among the layers of the disk.
    layer: u32,
    superblock: Superblock,
    index: Index,
    space: Space,
    log: Log,
    /// The log that will replace `log`: see [`Head::begin_compaction`].
    next_log: Option<NextLog>,
    /// Extents not yet in the log.
    pending: Vec<Extent>,
    /// Runs made unused by the extents of `pending`.
    unused: Vec<Run>,
    /// Runs made unused by flushes under way, with the flushes' numbers.
    unused_by_flush: VecDeque<(u64, Vec<Run>)>,
    /// The number of the last flush.
    flushes: u64,
    /// The number of the last durable flush.
    durable: u64,
}

#[derive(Debug)]
struct NextLog {
    log: Log,
    salt: u64,
    /// The flush that makes all of the log's first part durable.
    whole_with: u64,
}

/// Where a part of a write goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The first block of the part.
    pub block: u64,
    /// The place of the part in the layer's file.
    pub run: Run,
    /// The run is new: [publish](Head::publish) the part, or [give the run back](Head::give_back).
    pub fresh: bool,
}

impl Target {
    /// The part's extent for the index, valid once the part has been written.
    pub fn extent(&self, layer: u32) -> Extent {
        Extent::new(self.block, self.run.count, Place::At { layer, block: self.run.block })
    }
}

impl Head {
    /// An empty layer. `index` is the index of the `layer` layers below; `id` is a random number.
    ///
    /// # Errors
    /// When the file cannot hold a log.
    pub fn new(superblock: Superblock, layer: u32, index: Index, id: u64) -> Result<Self, Full> {
        let mut space = Space::new(superblock.segment_shift, 1, RESERVED);
        space.settle();
        let log = Log::new(&mut space, superblock.salt, id)?;
        let superblock = Superblock { log: log.first_segment(), ..superblock };
        Ok(Self::with(superblock, layer, index, space, log, Unflushed::default()))
    }

    pub(crate) fn with(
        superblock: Superblock,
        layer: u32,
        index: Index,
        space: Space,
        log: Log,
        Unflushed { pending, unused }: Unflushed,
    ) -> Self {
        Self {
            layer,
            superblock,
            index,
            space,
            log,
            next_log: None,
            pending,
            unused,
            unused_by_flush: VecDeque::new(),
            flushes: 0,
            durable: 0,
        }
    }

    /// The contents of the file's superblock.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// The layer's number among the layers of the disk.
    pub fn layer(&self) -> u32 {
        self.layer
    }

    /// Where all blocks of the disk are.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Puts the empty layer on top of the `layer` layers of this index.
    pub fn stand_on(&mut self, layer: u32, index: Index) {
        debug_assert!(self.index.is_empty() && self.pending.is_empty());
        (self.layer, self.index) = (layer, index);
    }

    /// The space of the layer's file. Before a write to a run of the last segment, the file must
    /// have all segments.
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// The segments of the log and of the log's successor: the file must have these segments before
    /// a write to a block of the log.
    pub fn log_segments(&self) -> impl Iterator<Item = u32> {
        let next = self.next_log.iter().flat_map(|next| next.log.segments());
        self.log.segments().iter().copied().chain(next.copied())
    }

    /// Reports the places for a write of the blocks `from..to`: the present places of blocks in
    /// this layer, new places for other blocks.
    ///
    /// # Errors
    /// When there are no more places; `each` has already received the places taken until then.
    pub fn places(&mut self, from: u64, to: u64, mut each: impl FnMut(Target)) -> Result<(), Full> {
        let mut at = from;
        while at < to {
            let piece = self.index.pieces(at, to).next().expect("a range has pieces");
            self.places_of(piece, &mut each)?;
            at += piece.count;
        }
        Ok(())
    }

    /// [`places`](Self::places) for one piece of the [index](Self::index).
    ///
    /// # Errors
    /// As [`places`](Self::places).
    pub fn places_of(&mut self, piece: Piece, mut each: impl FnMut(Target)) -> Result<(), Full> {
        let in_place = match piece.place {
            Some(Place::At { layer, block }) if layer == self.layer => Some(block),
            _ => None,
        };
        let mut done = 0;
        while done < piece.count {
            let wanted = u32::try_from(piece.count - done).unwrap_or(MAX_COUNT).min(MAX_COUNT);
            let run = match in_place {
                Some(block) => Run { block: block + done, count: wanted },
                None => self.space.take(wanted).ok_or(Full)?,
            };
            each(Target { block: piece.block + done, run, fresh: in_place.is_none() });
            done += u64::from(run.count);
        }
        Ok(())
    }

    /// Records the write of the part: reads find the part, and the next flush makes the part
    /// durable.
    pub fn publish(&mut self, part: &Target) {
        self.set(part.extent(self.layer));
    }

    /// The part could not be written.
    pub fn give_back(&mut self, part: &Target) {
        self.space.give_back(part.run);
    }

    /// Blocks of `extent` that are in layers for which `moved` is true are found in `extent` from now on,
    /// which is in another layer below and holds the same.
    pub fn take_over(&mut self, extent: Extent, moved: impl Fn(u32) -> bool) {
        let is_moved = |piece: &Piece| match piece.place {
            Some(Place::At { layer, .. }) => moved(layer),
            _ => false,
        };
        let pieces = self.index.pieces(extent.block(), extent.end()).filter(is_moved);
        for piece in pieces.collect::<Vec<_>>() {
            // Not for the log: the contents of this layer stay as they are.
            self.index.set(extent.part(piece.block, piece.block + piece.count), drop);
        }
    }

    /// The blocks `from..to` read as zeros from now on.
    pub fn zero(&mut self, from: u64, to: u64) {
        for (block, count) in runs(from, to) {
            self.set(Extent::new(block, count, Place::Zero));
        }
    }

    fn set(&mut self, extent: Extent) {
        let (layer, unused) = (self.layer, &mut self.unused);
        self.index.set(extent, |old| {
            if let Place::At { layer: of, block } = old.place()
                && of == layer
            {
                unused.push(Run { block, count: old.count() });
            }
        });
        match self.pending.last_mut() {
            Some(last) if last.joined(extent).is_some() => {
                *last = last.joined(extent).unwrap_or(*last);
            }
            _ => self.pending.push(extent),
        }
    }

    /// Fills the log with everything published. Returns the number of the flush. The caller then
    /// syncs the file, writes the [blocks](Self::log_blocks) of this number, syncs again, and calls
    /// [`flushed`](Self::flushed).
    ///
    /// # Errors
    /// When the log cannot grow. A later flush still does all of the work.
    pub fn flush(&mut self) -> Result<u64, Full> {
        let number = self.flushes + 1;
        self.log.append(&mut self.space, number, self.pending.iter().copied())?;
        if let Some(next) = &mut self.next_log {
            next.log.append(&mut self.space, number, self.pending.iter().copied())?;
        }
        self.flushes = number;
        self.pending.clear();
        self.unused_by_flush.push_back((number, std::mem::take(&mut self.unused)));
        Ok(number)
    }

    /// The blocks to be written by the flush of this number, with their places.
    pub fn log_blocks(&self, flush: u64) -> impl Iterator<Item = (u64, &Page)> {
        let next = self.next_log.iter().flat_map(move |next| next.log.unsynced(flush));
        self.log.unsynced(flush).chain(next)
    }

    /// The flush of this number is durable, and so are all earlier flushes. Returns the runs
    /// without a durable record: the caller may [reuse](Self::reuse) the runs once all earlier
    /// requests have ended.
    pub fn flushed(&mut self, flush: u64) -> Vec<Run> {
        self.durable = self.durable.max(flush);
        self.log.synced(flush);
        if let Some(next) = &mut self.next_log {
            next.log.synced(flush);
        }
        let mut unused = Vec::new();
        while self.unused_by_flush.front().is_some_and(|(number, _)| *number <= flush) {
            unused.extend(self.unused_by_flush.pop_front().into_iter().flat_map(|(_, runs)| runs));
        }
        unused
    }

    /// Makes blocks without a reference available for writes.
    pub fn reuse(&mut self, run: Run) {
        self.space.give_back(run);
    }

    /// Whether the log is so long that a new log, with the contents of the index, is worth the
    /// writes.
    pub fn wants_compaction(&self) -> bool {
        let of_the_index = (self.index.len() / crate::log::ENTRIES) as u64;
        let least = 4 * self.space.segment_blocks();
        self.next_log.is_none() && self.log.blocks(&self.space) >= least.max(20 * of_the_index)
    }

    /// Begins a new log with everything in the layer; `salt` and `id` are random numbers. Also a
    /// flush: returns the number of the flush. From now on both logs are written, until the new log
    /// is [whole](Self::next_superblock).
    ///
    /// # Errors
    /// When the file cannot hold another log.
    pub fn begin_compaction(&mut self, salt: u64, id: u64) -> Result<u64, Full> {
        let number = self.flush()?;
        let mut log = Log::new(&mut self.space, salt, id)?;
        let own = self
            .index
            .iter()
            .filter(|extent| extent.layer().is_none_or(|layer| layer == self.layer));
        if let Err(full) = log.append(&mut self.space, number, own) {
            log.give_back(&mut self.space);
            return Err(full);
        }
        self.next_log = Some(NextLog { log, salt, whole_with: number });
        Ok(number)
    }

    /// The superblock that replaces the old log by the new log; none while the new log is not
    /// durable. Once the superblock is durable, call [`adopt`](Self::adopt).
    pub fn next_superblock(&self) -> Option<Superblock> {
        let next = self.next_log.as_ref().filter(|next| next.whole_with <= self.durable)?;
        Some(Superblock {
            generation: self.superblock.generation + 1,
            log: next.log.first_segment(),
            salt: next.salt,
            ..self.superblock
        })
    }

    /// The superblock of a frozen layer, after which nothing is written to the layer: valid once
    /// everything published is durable.
    pub fn frozen(&self) -> Superblock {
        let next = self.next_superblock();
        let generation = self.superblock.generation + 1;
        let next = next.unwrap_or(Superblock { generation, ..self.superblock });
        Superblock { frozen: true, in_use: None, ..next }
    }

    /// The superblock is durable.
    pub fn adopt(&mut self, superblock: Superblock) {
        if let Some(next) = self.next_log.take() {
            debug_assert_eq!(next.log.first_segment(), superblock.log);
            std::mem::replace(&mut self.log, next.log).give_back(&mut self.space);
        }
        self.superblock = superblock;
    }
}
