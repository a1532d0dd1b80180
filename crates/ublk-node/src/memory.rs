//! Memory that JavaScript sees as an `ArrayBuffer`.

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use napi::bindgen_prelude::ToNapiValue;
use napi::sys;
use ublk_core::bridge::Region;

/// Memory on its way to JavaScript. It stays mapped as long as the `ArrayBuffer` that it becomes,
/// whoever else lets go of it.
pub struct Shared(pub(crate) Arc<Region>);

impl ToNapiValue for Shared {
    unsafe fn to_napi_value(env: sys::napi_env, shared: Self) -> napi::Result<sys::napi_value> {
        let (base, size) = (shared.0.base(), shared.0.size());
        let owner = Arc::into_raw(shared.0).cast_mut().cast::<c_void>();
        let mut value = ptr::null_mut();
        // SAFETY: `env` is the environment that the caller vouches for; the memory lives until
        // `let_go`, which takes over what `owner` holds.
        let status = unsafe {
            sys::napi_create_external_arraybuffer(
                env,
                base.cast(),
                size,
                Some(let_go),
                owner,
                &raw mut value,
            )
        };
        if status == sys::Status::napi_ok {
            return Ok(value);
        }
        // SAFETY: not taken over, since no buffer was made.
        drop(unsafe { Arc::from_raw(owner.cast_const().cast::<Region>()) });
        Err(napi::Error::from_reason(if status == sys::Status::napi_no_external_buffers_allowed {
            "this runtime does not let JavaScript share memory with native code (Electron does \
             not); serve the device from a process of plain Node.js"
        } else {
            "cannot make an ArrayBuffer of a channel's memory"
        }))
    }
}

extern "C" fn let_go(_env: sys::napi_env, _data: *mut c_void, owner: *mut c_void) {
    // SAFETY: what `to_napi_value` made of an `Arc`, called once.
    drop(unsafe { Arc::from_raw(owner.cast_const().cast::<Region>()) });
}

/// Keeps memory mapped for ever.
pub(crate) fn keep(region: Arc<Region>) {
    std::mem::forget(region);
}
