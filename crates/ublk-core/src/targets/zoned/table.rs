//! The zones of a device, and what each operation does to them: the rules of ZBC and ZNS, as the
//! kernel's null_blk has them.

use ublk_sys::{
    BLK_ZONE_COND_CLOSED, BLK_ZONE_COND_EMPTY, BLK_ZONE_COND_EXP_OPEN, BLK_ZONE_COND_FULL,
    BLK_ZONE_COND_IMP_OPEN, BLK_ZONE_COND_NOT_WP, BLK_ZONE_TYPE_CONVENTIONAL,
    BLK_ZONE_TYPE_SEQWRITE_REQ, blk_zone,
};

use super::super::Errno;

/// What all zones have in common; sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) zone_size: u64,
    /// How much of a zone can be written.
    pub(super) capacity: u64,
    pub(super) count: u32,
    /// How many of them, at the beginning, are written anywhere and in any order.
    pub(super) conventional: u32,
    /// Most zones open at once; 0: all.
    pub(super) max_open: u32,
    /// Most zones open or closed at once; 0: all.
    pub(super) max_active: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Conventional,
    Empty,
    /// By a write; the device may close it.
    ImplicitlyOpen,
    /// By ZONE_OPEN.
    ExplicitlyOpen,
    /// Partly written, and nobody writes just now.
    Closed,
    Full,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Zone {
    pub(super) condition: Condition,
    /// Bytes from its start to its write pointer.
    pub(super) written: u64,
}

/// What of a zone's writes has been done.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// Bytes from the zone's start to the end of the last write that was done.
    done: u64,
    /// Writes that have been planned and have not ended.
    under_way: u32,
}

/// Where zones are written down as they change, each up to the end of the last write that was done.
pub(super) trait Records {
    fn put(&mut self, index: u32, zone: Zone);
}

/// The zones as requests find them: a write pointer moves when its write is planned, so that the next
/// one can be. What is written down follows when the write has been done.
#[derive(Debug)]
pub(super) struct Table<R> {
    shape: Shape,
    zones: Box<[Zone]>,
    progress: Box<[Progress]>,
    pub(super) records: R,
    open: u32,
    closed: u32,
    /// Where the search for a zone that may be closed goes on.
    next_victim: u32,
}

type Result<T> = std::result::Result<T, Errno>;

const REFUSED: Errno = Errno(libc::EIO);
/// `BLK_STS_ZONE_ACTIVE_RESOURCE`.
const TOO_MANY_ACTIVE: Errno = Errno(libc::EOVERFLOW);
/// `BLK_STS_ZONE_OPEN_RESOURCE`.
const TOO_MANY_OPEN: Errno = Errno(libc::ETOOMANYREFS);

/// The word of an empty zone.
pub(super) const EMPTY: u64 = (BLK_ZONE_COND_EMPTY as u64) << CONDITION;
/// In a word, the condition is above the sectors that were written.
const CONDITION: u32 = 56;

impl Zone {
    /// All of it in a word, which is written in one go.
    pub(super) fn word(self) -> u64 {
        let condition = match self.condition {
            Condition::Conventional => BLK_ZONE_COND_NOT_WP,
            Condition::Empty => BLK_ZONE_COND_EMPTY,
            Condition::ImplicitlyOpen => BLK_ZONE_COND_IMP_OPEN,
            Condition::ExplicitlyOpen => BLK_ZONE_COND_EXP_OPEN,
            Condition::Closed => BLK_ZONE_COND_CLOSED,
            Condition::Full => BLK_ZONE_COND_FULL,
        };
        u64::from(condition) << CONDITION | self.written >> 9
    }
}

impl Shape {
    pub(super) fn start(&self, index: u32) -> u64 {
        u64::from(index) * self.zone_size
    }

    /// A zone as it is before anything was written.
    pub(super) fn fresh(&self, index: u32) -> Zone {
        let condition = match index < self.conventional {
            true => Condition::Conventional,
            false => Condition::Empty,
        };
        Zone { condition, written: 0 }
    }

    pub(super) fn record(&self, index: u32, zone: Zone) -> blk_zone {
        let sectors = |bytes: u64| bytes >> 9;
        let start = self.start(index);
        let (cond, wp) = match zone.condition {
            Condition::Conventional => (BLK_ZONE_COND_NOT_WP, u64::MAX),
            Condition::Empty => (BLK_ZONE_COND_EMPTY, sectors(start)),
            Condition::ImplicitlyOpen => (BLK_ZONE_COND_IMP_OPEN, sectors(start + zone.written)),
            Condition::ExplicitlyOpen => (BLK_ZONE_COND_EXP_OPEN, sectors(start + zone.written)),
            Condition::Closed => (BLK_ZONE_COND_CLOSED, sectors(start + zone.written)),
            Condition::Full => (BLK_ZONE_COND_FULL, sectors(start + self.zone_size)),
        };
        let conventional = zone.condition == Condition::Conventional;
        blk_zone {
            start: sectors(start),
            len: sectors(self.zone_size),
            wp,
            type_: if conventional {
                BLK_ZONE_TYPE_CONVENTIONAL
            } else {
                BLK_ZONE_TYPE_SEQWRITE_REQ
            },
            cond,
            capacity: sectors(if conventional { self.zone_size } else { self.capacity }),
            ..Default::default()
        }
    }

    /// What a word says.
    pub(super) fn zone_of_word(&self, index: u32, word: u64) -> Option<Zone> {
        let [cond, ..] = word.to_be_bytes();
        let sectors = word & ((1 << CONDITION) - 1);
        let wp = (self.start(index) >> 9).checked_add(sectors)?;
        self.zone(index, &blk_zone { cond, wp, ..blk_zone::default() })
    }

    /// What a record says; a server may have died between two stores to it.
    pub(super) fn zone(&self, index: u32, record: &blk_zone) -> Option<Zone> {
        let fresh = self.fresh(index);
        let written = || (record.wp << 9).checked_sub(self.start(index));
        let condition = match record.cond {
            BLK_ZONE_COND_NOT_WP | BLK_ZONE_COND_EMPTY => return Some(fresh),
            BLK_ZONE_COND_IMP_OPEN => Condition::ImplicitlyOpen,
            BLK_ZONE_COND_EXP_OPEN => Condition::ExplicitlyOpen,
            BLK_ZONE_COND_CLOSED => Condition::Closed,
            BLK_ZONE_COND_FULL => Condition::Full,
            _ => return None,
        };
        match (fresh.condition, condition) {
            (Condition::Conventional, _) => None,
            (_, Condition::Full) => Some(Zone { condition, written: self.capacity }),
            (_, Condition::Closed | Condition::ImplicitlyOpen) if written()? == 0 => Some(fresh),
            _ if written()? >= self.capacity => {
                Some(Zone { condition: Condition::Full, written: self.capacity })
            }
            _ => Some(Zone { condition, written: written()? }),
        }
    }
}

impl<R: Records> Table<R> {
    /// Zones that `records` has already.
    pub(super) fn new(shape: Shape, zones: Vec<Zone>, records: R) -> Self {
        let progress = |zone: &Zone| Progress { done: zone.written, under_way: 0 };
        let progress = zones.iter().map(progress).collect();
        let zones = zones.into();
        let mut this = Self { shape, zones, progress, records, open: 0, closed: 0, next_victim: 0 };
        for index in 0..this.shape.count {
            this.count(this.zone(index).condition, true);
        }
        this
    }

    fn zone(&self, index: u32) -> Zone {
        self.zones[index as usize]
    }

    /// The zone as far as its writes have been done.
    fn done_of(&self, index: u32) -> Zone {
        let (zone, done) = (self.zone(index), self.progress[index as usize].done);
        let filling = zone.condition == Condition::Full && done < self.shape.capacity;
        let condition = if filling { Condition::ImplicitlyOpen } else { zone.condition };
        Zone { condition, written: done }
    }

    /// Changes a zone, and writes it down if that shows.
    fn update(&mut self, index: u32, zone: Zone, done: u64) {
        let before = self.done_of(index);
        self.count(self.zone(index).condition, false);
        self.count(zone.condition, true);
        self.zones[index as usize] = zone;
        self.progress[index as usize].done = done;
        let after = self.done_of(index);
        if after != before {
            self.records.put(index, after);
        }
    }

    fn set(&mut self, index: u32, zone: Zone) {
        self.update(index, zone, self.progress[index as usize].done);
    }

    fn count(&mut self, condition: Condition, more: bool) {
        let counter = match condition {
            Condition::ImplicitlyOpen | Condition::ExplicitlyOpen => &mut self.open,
            Condition::Closed => &mut self.closed,
            _ => return,
        };
        *counter = if more { *counter + 1 } else { *counter - 1 };
    }

    /// The zone that `offset` lies in, and how far into it.
    fn locate(&self, offset: u64) -> Result<(u32, u64)> {
        let index = u32::try_from(offset / self.shape.zone_size).map_err(|_| REFUSED)?;
        if index >= self.shape.count {
            return Err(REFUSED);
        }
        Ok((index, offset % self.shape.zone_size))
    }

    /// A zone with a write pointer that `offset` is the start of.
    fn sequential(&self, offset: u64) -> Result<(u32, Zone)> {
        let (index, within) = self.locate(offset)?;
        let zone = self.zone(index);
        match zone.condition {
            Condition::Conventional => Err(REFUSED),
            _ if within != 0 => Err(REFUSED),
            _ => Ok((index, zone)),
        }
    }

    /// A write at `offset` is planned. Answers whether the table wants to hear of its end.
    pub(super) fn write(&mut self, offset: u64, length: u32) -> Result<bool> {
        let (index, within) = self.locate(offset)?;
        let zone = self.zone(index);
        if zone.condition == Condition::Conventional {
            let fits = within + u64::from(length) <= self.shape.zone_size;
            return if fits { Ok(false) } else { Err(REFUSED) };
        }
        if within != zone.written {
            return Err(REFUSED);
        }
        self.advance(index, zone, length)?;
        Ok(true)
    }

    /// A write at the write pointer of the zone at `offset` is planned: says where.
    pub(super) fn append(&mut self, offset: u64, length: u32) -> Result<u64> {
        let (index, zone) = self.sequential(offset)?;
        self.advance(index, zone, length)?;
        Ok(offset + zone.written)
    }

    fn advance(&mut self, index: u32, zone: Zone, length: u32) -> Result<()> {
        let written = zone.written + u64::from(length);
        if zone.condition == Condition::Full || written > self.shape.capacity {
            return Err(REFUSED);
        }
        let condition = match zone.condition {
            Condition::ExplicitlyOpen => Condition::ExplicitlyOpen,
            _ => Condition::ImplicitlyOpen,
        };
        self.make_room(zone.condition)?;
        let full = written == self.shape.capacity;
        self.set(
            index,
            Zone { condition: if full { Condition::Full } else { condition }, written },
        );
        self.progress[index as usize].under_way += 1;
        Ok(())
    }

    /// The write at `offset` has been done.
    pub(super) fn done(&mut self, offset: u64, length: u32) {
        let Some((index, within)) = self.ended(offset) else { return };
        let zone = self.zone(index);
        // A zone that was emptied meanwhile has nothing of it.
        let end = (within + u64::from(length)).min(zone.written);
        self.update(index, zone, self.progress[index as usize].done.max(end));
    }

    /// The write at `offset` failed: the next one may be there again, unless others came between.
    pub(super) fn failed(&mut self, offset: u64, length: u32) {
        let Some((index, within)) = self.ended(offset) else { return };
        let zone = self.zone(index);
        let Progress { done, under_way } = self.progress[index as usize];
        let last = zone.written == within + u64::from(length) && done <= within;
        let written = match last {
            // What failed before it leaves nothing either.
            _ if under_way == 0 => done,
            true => within,
            false => return,
        };
        if written < zone.written {
            if zone.condition == Condition::Full && written > 0 && !self.has_room() {
                // Others have the places of active zones meanwhile: the zone is finished instead.
                return self.update(index, zone, zone.written);
            }
            let condition = match zone.condition {
                Condition::Full => Condition::Closed,
                other => other,
            };
            let emptied = written == 0 && condition == Condition::Closed;
            let condition = if emptied { Condition::Empty } else { condition };
            self.set(index, Zone { condition, written });
        }
    }

    /// A write at `offset` has ended: its zone, and where in it.
    fn ended(&mut self, offset: u64) -> Option<(u32, u64)> {
        let (index, within) = self.locate(offset).ok()?;
        let progress = &mut self.progress[index as usize];
        progress.under_way = progress.under_way.saturating_sub(1);
        (self.zone(index).condition != Condition::Conventional).then_some((index, within))
    }

    /// Whether one more zone may be active.
    fn has_room(&self) -> bool {
        let most = self.shape.max_active;
        most == 0 || self.open + self.closed < most
    }

    /// Makes sure that a zone of this condition may be opened.
    fn make_room(&mut self, condition: Condition) -> Result<()> {
        let max_open = self.shape.max_open;
        match condition {
            Condition::ImplicitlyOpen | Condition::ExplicitlyOpen => return Ok(()),
            Condition::Empty if !self.has_room() => {
                return Err(TOO_MANY_ACTIVE);
            }
            _ => {}
        }
        if max_open != 0 && self.open >= max_open {
            self.close_one()?;
        }
        Ok(())
    }

    /// Closes a zone that nobody asked to be open, one after another in turn.
    fn close_one(&mut self) -> Result<()> {
        let Shape { count, .. } = self.shape;
        let turn = (self.next_victim..count).chain(0..self.next_victim);
        let open = |index: &u32| self.zone(*index).condition == Condition::ImplicitlyOpen;
        let victim = turn.into_iter().find(open).ok_or(TOO_MANY_OPEN)?;
        self.next_victim = (victim + 1) % count;
        self.close_zone(victim);
        Ok(())
    }

    fn close_zone(&mut self, index: u32) {
        let Zone { written, .. } = self.zone(index);
        let condition = if written == 0 { Condition::Empty } else { Condition::Closed };
        self.set(index, Zone { condition, written });
    }

    pub(super) fn open(&mut self, offset: u64) -> Result<()> {
        let (index, zone) = self.sequential(offset)?;
        if zone.condition == Condition::Full {
            return Err(REFUSED);
        }
        self.make_room(zone.condition)?;
        self.set(index, Zone { condition: Condition::ExplicitlyOpen, ..zone });
        Ok(())
    }

    pub(super) fn close(&mut self, offset: u64) -> Result<()> {
        let (index, zone) = self.sequential(offset)?;
        match zone.condition {
            Condition::ImplicitlyOpen | Condition::ExplicitlyOpen => {
                self.close_zone(index);
                Ok(())
            }
            Condition::Closed => Ok(()),
            _ => Err(REFUSED),
        }
    }

    pub(super) fn finish(&mut self, offset: u64) -> Result<()> {
        let (index, _) = self.sequential(offset)?;
        let written = self.shape.capacity;
        self.update(index, Zone { condition: Condition::Full, written }, written);
        Ok(())
    }

    pub(super) fn reset(&mut self, offset: u64) -> Result<()> {
        let index = self.resettable(offset)?;
        self.update(index, self.shape.fresh(index), 0);
        Ok(())
    }

    pub(super) fn reset_all(&mut self) {
        for index in self.shape.conventional..self.shape.count {
            self.update(index, self.shape.fresh(index), 0);
        }
    }

    /// The zone at `offset`, if it can be emptied.
    pub(super) fn resettable(&self, offset: u64) -> Result<u32> {
        self.sequential(offset).map(|(index, _)| index)
    }
}

#[cfg(test)]
mod tests;
