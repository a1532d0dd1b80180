//! Memory that JavaScript sees as an `ArrayBuffer`.

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use napi::bindgen_prelude::ToNapiValue;
use napi::{Env, sys};
use ublk_core::bridge::Region;
use ublk_core::error::{Code, Error, Result};

/// An `ArrayBuffer` over memory, which stays mapped as long as the `ArrayBuffer` exists, whoever else
/// drops the memory.
pub struct Shared(sys::napi_value);

impl ToNapiValue for Shared {
    unsafe fn to_napi_value(_env: sys::napi_env, shared: Self) -> napi::Result<sys::napi_value> {
        Ok(shared.0)
    }
}

impl Shared {
    /// Shows JavaScript the memory of `region`.
    ///
    /// # Errors
    /// [`Code::Unsupported`] where the runtime has no such buffers; [`Code::Resources`].
    pub(crate) fn new(env: &Env, region: Arc<Region>) -> Result<Self> {
        let (base, size) = (region.base(), region.size());
        let owner = Arc::into_raw(region).cast_mut().cast::<c_void>();
        let mut value = ptr::null_mut();
        // SAFETY: `env` is the environment that calls us; the memory lives until `let_go`, which
        // takes over what `owner` holds.
        let status = unsafe {
            sys::napi_create_external_arraybuffer(
                env.raw(),
                base.cast(),
                size,
                Some(let_go),
                owner,
                &raw mut value,
            )
        };
        if status == sys::Status::napi_ok {
            return Ok(Self(value));
        }
        // SAFETY: not taken over, since no buffer was made.
        drop(unsafe { Arc::from_raw(owner.cast_const().cast::<Region>()) });
        Err(match status {
            sys::Status::napi_no_external_buffers_allowed => Error::new(
                Code::Unsupported,
                "this runtime does not let JavaScript share memory with native code (Electron \
                 does not)",
            )
            .hint("serve the device from a process of plain Node.js"),
            _ => Error::new(
                Code::Resources,
                format!("cannot make an ArrayBuffer of {size} bytes of a handler's channel"),
            )
            .hint("memory has run out, or this environment of JavaScript is about to end"),
        })
    }
}

extern "C" fn let_go(_env: sys::napi_env, _data: *mut c_void, owner: *mut c_void) {
    // SAFETY: what `Shared::new` made of an `Arc`, called once.
    drop(unsafe { Arc::from_raw(owner.cast_const().cast::<Region>()) });
}

/// Keeps memory mapped for ever.
pub(crate) fn keep(region: Arc<Region>) {
    std::mem::forget(region);
}
