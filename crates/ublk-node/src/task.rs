//! Work that may block, on a thread of `aside`.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;

use napi::Env;
use napi::bindgen_prelude::{Object, ToNapiValue};
use ublk_core::aside;
use ublk_core::error::Error;

use crate::outcome::{Failure, Outcome};

/// Runs `work` on a thread of `aside`; the promise that comes back settles with its outcome. It keeps the
/// event loop alive until then, and is forgotten when the environment ends.
pub(crate) fn promise<T, W>(env: &Env, work: W) -> napi::Result<Object<'_>>
where
    T: ToNapiValue + Send + 'static,
    W: FnOnce() -> Result<T, Error> + Send + 'static,
{
    // The thread comes first: a deferred that nobody settles would keep the event loop alive.
    let (hand_over, handed) = mpsc::channel();
    let spawned = aside::run(move || {
        // The sender is gone only if no deferred could be made.
        if let Ok(deferred) = handed.recv() {
            settle(deferred, guarded(work));
        }
    });
    let (deferred, promise) = env.create_deferred()?;
    match spawned {
        // The thread waits for it.
        Ok(()) => drop(hand_over.send(deferred)),
        Err(error) => settle(deferred, Err(Error::no_thread(&error).into())),
    }
    Ok(promise)
}

type Deferred<T> = napi::JsDeferred<Outcome<T>, Box<dyn FnOnce(Env) -> napi::Result<Outcome<T>>>>;

fn settle<T: ToNapiValue + 'static>(deferred: Deferred<T>, result: Result<T, Failure>) {
    deferred.resolve(Box::new(move |_| Ok(Outcome(result))));
}

/// Runs `work`; a panic is a failure like others.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Failure> {
    // Whatever the panic left half done belongs to `work` and went with it.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(Failure::from),
        Err(panic) => Err(Failure::internal(message(panic.as_ref()))),
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic")
}
