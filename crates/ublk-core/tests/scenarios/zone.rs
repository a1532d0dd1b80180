//! The oracle's state of one zone.

use std::mem::offset_of;

use ublk_core::driver::sim::ZoneAction;
use ublk_sys::{
    BLK_ZONE_COND_CLOSED, BLK_ZONE_COND_EMPTY, BLK_ZONE_COND_EXP_OPEN, BLK_ZONE_COND_FULL,
    BLK_ZONE_COND_IMP_OPEN, blk_zone,
};

use crate::scenario::{SECTOR, ZONE};

/// The expected state of a zone. Offsets are bytes from the start of the zone.
pub(crate) struct Zone {
    capacity: u64,
    /// The device may close the zone to open another, unless a client opened the zone explicitly.
    yields: bool,
    /// The scenario replaces the server: the next server takes an open zone without data for an empty zone.
    forgets: bool,
    /// Write pointer and condition; unknown after a failed change.
    state: Option<(u64, u8)>,
    /// Bytes of all appends since the last reset.
    asked: u64,
    /// For each sector the number of the write and the sector's index in the write.
    sectors: Vec<Option<(u64, usize)>>,
    changing: usize,
    reading: usize,
    /// A change is in flight that no other request may overlap.
    alone: bool,
    /// Number of changes that began, plus number of changes that ended.
    changes: u64,
}

impl Zone {
    pub(crate) fn new(capacity: u64, (yields, forgets): (bool, bool)) -> Self {
        Self {
            capacity,
            yields,
            forgets,
            state: Some((0, BLK_ZONE_COND_EMPTY)),
            asked: 0,
            sectors: vec![None; usize::try_from(capacity).unwrap() / SECTOR],
            changing: 0,
            reading: 0,
            alone: false,
            changes: 0,
        }
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    pub(crate) fn sectors(&self) -> &[Option<(u64, usize)>] {
        &self.sectors
    }

    fn begin(&mut self) {
        self.changing += 1;
        self.changes += 1;
    }

    pub(crate) fn begin_append(&mut self, length: u64) {
        self.begin();
        self.asked += length;
    }

    pub(crate) fn begin_alone(&mut self) {
        self.begin();
        self.alone = true;
    }

    /// Whether a change is in flight that no other request may overlap.
    pub(crate) fn is_taken(&self) -> bool {
        self.alone
    }

    pub(crate) fn begin_read(&mut self) {
        self.reading += 1;
    }

    pub(crate) fn end_read(&mut self) {
        self.reading -= 1;
    }

    fn end(&mut self) {
        self.changing -= 1;
        self.changes += 1;
    }

    /// Whether the zone may be active: open or closed.
    pub(crate) fn may_be_active(&self) -> bool {
        self.state.is_none_or(|(_, known)| is_active(known))
    }

    /// Whether the zone may be explicitly open; the device does not close such a zone to open another.
    pub(crate) fn may_be_held(&self) -> bool {
        self.state.is_none_or(|(_, known)| known == BLK_ZONE_COND_EXP_OPEN)
    }

    /// The device refused a change before the change had an effect; `asked` is the length of the append.
    pub(crate) fn refused(&mut self, asked: u64) {
        self.end();
        self.alone = false;
        self.asked -= asked;
    }

    /// Whether the device may refuse an append.
    pub(crate) fn may_be_full(&self) -> bool {
        self.asked > self.capacity || self.is(BLK_ZONE_COND_FULL) || self.state.is_none()
    }

    fn is(&self, condition: u8) -> bool {
        self.state.is_some_and(|(_, known)| known == condition)
    }

    /// The write pointer, if no change is in flight and the zone is not full.
    pub(crate) fn pointer_at_rest(&self) -> Option<u64> {
        let (pointer, condition) = self.state.filter(|_| self.changing == 0)?;
        (condition != BLK_ZONE_COND_FULL).then_some(pointer)
    }

    pub(crate) fn changes_at_rest(&self) -> Option<u64> {
        (self.changing == 0).then_some(self.changes)
    }

    /// Whether the scenario may send this change now: the oracle can tell its effect from the effects of the
    /// requests in flight.
    pub(crate) fn may(&self, action: ZoneAction) -> bool {
        let Some((_, condition)) = self.state else { return false };
        let alone = self.changing == 0 && self.reading == 0;
        alone
            && match action {
                ZoneAction::Open => condition != BLK_ZONE_COND_FULL,
                ZoneAction::Close => is_open(condition),
                _ => true,
            }
    }

    /// An append ended: at offset `within` of the zone, or with an error.
    pub(crate) fn appended(
        &mut self,
        born: u64,
        length: u64,
        within: Option<u64>,
    ) -> Result<(), String> {
        self.end();
        let Some(at) = within else {
            self.state = None;
            return Ok(());
        };
        if at % SECTOR as u64 != 0 || at + length > self.capacity {
            return Err(format!("an append went to {at:#x}, which is not in the zone"));
        }
        self.fill(born, at, length)?;
        self.advance(length);
        Ok(())
    }

    /// A write at the write pointer ended.
    pub(crate) fn written(&mut self, born: u64, length: u64, ok: bool) -> Result<(), String> {
        self.end();
        self.alone = false;
        self.asked += length;
        let Some((pointer, _)) = self.state.filter(|_| ok) else {
            self.state = None;
            return Ok(());
        };
        self.fill(born, pointer, length)?;
        self.advance(length);
        Ok(())
    }

    fn fill(&mut self, born: u64, at: u64, length: u64) -> Result<(), String> {
        let first = usize::try_from(at).unwrap() / SECTOR;
        let count = usize::try_from(length).unwrap() / SECTOR;
        for (part, sector) in self.sectors[first..first + count].iter_mut().enumerate() {
            if let Some((other, _)) = sector.replace((born, part)) {
                return Err(format!("append {born} went over {other}, to {at:#x}"));
            }
        }
        Ok(())
    }

    fn advance(&mut self, length: u64) {
        let Some((pointer, condition)) = &mut self.state else { return };
        *pointer += length;
        if *pointer == self.capacity {
            *condition = BLK_ZONE_COND_FULL;
        } else if *condition != BLK_ZONE_COND_EXP_OPEN {
            *condition = BLK_ZONE_COND_IMP_OPEN;
        }
    }

    pub(crate) fn changed(&mut self, action: ZoneAction, ok: bool) {
        self.end();
        self.alone = false;
        let pointer = self.state.filter(|_| ok).map(|(pointer, _)| pointer);
        self.state = pointer.map(|pointer| match action {
            ZoneAction::Open => (pointer, BLK_ZONE_COND_EXP_OPEN),
            ZoneAction::Close => (pointer, closed(pointer)),
            ZoneAction::Finish => (self.capacity, BLK_ZONE_COND_FULL),
            ZoneAction::Reset | ZoneAction::ResetAll => (0, BLK_ZONE_COND_EMPTY),
        });
        if matches!(action, ZoneAction::Reset | ZoneAction::ResetAll) {
            // After a failed reset the contents of the zone are unknown.
            self.sectors.fill(None);
            self.asked = 0;
        }
    }

    /// Checks a zone report of the zone at `start` against the expected state. `before` is the value of
    /// `changes` when the report was requested. Returns the condition if no change overlapped the report.
    pub(crate) fn reported(
        &mut self,
        record: &[u8],
        start: u64,
        before: Option<u64>,
    ) -> Result<Option<u8>, String> {
        if before.is_none() || before != self.changes_at_rest() {
            return Ok(None);
        }
        let word = |at: usize| u64::from_ne_bytes(record[at..at + 8].try_into().unwrap());
        let condition = record[offset_of!(blk_zone, cond)];
        let found = (word(offset_of!(blk_zone, wp)) << 9).wrapping_sub(start);
        if word(offset_of!(blk_zone, start)) << 9 != start {
            return Err("another zone is reported".into());
        }
        let full = condition == BLK_ZONE_COND_FULL;
        let pointer = if full { self.capacity } else { found };
        if full && found != ZONE || pointer > self.capacity {
            return Err(format!("its write pointer is at {found:#x}"));
        }
        self.asked = pointer;
        let may_close = self.yields || self.forgets && pointer == 0;
        let gave_way = may_close && condition == closed(pointer);
        match self.state.replace((pointer, condition)) {
            // A change of the device's own: a report under way may have looked before.
            Some((known, BLK_ZONE_COND_IMP_OPEN)) if gave_way && known == pointer => {
                self.changes += 2;
            }
            Some(known) if known != (pointer, condition) => {
                return Err(format!("it is at {pointer:#x} in {condition}, should be {known:x?}"));
            }
            _ => {}
        }
        Ok(Some(condition))
    }
}

/// The condition of an open zone after CLOSE ZONE: empty if the zone holds no data, which is so after a
/// failed first write.
fn closed(pointer: u64) -> u8 {
    if pointer == 0 { BLK_ZONE_COND_EMPTY } else { BLK_ZONE_COND_CLOSED }
}

pub(crate) fn is_open(condition: u8) -> bool {
    [BLK_ZONE_COND_IMP_OPEN, BLK_ZONE_COND_EXP_OPEN].contains(&condition)
}

pub(crate) fn is_active(condition: u8) -> bool {
    is_open(condition) || condition == BLK_ZONE_COND_CLOSED
}
