//! Memory that clients have registered with a device.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use ublk_sys::{ublk_shmem_zc_index, ublk_shmem_zc_offset};

use crate::driver::MemoryMap;

/// How much memory can be registered at once: so many pieces.
pub(crate) const MAX_SHARED: usize = 256;

/// Where each registered piece is mapped, by the driver's index. The queues' reactors read it while
/// pieces come and go.
#[derive(Debug)]
pub struct SharedMemory {
    pieces: Box<[Piece]>,
    maps: Mutex<Vec<(u16, MemoryMap)>>,
}

impl Default for SharedMemory {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Debug, Default)]
struct Piece {
    base: AtomicPtr<u8>,
    length: AtomicUsize,
}

impl SharedMemory {
    /// Nothing is registered.
    pub fn new() -> Self {
        let pieces = (0..MAX_SHARED).map(|_| Piece::default()).collect();
        Self { pieces, maps: Mutex::default() }
    }

    /// The first index without memory: the driver's next, since it gives out the lowest.
    pub(crate) fn vacant(&self) -> Option<u16> {
        let vacant = |piece: &Piece| piece.base.load(Ordering::Relaxed).is_null();
        u16::try_from(self.pieces.iter().position(vacant)?).ok()
    }

    /// From now on `index` is this. It must be known before the driver names it in a request.
    ///
    /// # Panics
    /// From index 256.
    pub fn insert(&self, index: u16, map: MemoryMap) {
        let piece = &self.pieces[usize::from(index)];
        piece.length.store(map.length(), Ordering::Relaxed);
        // Release: who sees the base sees the length that goes with it.
        piece.base.store(map.base(), Ordering::Release);
        self.maps.lock().unwrap_or_else(PoisonError::into_inner).push((index, map));
    }

    /// What was `from` is `to` from now on: the driver has chosen another index than was expected.
    /// From index 256 it stays mapped, and nobody finds it.
    pub(crate) fn rename(&self, from: u16, to: u16) {
        let old = &self.pieces[usize::from(from)];
        let base = old.base.swap(ptr::null_mut(), Ordering::Relaxed);
        if let Some(new) = self.pieces.get(usize::from(to)) {
            new.length.store(old.length.load(Ordering::Relaxed), Ordering::Relaxed);
            new.base.store(base, Ordering::Release);
        }
        let mut maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        maps.iter_mut().filter(|(of, _)| *of == from).for_each(|(of, _)| *of = to);
    }

    /// Unmaps what was at `index`, which the driver names no more and no request is on.
    pub fn remove(&self, index: u16) {
        if let Some(piece) = self.pieces.get(usize::from(index)) {
            piece.base.store(ptr::null_mut(), Ordering::Relaxed);
        }
        self.maps.lock().unwrap_or_else(PoisonError::into_inner).retain(|&(of, _)| of != index);
    }

    /// Whether there is something at `index`.
    pub(crate) fn has(&self, index: u16) -> bool {
        let maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        maps.iter().any(|&(of, _)| of == index)
    }

    /// What a descriptor's `addr` stands for; none if somebody else has registered it.
    pub(crate) fn find(&self, addr: u64, length: u32) -> Option<*mut u8> {
        let piece = self.pieces.get(usize::from(ublk_shmem_zc_index(addr)))?;
        let at = ublk_shmem_zc_offset(addr) as usize;
        // Acquire: the length is the one stored before the base.
        let base = piece.base.load(Ordering::Acquire);
        let within = at + length as usize <= piece.length.load(Ordering::Relaxed);
        (!base.is_null() && within).then(|| base.wrapping_add(at))
    }
}

#[cfg(test)]
mod tests {
    use ublk_sys::ublk_shmem_zc_addr;

    use super::*;

    #[test]
    fn a_place_is_found_only_where_it_lies_in_registered_memory() {
        let shared = SharedMemory::new();
        let mut memory = Box::new([0_u8; 8192]);
        let base = memory.as_mut_ptr();
        // SAFETY: the memory lives as long as the test.
        let map = |length| unsafe { MemoryMap::new(base, length, Box::new(())) };
        assert_eq!(shared.vacant(), Some(0));
        shared.insert(0, map(8192));
        shared.insert(1, map(4096));
        assert_eq!(shared.vacant(), Some(2));
        assert_eq!(shared.find(ublk_shmem_zc_addr(0, 4096), 4096), Some(base.wrapping_add(4096)));
        assert_eq!(shared.find(ublk_shmem_zc_addr(1, 4096), 4096), None, "beyond its end");
        assert_eq!(shared.find(ublk_shmem_zc_addr(2, 0), 512), None);
        assert_eq!(shared.find(ublk_shmem_zc_addr(u16::MAX, 0), 512), None);
        shared.rename(1, 3);
        assert_eq!(shared.find(ublk_shmem_zc_addr(1, 0), 512), None);
        assert_eq!(shared.find(ublk_shmem_zc_addr(3, 512), 512), Some(base.wrapping_add(512)));
        assert!(shared.has(3) && !shared.has(1));
        shared.remove(0);
        assert_eq!(shared.find(ublk_shmem_zc_addr(0, 0), 512), None);
        assert_eq!(shared.vacant(), Some(0));
    }
}
