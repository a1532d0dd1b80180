//! A heap apart from that of the C library, so that the heap can be locked in memory.
//!
//! Regions of the heap form a list, which the first bytes of each region make: all of them are locked when
//! the first device asks for locked memory, and later ones as they come.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::io;
use std::ptr;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use dlmalloc::{Allocator, Dlmalloc};

/// The heap of the process, for `#[global_allocator]`. There is one: all values share the memory.
#[derive(Debug)]
pub struct Heap;

/// Held by whoever uses [`MEMORY`]. A mutex of the standard library allocates nothing.
static TURN: Mutex<()> = Mutex::new(());
static MEMORY: Memory = Memory(UnsafeCell::new(Dlmalloc::new_with_allocator(Regions)));
static REGIONS: Mutex<List> = Mutex::new(List(ptr::null_mut()));

struct Memory(UnsafeCell<Dlmalloc<Regions>>);

// SAFETY: used by the holder of `TURN` only.
unsafe impl Sync for Memory {}

fn take<T>(mutex: &'static Mutex<T>) -> MutexGuard<'static, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks all regions that there are now.
///
/// # Errors
/// Those of mlock(2).
pub(super) fn lock_all() -> io::Result<()> {
    take(&REGIONS).lock_all()
}

impl Heap {
    fn with<R>(job: impl FnOnce(&mut Dlmalloc<Regions>) -> R) -> R {
        let _turn = take(&TURN);
        // SAFETY: nobody else has the turn, and `job` does not call this function.
        job(unsafe { &mut *MEMORY.0.get() })
    }
}

/// Both mutexes, from before a fork(2) until after it: a child that allocates finds neither held by a thread
/// that the child does not have.
struct AtFork(UnsafeCell<Option<(MutexGuard<'static, ()>, MutexGuard<'static, List>)>>);

// SAFETY: used by the holder of `TURN` only: the guards' thread, and its copy in the child.
unsafe impl Sync for AtFork {}

static AT_FORK: AtFork = AtFork(UnsafeCell::new(None));

extern "C" fn before_fork() {
    let guards = (take(&TURN), take(&REGIONS));
    // SAFETY: this thread has the turn.
    unsafe { *AT_FORK.0.get() = Some(guards) };
}

extern "C" fn after_fork() {
    // SAFETY: the thread of `before_fork`, or its copy in the child, which has the turn until here.
    drop(unsafe { &mut *AT_FORK.0.get() }.take());
}

/// Lets children allocate, before the heap has its first region. The C library does so for its own heap.
fn mind_forks() {
    static MINDED: Once = Once::new();
    MINDED.call_once(|| {
        // SAFETY: the functions live as long as this code; they take mutexes in the order of `alloc`.
        let refused =
            unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(after_fork)) };
        // Only for want of memory, and then of the very first region too.
        assert_eq!(refused, 0, "pthread_atfork");
    });
}

// SAFETY: Dlmalloc keeps the contract; one thread at a time uses it.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        Self::with(|memory| unsafe { memory.malloc(layout.size(), layout.align()) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        Self::with(|memory| unsafe { memory.calloc(layout.size(), layout.align()) })
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        Self::with(|memory| unsafe { memory.free(at, layout.size(), layout.align()) });
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        Self::with(|memory| unsafe { memory.realloc(at, layout.size(), layout.align(), size) })
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
            super::lock(at.cast(), header.length)?;
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
        mind_forks();
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
        let mut list = take(&REGIONS);
        // SAFETY: a new mapping of `length` bytes, and page-aligned.
        unsafe { list.insert(base.cast(), length) };
        // Memory that cannot be locked is not used: there is none left then, and whoever touches the memory
        // later would be killed.
        if super::is_on() && super::lock(base.cast(), length).is_err() {
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
        let length = unsafe { take(&REGIONS).remove(header) };
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
