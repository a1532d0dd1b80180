//! Serves Linux ublk block devices over io_uring.
//!
//! From the top down: [`device`] is the life of a device, [`control`] its commands; a
//! [`reactor`] serves a queue with an exchange, which brings requests and takes results, and an
//! engine, which runs the plan that a [`target`] makes of each request. All of it stands on a
//! [`driver`]: the kernel, or an in-process model of it. A [`simulation`] is a device on that model
//! together with its user.

pub mod aside;
pub mod bridge;
pub mod control;
pub mod device;
pub mod driver;
pub mod error;
pub mod locked;
pub mod reactor;
pub mod remote;
pub mod simulation;
pub mod stats;
pub mod targets;

mod bell;
mod buffers;
mod engine;
mod exchange;
mod file_table;
mod memory;
mod pass;
mod patience;
mod share;
mod signals;
mod sqe;
mod tls;
mod token;

pub use ublk_driver::{allocation, tag};
