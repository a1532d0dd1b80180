//! A call to JavaScript between a device's `ADD_DEV` and its `START_DEV`.

use std::sync::mpsc;
use std::time::Duration;

use napi::Status;
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use ublk_core::device::{BeforeStart, DeviceOptions};

use crate::describe::DeviceInfo;

/// Called once with the device. The promise of the device keeps the event loop alive, not this function.
pub(crate) type OnAdded = ThreadsafeFunction<DeviceInfo, (), DeviceInfo, Status, false, true, 1>;

/// Calls `on_added` before the device starts, and waits for the return up to the device's time limit. An
/// event loop that stands still for longer makes the call later, before the promise of the device settles.
pub(crate) fn set(options: &mut DeviceOptions, on_added: Option<OnAdded>) {
    let limit = options.limit;
    options.before_start =
        on_added.map(|on_added| BeforeStart::new(move |info| call(&on_added, info.into(), limit)));
}

fn call(on_added: &OnAdded, info: DeviceInfo, limit: Duration) {
    let (done, is_done) = mpsc::channel();
    let ended = move |_returned, _env| {
        // Nobody listens any more after the limit.
        let _late = done.send(());
        Ok(())
    };
    on_added.call_with_return_value(info, ThreadsafeFunctionCallMode::NonBlocking, ended);
    // The environment that ends drops the sender.
    let _late = is_done.recv_timeout(limit);
}
