//! A call to JavaScript between a device's `ADD_DEV` and its `START_DEV`.

use std::sync::mpsc;
use std::time::Duration;

use napi::Status;
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use ublk_core::device::{BeforeStart, DeviceOptions};

use crate::describe::DeviceInfo;

/// Called once with the device; does not keep the event loop alive, which the promise of the device does.
pub(crate) type OnAdded = ThreadsafeFunction<DeviceInfo, (), DeviceInfo, Status, false, true, 1>;

/// Lets `on_added` run to its end before the device starts. An event loop that does not turn within the
/// device's time limit holds nobody up: it makes the call later, and before the promise of the device
/// settles.
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
