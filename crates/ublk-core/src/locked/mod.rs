//! Memory that is never swapped out: whatever a reactor touches while it serves.
//!
//! A reactor whose memory has been swapped out to the very device that the reactor serves waits for itself.
//! Locked are the memory of this crate ([`Mapping`](crate::memory)), the [`Heap`], the writable data of the addon and of the C library, and the stacks and thread-local data of
//! reactors. The heap of JavaScript is not: no reactor of a native target touches it.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

mod heap;

use crate::error::{Code, Error, Result};
pub use heap::Heap;

static ON: AtomicBool = AtomicBool::new(false);
/// Held by the thread that turns locking on.
static TURNING: Mutex<()> = Mutex::new(());

/// Whether memory that is made from now on has to be locked.
#[inline]
pub(crate) fn is_on() -> bool {
    ON.load(Ordering::Acquire)
}

/// Locks the memory of the data path, now and from now on, to the end of the process.
///
/// # Errors
/// [`Code::Permission`] without the right to lock any amount; [`Code::Resources`] where memory is short.
/// Nothing that is made later is locked then.
pub fn turn_on() -> Result<()> {
    let _turn = TURNING.lock().unwrap_or_else(PoisonError::into_inner);
    if is_on() {
        return Ok(());
    }
    if !may_lock() {
        let message =
            "cannot lock memory: the limit of locked memory (RLIMIT_MEMLOCK) is not `unlimited`";
        return Err(Error::new(Code::Permission, message).hint(
            "start the process as root, with CAP_IPC_LOCK, or after `ulimit -l unlimited` \
             (`LimitMEMLOCK=infinity` in a unit of systemd)",
        ));
    }
    ON.store(true, Ordering::Release);
    let locked = heap::lock_all().and_then(|()| lock_data());
    locked.map_err(|error| {
        ON.store(false, Ordering::Release);
        Error::os(Code::Resources, "cannot lock memory", "mlock", &error)
    })
}

/// Locks `length` bytes at `base`, and brings all of their pages in.
///
/// # Errors
/// Those of mlock(2).
pub(crate) fn lock(base: *const u8, length: usize) -> io::Result<()> {
    // SAFETY: changes whether pages may be swapped out, and no byte of them.
    match unsafe { libc::mlock(base.cast(), length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Locks the calling thread's stack and thread-local data, where locking is on.
///
/// # Errors
/// Those of mlock(2) and pthread_getattr_np(3).
pub(crate) fn lock_thread() -> io::Result<()> {
    if !is_on() {
        return Ok(());
    }
    let (base, length) = stack()?;
    lock(base, length)?;
    lock_thread_locals()
}

/// Whether the process may lock as much as it likes.
fn may_lock() -> bool {
    const CAP_IPC_LOCK: u32 = 14;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes to `limit` only.
    let answered = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } == 0;
    let capable = || {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        Some(u64::from_str_radix(line.trim(), 16).ok()? & (1 << CAP_IPC_LOCK) != 0)
    };
    answered && limit.rlim_cur == libc::RLIM_INFINITY || capable().unwrap_or(false)
}

/// The calling thread's stack, with the thread's static thread-local data.
fn stack() -> io::Result<(*const u8, usize)> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: fills `attributes`, which live as long as the call.
    let refused =
        unsafe { libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) };
    if refused != 0 {
        return Err(io::Error::from_raw_os_error(refused));
    }
    let (mut base, mut length) = (std::ptr::null_mut::<c_void>(), 0);
    // SAFETY: `attributes` are filled; both calls read them, and the second ends their life.
    unsafe {
        libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut base, &raw mut length);
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
    }
    Ok((base.cast_const().cast(), length))
}

/// Locks the writable data of the object that has this code, and of the C library and its loader.
fn lock_data() -> io::Result<()> {
    each_object(|object| {
        let own =
            object.segments().any(|segment| segment.contains(&(lock_data as *const () as usize)));
        let named = [c"libc.so", c"libc.musl", c"ld-linux", c"ld-musl"].iter();
        let of_c = named.map(|name| name.to_bytes()).any(|name| contains(object.name(), name));
        if !own && !of_c {
            return Ok(());
        }
        object.writable().try_for_each(|(base, length)| lock(base, length))
    })
}

/// Locks the calling thread's thread-local data of all objects that have any.
fn lock_thread_locals() -> io::Result<()> {
    thread_local!(static OURS: std::cell::Cell<u8> = const { std::cell::Cell::new(0) });
    // Memory of thread-local data comes at the first use.
    OURS.with(|ours| ours.set(1));
    each_object(|object| match object.thread_locals() {
        Some((base, length)) => lock(base, length),
        None => Ok(()),
    })
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|part| part == word)
}

/// A loaded object: the program or a library.
struct Object<'a>(&'a libc::dl_phdr_info);

impl Object<'_> {
    fn headers(&self) -> &[libc::Elf64_Phdr] {
        // SAFETY: the loader's own table, which lives as long as the call of `dl_iterate_phdr`.
        unsafe { std::slice::from_raw_parts(self.0.dlpi_phdr, self.0.dlpi_phnum.into()) }
    }

    fn name(&self) -> &[u8] {
        // SAFETY: a text of the loader's, which lives as long as the call of `dl_iterate_phdr`.
        unsafe { CStr::from_ptr(self.0.dlpi_name.cast::<c_char>()) }.to_bytes()
    }

    fn address(&self, header: &libc::Elf64_Phdr) -> usize {
        // Of a 64-bit platform, as the header says.
        #[expect(clippy::cast_possible_truncation)]
        let (base, offset) = (self.0.dlpi_addr as usize, header.p_vaddr as usize);
        base + offset
    }

    fn loaded(&self) -> impl Iterator<Item = &libc::Elf64_Phdr> {
        self.headers().iter().filter(|header| header.p_type == libc::PT_LOAD)
    }

    fn segments(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        #[expect(clippy::cast_possible_truncation)]
        self.loaded().map(|header| {
            let base = self.address(header);
            base..base + header.p_memsz as usize
        })
    }

    fn writable(&self) -> impl Iterator<Item = (*const u8, usize)> {
        #[expect(clippy::cast_possible_truncation)]
        self.loaded()
            .filter(|header| header.p_flags & libc::PF_W != 0)
            .map(|header| (self.address(header) as *const u8, header.p_memsz as usize))
    }

    /// The calling thread's own; none before the first use.
    fn thread_locals(&self) -> Option<(*const u8, usize)> {
        let header = self.headers().iter().find(|header| header.p_type == libc::PT_TLS)?;
        let base = self.0.dlpi_tls_data.cast_const().cast::<u8>();
        #[expect(clippy::cast_possible_truncation)]
        (!base.is_null()).then_some((base, header.p_memsz as usize))
    }
}

/// Calls `look` for each loaded object, to the first error.
fn each_object<F: FnMut(&Object<'_>) -> io::Result<()>>(look: F) -> io::Result<()> {
    unsafe extern "C" fn one<F: FnMut(&Object<'_>) -> io::Result<()>>(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        state: *mut c_void,
    ) -> c_int {
        // SAFETY: what `each_object` has given; nobody else uses it meanwhile.
        let (look, result) = unsafe { &mut *state.cast::<(F, io::Result<()>)>() };
        // SAFETY: the loader's record of one object.
        *result = look(&Object(unsafe { &*info }));
        result.is_err().into()
    }
    let mut state = (look, Ok(()));
    // SAFETY: `one` fits `state`, which lives as long as the call.
    unsafe { libc::dl_iterate_phdr(Some(one::<F>), (&raw mut state).cast()) };
    state.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_finds_its_stack_and_its_thread_locals() {
        let here = 0_u8;
        let (base, length) = stack().unwrap();
        let at = &raw const here as usize;
        assert!((base as usize..base as usize + length).contains(&at));
        thread_local!(static MINE: std::cell::Cell<u64> = const { std::cell::Cell::new(0) });
        let mine = MINE.with(|mine| mine.as_ptr() as usize);
        let mut found = false;
        each_object(|object| {
            let local = object.thread_locals();
            found |= local.is_some_and(|(base, length)| {
                (base as usize..base as usize + length).contains(&mine)
            });
            Ok(())
        })
        .unwrap();
        assert!(found);
    }

    #[test]
    fn the_writable_data_of_this_object_is_found() {
        static DATA: AtomicBool = AtomicBool::new(true);
        let at = &raw const DATA as usize;
        let mut found = false;
        each_object(|object| {
            found |= object
                .writable()
                .any(|(base, length)| (base as usize..base as usize + length).contains(&at));
            Ok(())
        })
        .unwrap();
        assert!(found);
    }
}
