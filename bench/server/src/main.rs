//! The server under test: the Rust data path of the npm package, in a process that starts in milliseconds; Node
//! needs seconds of emulated time.
//!
//! `ublk-bench-server (target=(null | PATH | URI of NBD) | layer=PATH) [read_only=1] [devices=N] [reactors=N]
//! [buffers=auto|register|split|copy] [exchange=per-io|batch] [queues=N] [depth=N]
//! [SETTING=VALUE…]`, where a setting is one of the devices' queues, by its name in sysfs.
//!
//! With `layer`, the server serves an overlay: a new layer on the file `base`.
//!
//! Prints `ready DEVICE[:DEVICE…]` when the devices can be opened. For each line on standard input, the server prints
//! the counters as `name=value` pairs, or takes snapshots (line `snapshot`). The end of standard input ends the devices.
//!
//! `ublk-bench-server mark` only executes the instruction that ../../profile/plugin.c waits for.
#![allow(clippy::print_stdout, reason = "it speaks with guest.sh")]

use std::error::Error;
use std::io::{self, BufRead};
use std::path::Path;

use ublk_core::device::{Device, Pool, PoolOptions};
use ublk_core::driver::linux::Linux;
use ublk_core::stats::QueueStats;
use ublk_core::targets::Presentation;
use ublk_core::targets::file::{File, FileOptions};
use ublk_core::targets::native::Native;
use ublk_core::targets::nbd::{self, NbdOptions};
use ublk_core::targets::null::Null;
use ublk_core::targets::overlay::{Overlay, OverlayOptions};

use crate::options::Options;

mod options;

const NULL_BYTES: u64 = 1 << 30;

fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().nth(1).is_some_and(|argument| argument == "mark") {
        mark();
        return Ok(());
    }
    serve(&create(&Options::parse(std::env::args().skip(1))?)?)
}

fn mark() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a nop with an unusual operand, which is not accessed.
    unsafe {
        std::arch::asm!("nop dword ptr [rax + 0x55424c4b]", options(nomem, nostack));
    }
}

fn create(options: &Options) -> Result<Vec<Device<Linux>>, Box<dyn Error>> {
    let driver = Linux::new();
    let pool = options
        .reactors
        .map(|reactors| {
            Pool::new(
                &driver,
                PoolOptions { spin: options.device.spin, ..PoolOptions::of(reactors) },
            )
        })
        .transpose()?;
    let mut devices = Vec::new();
    for _ in 0..options.devices {
        let (target, device) = (target(options)?, options.device.clone());
        devices.push(match &pool {
            Some(pool) => Device::create_in(pool, &driver, target, device)?,
            None => Device::create(&driver, target, device)?,
        });
    }
    Ok(devices)
}

fn target(options: &Options) -> Result<Native, Box<dyn Error>> {
    if let Some(layer) = &options.layer {
        let how = FileOptions { read_only: true, ..FileOptions::default() };
        let base = Native::File(File::open(Path::new("base"), &how)?);
        let options = OverlayOptions { create: true, ..OverlayOptions::default() };
        return Ok(Native::Overlay(Box::new(Overlay::open(base, layer, &options)?)));
    }
    Ok(match options.target.as_str() {
        "null" => Native::Null(Null::new(NULL_BYTES)),
        uri if uri.starts_with("nbd") => {
            let target = nbd::connect(uri, NbdOptions::default(), Presentation::default())?;
            Native::Remote(Box::new(target))
        }
        path => {
            let options = FileOptions { read_only: options.read_only, ..FileOptions::default() };
            Native::File(File::open(Path::new(path), &options)?)
        }
    })
}

fn serve(devices: &[Device<Linux>]) -> Result<(), Box<dyn Error>> {
    let paths: Vec<_> =
        devices.iter().map(|device| format!("/dev/ublkb{}", device.info().id)).collect();
    println!("ready {}", paths.join(":"));
    for line in io::stdin().lock().lines() {
        if line? == "snapshot" {
            devices.iter().try_for_each(|device| device.snapshot(None, Vec::new()).map(drop))?;
            println!("taken");
            continue;
        }
        let stats: Vec<_> = devices.iter().flat_map(Device::stats).collect();
        println!("{}", counters(&stats));
    }
    for device in devices {
        device.close()?;
    }
    Ok(())
}

fn counters(queues: &[QueueStats]) -> String {
    let sum = |value: fn(&QueueStats) -> u64| queues.iter().map(value).sum::<u64>();
    format!(
        "requests={} enters={} errors={} copied={}",
        sum(|queue| queue.reads
            + queue.writes
            + queue.flushes
            + queue.discards
            + queue.write_zeroes),
        sum(|queue| queue.enters),
        sum(|queue| queue.errors),
        sum(|queue| queue.copied_bytes),
    )
}
