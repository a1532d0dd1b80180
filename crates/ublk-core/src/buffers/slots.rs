//! The indexes of a reactor's buffer table.

/// Hands out indexes; nothing else chooses one. The kernel unregisters whatever sits at the index
/// it is given, whoever put it there (trap 7), so one owner per ring is what keeps requests apart.
#[derive(Debug)]
pub(crate) struct Slots {
    free: Vec<u16>,
}

impl Slots {
    /// All of `0..count`, lowest first.
    pub(crate) fn new(count: u16) -> Self {
        Self { free: (0..count).rev().collect() }
    }

    #[inline]
    pub(crate) fn take(&mut self) -> Option<u16> {
        self.free.pop()
    }

    /// As many as asked for, or none.
    pub(crate) fn take_many(&mut self, count: u16) -> Option<Box<[u16]>> {
        let left = self.free.len().checked_sub(count.into())?;
        Some(self.free.split_off(left).into_iter().rev().collect())
    }

    /// Gives back an index to be handed out after all others.
    pub(crate) fn put_last(&mut self, slot: u16) {
        debug_assert!(!self.free.contains(&slot), "slot {slot} given back twice");
        self.free.insert(0, slot);
    }

    /// Gives back an index whose table entry is empty again.
    #[inline]
    pub(crate) fn put(&mut self, slot: u16) {
        debug_assert!(!self.free.contains(&slot), "slot {slot} given back twice");
        self.free.push(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_index_is_handed_out_twice() {
        let mut slots = Slots::new(3);
        let taken: Vec<_> = std::iter::from_fn(|| slots.take()).collect();
        assert_eq!(taken, [0, 1, 2]);
        slots.put(1);
        assert_eq!((slots.take(), slots.take()), (Some(1), None));
    }

    #[test]
    fn what_is_put_last_waits_longest() {
        let mut slots = Slots::new(3);
        let first = slots.take();
        slots.put_last(0);
        let then: Vec<_> = std::iter::from_fn(|| slots.take()).collect();
        assert_eq!((first, then), (Some(0), vec![1, 2, 0]));
    }
}
