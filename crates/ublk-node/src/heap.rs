//! The heap of the addon, apart from the heap of Node.js so that it can be locked in memory.
//!
//! Regions of the heap form a list, which the first bytes of each region make: all of them are locked when
//! the first device asks for locked memory, and later ones as they come.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::io;
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dlmalloc::{Allocator, Dlmalloc};
use ublk_core::locked;

/// The allocator of all Rust code of the addon.
#[global_allocator]
static HEAP: Heap = Heap {
    turn: Mutex::new(()),
    regions: Mutex::new(List(ptr::null_mut())),
    memory: UnsafeCell::new(Dlmalloc::new_with_allocator(Regions)),
};

/// Names the heap to the core.
pub(crate) fn announce() {
    locked::set_heap(|| HEAP.regions().lock_all());
}

struct Heap {
    /// Held by whoever uses `memory`. A mutex of the standard library allocates nothing.
    turn: Mutex<()>,
    regions: Mutex<List>,
    memory: UnsafeCell<Dlmalloc<Regions>>,
}

// SAFETY: `memory` is used by the holder of `turn` only.
unsafe impl Sync for Heap {}

impl Heap {
    fn with<R>(&self, job: impl FnOnce(&mut Dlmalloc<Regions>) -> R) -> R {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: nobody else has the turn, and `job` does not call this function.
        job(unsafe { &mut *self.memory.get() })
    }

    fn regions(&self) -> MutexGuard<'_, List> {
        self.regions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// SAFETY: Dlmalloc keeps the contract; one thread at a time uses it.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        self.with(|memory| unsafe { memory.malloc(layout.size(), layout.align()) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        self.with(|memory| unsafe { memory.calloc(layout.size(), layout.align()) })
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        self.with(|memory| unsafe { memory.free(at, layout.size(), layout.align()) });
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        self.with(|memory| unsafe { memory.realloc(at, layout.size(), layout.align(), size) })
    }
}

/// Where the heap gets its memory from.
struct Regions;

/// The first bytes of each region.
#[repr(C, align(16))]
struct Header {
    next: *mut Header,
    previous: *mut Header,
    length: usize,
}

const HEADER: usize = size_of::<Header>();
const PAGE: usize = 4096;

/// The first region.
struct List(*mut Header);

// SAFETY: regions belong to the process; the list is in a mutex.
unsafe impl Send for List {}

impl List {
    fn lock_all(&self) -> io::Result<()> {
        let mut at = self.0;
        // SAFETY: each header is that of a mapped region, since the caller holds the list.
        while let Some(header) = unsafe { at.as_ref() } {
            locked::lock(at.cast(), header.length)?;
            at = header.next;
        }
        Ok(())
    }

    /// # Safety
    /// `header` is the begin of a region of `length` bytes that is in no list.
    unsafe fn insert(&mut self, header: *mut Header, length: usize) {
        // SAFETY: the caller's promise; the first region is mapped.
        unsafe {
            header.write(Header { next: self.0, previous: ptr::null_mut(), length });
            if let Some(next) = self.0.as_mut() {
                next.previous = header;
            }
        }
        self.0 = header;
    }

    /// # Safety
    /// `header` is in the list.
    unsafe fn remove(&mut self, header: *mut Header) -> usize {
        // SAFETY: the caller's promise; regions of the list are mapped.
        unsafe {
            let Header { next, previous, length } = header.read();
            match previous.as_mut() {
                Some(previous) => previous.next = next,
                None => self.0 = next,
            }
            if let Some(next) = next.as_mut() {
                next.previous = previous;
            }
            length
        }
    }
}

// SAFETY: regions are memory that nobody else has, and stay mapped until `free`.
unsafe impl Allocator for Regions {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        let none = (ptr::null_mut(), 0, 0);
        let Some(length) =
            size.checked_add(HEADER).and_then(|sum| sum.checked_next_multiple_of(PAGE))
        else {
            return none;
        };
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return none;
        }
        let mut list = HEAP.regions();
        // SAFETY: a new mapping of `length` bytes, and page-aligned.
        unsafe { list.insert(base.cast(), length) };
        if locked::is_on() && locked::lock(base.cast(), length).is_err() {
            // SAFETY: just inserted; nobody has an address of the region.
            unsafe { list.remove(base.cast()) };
            // SAFETY: exactly what mmap returned.
            unsafe { libc::munmap(base, length) };
            return none;
        }
        // SAFETY: the region is longer than its header.
        (unsafe { base.cast::<u8>().add(HEADER) }, length - HEADER, 0)
    }

    fn remap(&self, _at: *mut u8, _old: usize, _new: usize, _can_move: bool) -> *mut u8 {
        ptr::null_mut()
    }

    fn free_part(&self, _at: *mut u8, _old: usize, _new: usize) -> bool {
        false
    }

    fn free(&self, at: *mut u8, _size: usize) -> bool {
        // SAFETY: `at` comes from `alloc`, which has put the header in front.
        let header = unsafe { at.sub(HEADER) }.cast::<Header>();
        // SAFETY: `alloc` has inserted the header.
        let length = unsafe { HEAP.regions().remove(header) };
        // SAFETY: exactly what mmap returned; nobody uses the region any more.
        unsafe { libc::munmap(header.cast(), length) == 0 }
    }

    /// Whole regions are given back; see [`free_part`](Self::free_part).
    fn can_release_part(&self, _flags: u32) -> bool {
        true
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        PAGE
    }
}
