//! The files of the layers that a server has open, by the numbers that the index has for the layers.

use std::fs;
use std::io;

use ublk_overlay::extent::MAX_LAYERS;
use uuid::Uuid;

use super::super::file::File;

/// The numbers of layers, and the places of their files among the target's.
#[derive(Debug)]
pub(super) struct Layers {
    slots: Vec<Slot>,
    /// The spare places: the first, and the first behind.
    spare: (u16, u16),
    /// Files of the time of opening whose layers are merged: the target names their descriptors, which are
    /// those of `/dev/null` now, as long as it lives.
    closed: Vec<File>,
}

#[derive(Debug)]
enum Slot {
    Free,
    /// For a layer that is being made.
    Reserved {
        place: u16,
    },
    Open(Open),
}

/// A layer.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) file: File,
    /// The identity of the layer.
    pub(super) id: Uuid,
    /// The place of the file.
    pub(super) place: u16,
}

impl Layers {
    /// The layers at the time of opening, the lowest first; the places from `spare.0` to `spare.1` are free.
    pub(super) fn new(layers: impl Iterator<Item = Open>, spare: (u16, u16)) -> Self {
        Self { slots: layers.map(Slot::Open).collect(), spare, closed: Vec::new() }
    }

    /// The number of layers.
    pub(super) fn count(&self) -> usize {
        self.iter().count()
    }

    /// All layers, with their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Open)> {
        (0..).zip(&self.slots).filter_map(|(number, slot)| match slot {
            Slot::Open(open) => Some((number, open)),
            Slot::Free | Slot::Reserved { .. } => None,
        })
    }

    pub(super) fn get(&self, number: u32) -> Option<&Open> {
        match self.slots.get(number as usize)? {
            Slot::Open(open) => Some(open),
            Slot::Free | Slot::Reserved { .. } => None,
        }
    }

    /// The place of a layer's file.
    #[inline]
    pub(super) fn place(&self, number: u32) -> u16 {
        self.get(number).map_or(0, |open| open.place)
    }

    /// Spare places without a file.
    fn free_places(&self) -> impl Iterator<Item = u16> + '_ {
        let used = |slot: &Slot| match slot {
            Slot::Open(Open { place, .. }) | Slot::Reserved { place } => Some(*place),
            Slot::Free => None,
        };
        let (first, behind) = self.spare;
        (first..behind)
            .filter(move |&place| !self.slots.iter().any(|slot| used(slot) == Some(place)))
    }

    /// A number and a place for a layer that is to be made, if that leaves `left` places.
    pub(super) fn reserve(&mut self, left: usize) -> Option<(u32, u16)> {
        let place = self.free_places().next().filter(|_| self.free_places().count() > left)?;
        let is_free = |slot: &Slot| matches!(slot, Slot::Free);
        let number = self.slots.iter().position(is_free).unwrap_or(self.slots.len());
        let known = u32::try_from(number).ok().filter(|&number| number < MAX_LAYERS)?;
        if number == self.slots.len() {
            self.slots.push(Slot::Free);
        }
        self.slots[number] = Slot::Reserved { place };
        Some((known, place))
    }

    /// The layer of a reserved number has been made.
    pub(super) fn fill(&mut self, number: u32, id: Uuid, file: File) {
        if let Some(slot @ &mut Slot::Reserved { place }) = self.slots.get_mut(number as usize) {
            *slot = Slot::Open(Open { file, id, place });
        }
    }

    /// The layer of a reserved number is not made, after all.
    pub(super) fn cancel(&mut self, number: u32) {
        if let Some(slot @ Slot::Reserved { .. }) = self.slots.get_mut(number as usize) {
            *slot = Slot::Free;
        }
    }

    /// Closes the file of a layer that is merged into another. Nothing names the layer any more.
    ///
    /// # Errors
    /// The errno of a system call: the file stays open.
    pub(super) fn close(&mut self, number: u32, nothing: &fs::File) -> io::Result<()> {
        if let Some(open) = self.get(number) {
            open.file.close_for(nothing)?;
        }
        let slot = std::mem::replace(&mut self.slots[number as usize], Slot::Free);
        if let Slot::Open(open) = slot
            && open.place < self.spare.0
        {
            self.closed.push(open.file);
        }
        Ok(())
    }
}
