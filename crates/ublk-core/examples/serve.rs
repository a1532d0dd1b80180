//! Serves a file, or nothing at all, from Rust alone:
//! `cargo run -p ublk-core --example serve -- (null | PATH) [split | MODE,…] [QUEUES] [DEPTH] [per-io | batch]`
//!
//! Prints the device's path once it can be opened, and serves until standard input ends.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use std::error::Error;
use std::io::{self, Read};
use std::path::Path;

use ublk_core::device::{BufferMode, Device, DeviceOptions, ExchangeMode};
use ublk_core::driver::linux::Linux;
use ublk_core::targets::file::{File, FileOptions};
use ublk_core::targets::native::Native;
use ublk_core::targets::null::Null;

fn buffer_mode(name: &str) -> Result<BufferMode, String> {
    BufferMode::from_name(name).ok_or_else(|| format!("no buffer mode '{name}'"))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().ok_or("what to serve: null, or a path")?;
    let target = match what.as_str() {
        "null" => Native::Null(Null::new(250 << 30)),
        path => Native::File(File::open(Path::new(path), &FileOptions::default())?),
    };
    let mode = arguments.next().unwrap_or_default();
    let options = DeviceOptions {
        buffers: match mode.as_str() {
            "" => Vec::new(),
            "split" => vec![BufferMode::Register],
            names => names.split(',').map(buffer_mode).collect::<Result<_, _>>()?,
        },
        split_register: mode == "split",
        queues: arguments.next().map_or(Ok(1), |text| text.parse())?,
        depth: arguments.next().map_or(Ok(128), |text| text.parse())?,
        exchange: match arguments.next().as_deref() {
            None => None,
            Some("per-io") => Some(ExchangeMode::PerIo),
            Some("batch") => Some(ExchangeMode::Batch),
            Some(other) => return Err(format!("no exchange '{other}'").into()),
        },
        ..Default::default()
    };
    let device = Device::create(&Linux::new(), target, options)?;
    println!("/dev/ublkb{} {:?} {:?}", device.info().id, device.buffers(), device.exchange());
    io::stdin().read_to_end(&mut Vec::new())?;
    for (queue, stats) in device.stats().iter().enumerate() {
        eprintln!("queue {queue}: {stats:?}");
    }
    device.close()?;
    Ok(())
}
