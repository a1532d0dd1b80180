//! The Node-API binding of `ublk-core`: converts and forwards, decides nothing.
//!
//! Whatever may wait for the kernel runs on a thread of `ublk_core::aside` and settles a promise ([`task`]);
//! never on libuv's pool, where it would keep user I/O on the very device from being served.
//! Promises never reject: a failure is an answer ([`outcome`]), and becomes an error class in
//! TypeScript. A panic becomes such an answer too; none crosses into JavaScript.

// The macros make items public that only the addon's table of exports needs.
#![allow(unreachable_pub)]

mod before_start;
mod bridge;
mod describe;
mod device;
mod export;
mod farewell;
mod latencies;
mod locked;
mod machine;
mod memory;
mod notify;
mod open_devices;
mod options;
mod outcome;
mod overlay;
mod overlay_folders;
mod overlay_tasks;
mod pool;
mod served;
mod simulation;
mod stalls;
mod targets;
mod task;
mod throttle;
mod watch;
