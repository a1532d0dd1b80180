//! The log of a layer: extents in order of creation, in a sequence of blocks.
//!
//! Each block has a unique id and names the id of the preceding block. A reader ends the log at the first
//! block with another predecessor or a wrong checksum, so the reader never takes leftovers of an earlier
//! log, or of an earlier life of the server, for blocks of the log. A block that is known to be durable is
//! never written again.

use std::collections::VecDeque;

use crate::extent::Extent;
use crate::space::Space;
use crate::superblock::{PAGE, Page};

const HEADER: usize = 32;
/// Largest number of extents in a block.
pub(crate) const ENTRIES: usize = (PAGE - HEADER) / Extent::BYTES;

/// Error: the file cannot have more segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a layer's file cannot grow further")]
pub struct Full;

/// A place in a log, with the id of the preceding block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    segment: u32,
    /// Number of the block within the segment.
    at: u64,
    /// Id of the preceding block; at the start of a log, the salt.
    previous: u64,
}

/// The writer of a log.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    position: Position,
    segments: Vec<u32>,
    /// Id of the next block. Each further block has the next higher id, wrapping around.
    next_id: u64,
    /// Blocks not known to be durable, oldest first: the number of the flush, the block's number in the
    /// file, and the contents.
    unsynced: VecDeque<(u64, u64, Box<Page>)>,
}

impl Log {
    /// Creates an empty log with block ids from `id` on. `id` must be random: no earlier log of the file
    /// may have used the same ids.
    ///
    /// # Errors
    /// When `space` has no segment for the log.
    pub(crate) fn new(space: &mut Space, salt: u64, id: u64) -> Result<Self, Full> {
        let segment = space.take_log().ok_or(Full)?;
        let position = Position { segment, at: 0, previous: salt };
        Ok(Self { position, segments: vec![segment], next_id: id, unsynced: VecDeque::new() })
    }

    /// Returns the segment of the first block.
    pub(crate) fn first_segment(&self) -> u32 {
        self.segments[0]
    }

    /// Returns all segments of the log, including the segment of the next block.
    pub(crate) fn segments(&self) -> &[u32] {
        &self.segments
    }

    /// Returns the number of blocks in all segments of the log.
    pub(crate) fn blocks(&self, space: &Space) -> u64 {
        self.segments.len() as u64 * space.segment_blocks()
    }

    /// Appends `extents`, to become durable with flush number `flush`.
    pub(crate) fn append(
        &mut self,
        space: &mut Space,
        flush: u64,
        extents: impl IntoIterator<Item = Extent>,
    ) -> Result<(), Full> {
        let mut page = Box::new([0; PAGE]);
        let mut count = 0;
        for extent in extents {
            let at = HEADER + count * Extent::BYTES;
            page[at..at + Extent::BYTES].copy_from_slice(&extent.to_bytes());
            count += 1;
            if count == ENTRIES {
                self.seal(space, flush, std::mem::replace(&mut page, Box::new([0; PAGE])), count)?;
                count = 0;
            }
        }
        if count > 0 { self.seal(space, flush, page, count) } else { Ok(()) }
    }

    fn seal(
        &mut self,
        space: &mut Space,
        flush: u64,
        mut page: Box<Page>,
        count: usize,
    ) -> Result<(), Full> {
        let Position { segment, at, previous } = self.position;
        let place = u64::from(segment) * space.segment_blocks() + at;
        let last = at + 1 == space.segment_blocks();
        let next = if last { space.take_log().ok_or(Full)? } else { 0 };
        let id = self.next_id;
        page[4..6].copy_from_slice(&u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes());
        page[8..16].copy_from_slice(&id.to_le_bytes());
        page[16..24].copy_from_slice(&previous.to_le_bytes());
        page[24..28].copy_from_slice(&next.to_le_bytes());
        let crc = crc32c::crc32c(&*page);
        page[..4].copy_from_slice(&crc.to_le_bytes());
        self.unsynced.push_back((flush, place, page));
        self.next_id = id.wrapping_add(1);
        self.position = if last {
            self.segments.push(next);
            Position { segment: next, at: 0, previous: id }
        } else {
            Position { segment, at: at + 1, previous: id }
        };
        Ok(())
    }

    /// Returns the blocks to write for flush number `flush`, and the place of each block in the file.
    /// Blocks of earlier flushes are included, unless known to be durable.
    pub(crate) fn unsynced(&self, flush: u64) -> impl Iterator<Item = (u64, &Page)> {
        let until = self.unsynced.iter().take_while(move |(needed, ..)| *needed <= flush);
        until.map(|(_, place, page)| (*place, &**page))
    }

    /// Forgets the blocks of flush number `flush` and of all earlier flushes: the blocks are durable.
    pub(crate) fn synced(&mut self, flush: u64) {
        while self.unsynced.front().is_some_and(|(needed, ..)| *needed <= flush) {
            self.unsynced.pop_front();
        }
    }

    /// Returns all segments to `space`. No block of the log may be needed any more.
    pub(crate) fn give_back(self, space: &mut Space) {
        self.segments.into_iter().for_each(|segment| space.give_back_log(segment));
    }
}

/// The reader of a log: reads block by block until a block does not continue the log.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    position: Position,
    segments: Vec<u32>,
    segment_blocks: u64,
}

/// Error: a block continues the log but has invalid contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damaged;

impl Reader {
    pub(crate) fn new(segment: u32, salt: u64, segment_blocks: u64) -> Self {
        let position = Position { segment, at: 0, previous: salt };
        Self { position, segments: vec![segment], segment_blocks }
    }

    /// Returns the number of the next block to read, in the file.
    pub(crate) fn place(&self) -> u64 {
        u64::from(self.position.segment) * self.segment_blocks + self.position.at
    }

    /// Returns the segments of the log as far as read.
    pub(crate) fn segments(&self) -> &[u32] {
        &self.segments
    }

    /// Parses `page`, the block at [`place`](Self::place), and advances to the next block. Returns `None`
    /// if the log ends before the block.
    pub(crate) fn take<'a>(
        &mut self,
        page: &'a Page,
    ) -> Result<Option<impl Iterator<Item = Extent> + use<'a>>, Damaged> {
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| page[at + i]));
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| page[at + i]));
        let zeros = crc32c::crc32c(&[0; 4]);
        if u64_at(16) != self.position.previous
            || crc32c::crc32c_append(zeros, &page[4..]) != u32_at(0)
        {
            return Ok(None);
        }
        let count = usize::from(u16::from_le_bytes([page[4], page[5]]));
        let entry = |at: usize| -> [u8; Extent::BYTES] {
            std::array::from_fn(|i| page[HEADER + at * Extent::BYTES + i])
        };
        if count > ENTRIES || (0..count).any(|at| Extent::parse(&entry(at)).is_none()) {
            return Err(Damaged);
        }
        let Position { segment, at, .. } = self.position;
        self.position = if at + 1 == self.segment_blocks {
            let next = u32_at(24);
            if self.segments.contains(&next) {
                return Err(Damaged);
            }
            self.segments.push(next);
            Position { segment: next, at: 0, previous: u64_at(8) }
        } else {
            Position { segment, at: at + 1, previous: u64_at(8) }
        };
        Ok(Some((0..count).filter_map(move |at| Extent::parse(&entry(at)))))
    }

    /// Turns the reader into a writer of the following blocks, with ids from `id` on. `id` must be
    /// random, see [`Log::new`]. The next flush writes the blocks in `doubtful` again.
    pub(crate) fn into_log(self, id: u64, doubtful: Vec<(u64, Box<Page>)>) -> Log {
        let Self { position, segments, .. } = self;
        let unsynced = doubtful.into_iter().map(|(place, page)| (0, place, page)).collect();
        Log { position, segments, next_id: id, unsynced }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extent::Place;

    const SHIFT: u32 = 2;

    fn space() -> Space {
        let mut space = Space::new(SHIFT, 1, 2);
        space.settle();
        space
    }

    fn extents(from: u64, count: u64) -> Vec<Extent> {
        (from..from + count)
            .map(|block| Extent::new(2 * block, 1, Place::At { layer: 0, block: 900 + block }))
            .collect()
    }

    type File = std::collections::HashMap<u64, Page>;

    fn write(file: &mut File, log: &mut Log, flush: u64) {
        file.extend(log.unsynced(flush).map(|(place, page)| (place, *page)));
        log.synced(flush);
    }

    fn read(file: &File, log: &Log, salt: u64) -> (Vec<Extent>, Reader) {
        let mut reader = Reader::new(log.first_segment(), salt, 1 << SHIFT);
        let mut found = Vec::new();
        while let Some(page) = file.get(&reader.place()) {
            let Some(extents) = reader.take(page).unwrap() else { break };
            found.extend(extents);
        }
        (found, reader)
    }

    #[test]
    fn a_log_is_read_as_it_was_written_over_many_segments() {
        let (mut space, mut file) = (space(), File::new());
        let mut log = Log::new(&mut space, 77, 1000).unwrap();
        let mut all = Vec::new();
        for flush in 0..40 {
            let some = extents(all.len() as u64, 1 + flush * 50 % 700);
            log.append(&mut space, flush, some.iter().copied()).unwrap();
            all.extend(some);
            write(&mut file, &mut log, flush);
        }
        let (found, reader) = read(&file, &log, 77);
        assert_eq!(found, all);
        assert_eq!(reader.segments(), log.segments);
        assert_eq!(reader.position, log.position);
    }

    #[test]
    fn a_later_flush_brings_the_blocks_of_an_earlier_one_along() {
        let (mut space, mut file) = (space(), File::new());
        let mut log = Log::new(&mut space, 77, 1000).unwrap();
        log.append(&mut space, 1, extents(0, 3)).unwrap();
        log.append(&mut space, 2, extents(3, 3)).unwrap();
        log.append(&mut space, 3, extents(6, 3)).unwrap();
        write(&mut file, &mut log, 2);
        assert_eq!(read(&file, &log, 77).0, extents(0, 6));
    }

    #[test]
    fn what_an_earlier_life_has_left_behind_the_end_is_not_taken() {
        let (mut space, mut file) = (space(), File::new());
        let mut log = Log::new(&mut space, 77, 1000).unwrap();
        log.append(&mut space, 1, extents(0, 1)).unwrap();
        write(&mut file, &mut log, 1);
        let mut first_life = log.clone();
        let mut space_then = space.clone();
        // The power cut keeps only the second of two blocks.
        first_life.append(&mut space_then, 2, extents(1, 1)).unwrap();
        first_life.append(&mut space_then, 3, extents(2, 1)).unwrap();
        let (place, stale) = first_life.unsynced(3).last().unwrap();
        file.insert(place, *stale);
        let (found, reader) = read(&file, &log, 77);
        assert_eq!(found, extents(0, 1));
        // The second life writes the same extents again.
        let mut second_life = reader.into_log(5000, Vec::new());
        second_life.append(&mut space, 1, extents(1, 1)).unwrap();
        write(&mut file, &mut second_life, 1);
        assert_eq!(read(&file, &log, 77).0, extents(0, 2));
    }

    #[test]
    fn a_block_that_is_not_whole_ends_the_log() {
        let (mut space, mut file) = (space(), File::new());
        let mut log = Log::new(&mut space, 77, 1000).unwrap();
        log.append(&mut space, 1, extents(0, 600)).unwrap();
        write(&mut file, &mut log, 1);
        file.get_mut(&5).unwrap()[3000] ^= 4;
        assert_eq!(read(&file, &log, 77).0, extents(0, ENTRIES as u64));
        assert_eq!(read(&file, &log, 78).0, []);
    }
}
