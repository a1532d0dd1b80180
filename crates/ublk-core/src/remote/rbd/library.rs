//! Ceph's libraries, found at run time: a process without an RBD target needs none of them.

use std::ffi::{CStr, c_void};
use std::sync::{Mutex, PoisonError};

use super::api::Api;
use super::exit;

/// librbd, which brings librados.
const NAME: &CStr = c"librbd.so.1";

/// Symbols of the library come before those of the program: Node exports the functions of its own OpenSSL,
/// and librados would call these with the structures of the system's OpenSSL.
#[cfg(target_env = "gnu")]
const FLAGS: libc::c_int = libc::RTLD_NOW | libc::RTLD_LOCAL | libc::RTLD_DEEPBIND;
/// musl looks symbols of a library up in the program first, without a way to change the order.
#[cfg(not(target_env = "gnu"))]
const FLAGS: libc::c_int = libc::RTLD_NOW | libc::RTLD_LOCAL;

/// Returns the functions of the libraries. Loads the libraries at the first call; they stay until the process
/// ends. Blocks.
///
/// # Errors
/// The dynamic linker's text.
pub(super) fn load() -> Result<&'static Api, String> {
    static LOADED: Mutex<Option<&'static Api>> = Mutex::new(None);
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(api) = *loaded {
        return Ok(api);
    }
    // SAFETY: a string with an end. The library's constructors are Ceph's, and make no demands.
    let library = unsafe { libc::dlopen(NAME.as_ptr(), FLAGS) };
    if library.is_null() {
        return Err(reason());
    }
    let api = Api::look_up(|name| {
        // SAFETY: an open library, and a string with an end.
        let symbol = unsafe { libc::dlsym(library, name.as_ptr()) };
        if symbol.is_null() { Err(reason()) } else { Ok(symbol.cast::<c_void>()) }
    })?;
    #[cfg(target_env = "gnu")]
    share_streams(library);
    exit::watch();
    Ok(*loaded.insert(Box::leak(Box::new(api))))
}

/// Gives Ceph's libraries the streams `cout` and `cerr` that libstdc++ has constructed.
///
/// A program that uses a stream, such as Node, has a copy of the stream (a copy relocation), and libstdc++
/// constructs the copy. Past the program, by `RTLD_DEEPBIND`, Ceph's libraries find the stream of libstdc++ itself, which
/// is all zeros, and would crash at the first message: librados complains of addresses in its configuration on
/// `cerr`.
#[cfg(target_env = "gnu")]
fn share_streams(library: *mut c_void) {
    /// The size of `std::ostream` in libstdc++ on machines of 64 bits: part of its ABI, version 6.
    const SIZE: usize = 272;
    for name in [c"_ZSt4cout", c"_ZSt4cerr"] {
        // SAFETY: strings with an end, and an open library.
        let (constructed, own) = unsafe {
            (libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()), libc::dlsym(library, name.as_ptr()))
        };
        if constructed.is_null() || own.is_null() || constructed == own {
            continue;
        }
        // SAFETY: both are objects of type `std::ostream`, which begin with a pointer to a table. Zero there means
        // that the second has never been constructed, so nothing has used it. The copy refers to the buffer and
        // the locale of the first, which stay until the process ends; nothing destroys the standard streams.
        unsafe {
            if own.cast::<usize>().read() == 0 {
                own.cast::<u8>().copy_from_nonoverlapping(constructed.cast(), SIZE);
            }
        }
    }
}

/// What the dynamic linker says of the last failure.
fn reason() -> String {
    // SAFETY: returns null, or a string that stays until this thread's next call of the dynamic linker.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "the dynamic linker gives no reason".into();
    }
    // SAFETY: a string with an end; see above.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
