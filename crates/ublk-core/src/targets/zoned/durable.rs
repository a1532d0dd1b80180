//! The part of the zones' state that outlives a power cut.
//!
//! The state file has a word for each zone; an image of the words is in memory. A word may say less
//! than the zone holds, never more. A flush captures the words of finished writes ([`capture`]),
//! syncs the data, puts the captured words into the image ([`record`]), writes the image and syncs
//! the state; after this the words are kept ([`keep`]). A reset goes the other way: the zones are
//! empty in the file before their data goes ([`begin_reset`]). Flushes may overlap: of two words of
//! a zone the later stays.
//!
//! [`capture`]: Durable::capture
//! [`record`]: Durable::record
//! [`keep`]: Durable::keep
//! [`begin_reset`]: Durable::begin_reset

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::table::EMPTY;
use crate::memory::Region;

/// Bytes of a word.
pub(super) const WORD: usize = size_of::<u64>();

#[derive(Debug)]
pub(super) struct Durable {
    image: Arc<Region>,
    zones: Box<[Marks]>,
    /// Counts changes: the later of two changes has the larger count.
    clock: u64,
    /// The zones with possible differences from the file.
    dirty: Range<u32>,
    captures: Vec<Capture>,
    /// Entries of ended captures, reused by the next captures without an allocation.
    spare: Vec<Vec<Entry>>,
    next: u64,
}

/// The state of a zone. The times are the clock's.
#[derive(Clone, Copy, Debug, Default)]
struct Marks {
    now: u64,
    /// When `now` became so, when the word in the image did, and the word in the file.
    changed: u64,
    recorded: u64,
    kept: u64,
    /// The number of requests that are emptying the zone.
    resetting: u32,
}

#[derive(Debug)]
struct Capture {
    id: u64,
    entries: Vec<Entry>,
    reset: bool,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    zone: u32,
    changed: u64,
    word: u64,
}

impl Durable {
    /// Zones with the words of `file`.
    pub(super) fn new(file: &[u64]) -> io::Result<Self> {
        let image = Arc::new(Region::new((file.len() * WORD).max(1))?);
        let zones = file.iter().map(|&now| Marks { now, ..Marks::default() }).collect();
        let this = Self {
            image,
            zones,
            clock: 0,
            dirty: 0..0,
            captures: Vec::new(),
            spare: Vec::new(),
            next: 0,
        };
        for (index, &word) in file.iter().enumerate() {
            this.image_of(index).store(word.to_le(), Ordering::Relaxed);
        }
        Ok(this)
    }

    /// The memory from which steps write into the file.
    pub(super) fn image(&self) -> &Arc<Region> {
        &self.image
    }

    fn image_of(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.zones.len());
        // SAFETY: inside the region, just checked, and aligned, as the region is to pages; only
        // atomic stores change the word, and the kernel reads the word as bytes.
        unsafe { &*self.image.base().cast::<AtomicU64>().add(index) }
    }

    /// Sets the zone's present word.
    pub(super) fn change(&mut self, zone: u32, word: u64) {
        if self.zones[zone as usize].now != word {
            self.zones[zone as usize].now = word;
            self.touch(zone);
        }
    }

    /// The words may be in the page cache alone, where a sync of the last server has failed: the next flush
    /// writes all words.
    pub(super) fn doubt(&mut self) {
        for zone in 0..u32::try_from(self.zones.len()).unwrap_or(u32::MAX) {
            self.touch(zone);
        }
    }

    fn touch(&mut self, zone: u32) -> u64 {
        self.clock += 1;
        self.zones[zone as usize].changed = self.clock;
        self.dirty = match self.dirty.is_empty() {
            true => zone..zone + 1,
            false => self.dirty.start.min(zone)..self.dirty.end.max(zone + 1),
        };
        self.clock
    }

    /// Captures all words that the file does not hold yet, and returns the number of the capture,
    /// above 0.
    pub(super) fn capture(&mut self) -> u64 {
        let mut entries = self.spare.pop().unwrap_or_default();
        for zone in self.dirty.clone() {
            let marks = self.zones[zone as usize];
            if marks.changed > marks.kept {
                let word = if marks.resetting > 0 { EMPTY } else { marks.now };
                entries.push(Entry { zone, changed: marks.changed, word });
            }
        }
        self.begin(entries, false)
    }

    /// Begins to empty these zones: in the image the zones are empty from now on. Returns the
    /// number of the capture, and the words to be written.
    pub(super) fn begin_reset(&mut self, zones: Range<u32>) -> (u64, Range<u32>) {
        let mut entries = self.spare.pop().unwrap_or_default();
        for zone in zones {
            self.zones[zone as usize].resetting += 1;
            let changed = self.touch(zone);
            entries.push(Entry { zone, changed, word: EMPTY });
        }
        let id = self.begin(entries, true);
        (id, self.record(id))
    }

    fn begin(&mut self, entries: Vec<Entry>, reset: bool) -> u64 {
        self.next += 1;
        self.captures.push(Capture { id: self.next, entries, reset });
        self.next
    }

    /// Puts the captured words into the image; all data described by the words is durable. Returns
    /// the words of the image to be written.
    pub(super) fn record(&mut self, id: u64) -> Range<u32> {
        let Some(at) = self.captures.iter().position(|capture| capture.id == id) else {
            return 0..0;
        };
        for entry in 0..self.captures[at].entries.len() {
            let Entry { zone, changed, word } = self.captures[at].entries[entry];
            let index = zone as usize;
            if changed > self.zones[index].recorded {
                self.zones[index].recorded = changed;
                self.image_of(index).store(word.to_le(), Ordering::Relaxed);
            }
        }
        match self.captures[at].entries[..] {
            [first, .., last] => first.zone..last.zone + 1,
            [only] => only.zone..only.zone + 1,
            [] => 0..0,
        }
    }

    /// The recorded words, or later words of the same zones, are durable.
    pub(super) fn keep(&mut self, id: u64) {
        let Some(capture) = self.end(id) else { return };
        for entry in &capture.entries {
            let marks = &mut self.zones[entry.zone as usize];
            marks.kept = marks.kept.max(entry.changed);
        }
        self.put_back(capture);
        let clean = |zone: u32| {
            let marks = self.zones[zone as usize];
            marks.changed <= marks.kept
        };
        if self.dirty.clone().all(clean) {
            self.dirty = 0..0;
        }
    }

    /// Drops a capture without an effect.
    pub(super) fn abandon(&mut self, id: u64) {
        let Some(capture) = self.end(id) else { return };
        if capture.reset {
            // The file may have these zones as empty.
            for entry in &capture.entries {
                self.touch(entry.zone);
            }
        }
        self.put_back(capture);
    }

    fn end(&mut self, id: u64) -> Option<Capture> {
        let at = self.captures.iter().position(|capture| capture.id == id)?;
        let capture = self.captures.swap_remove(at);
        if capture.reset {
            for entry in &capture.entries {
                self.zones[entry.zone as usize].resetting -= 1;
            }
        }
        Some(capture)
    }

    fn put_back(&mut self, mut capture: Capture) {
        capture.entries.clear();
        self.spare.push(capture.entries);
    }

    /// The present words of all zones, in the format of the file.
    pub(super) fn all(&self) -> Vec<u8> {
        self.zones.iter().flat_map(|marks| marks.now.to_le_bytes()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(durable: &Durable) -> Vec<u64> {
        (0..durable.zones.len()).map(|at| durable.image_of(at).load(Ordering::Relaxed)).collect()
    }

    /// The words written by the next flush.
    fn words(durable: &mut Durable) -> Range<u32> {
        let id = durable.capture();
        durable.record(id)
    }

    #[test]
    fn what_changes_after_it_was_taken_down_waits_for_the_next_flush() {
        let mut durable = Durable::new(&[1, 1, 1, 1]).unwrap();
        durable.change(1, 10);
        let id = durable.capture();
        durable.change(1, 20);
        durable.change(3, 30);
        assert_eq!(durable.record(id), 1..2);
        assert_eq!(image(&durable), [1, 10, 1, 1]);
        durable.keep(id);
        let id = durable.capture();
        assert_eq!(durable.record(id), 1..4);
        assert_eq!(image(&durable), [1, 20, 1, 30]);
        durable.keep(id);
        assert_eq!(words(&mut durable), 0..0);
    }

    #[test]
    fn an_earlier_flush_takes_nothing_back() {
        let mut durable = Durable::new(&[1]).unwrap();
        durable.change(0, 10);
        let first = durable.capture();
        durable.change(0, 20);
        let second = durable.capture();
        assert_eq!(durable.record(second), 0..1);
        durable.record(first);
        assert_eq!(image(&durable), [20]);
        durable.keep(first);
        assert_eq!(words(&mut durable), 0..1, "the second may still fail");
        durable.keep(second);
        assert_eq!(words(&mut durable), 0..0);
    }

    #[test]
    fn a_zone_that_is_being_emptied_is_empty_for_every_flush() {
        let mut durable = Durable::new(&[1, 1]).unwrap();
        durable.change(0, 10);
        let flush = durable.capture();
        let (reset, words) = durable.begin_reset(0..1);
        assert_eq!(words, 0..1);
        durable.record(flush);
        assert_eq!(image(&durable), [EMPTY, 1]);
        durable.change(0, 20);
        let flush = durable.capture();
        durable.record(flush);
        assert_eq!(image(&durable), [EMPTY, 1]);
        durable.abandon(reset);
        let flush = durable.capture();
        assert_eq!(durable.record(flush), 0..1);
        assert_eq!(image(&durable), [20, 1], "it was not emptied after all");
    }
}
