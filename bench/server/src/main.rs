//! The server under test: one device of the very Rust data path that the npm package serves with,
//! in a process that starts in milliseconds where Node needs seconds of emulated time.
//!
//! `ublk-bench-server target=(null | PATH) [buffers=auto|register|split|copy] [exchange=per-io|batch]
//! [queues=N] [depth=N]`
//!
//! Prints `ready DEVICE` when the device can be opened, then its counters as `name=value` pairs
//! for each line it reads, and takes the device down when standard input ends.
//!
//! `ublk-bench-server mark` only executes the instruction that ../../profile/plugin.c waits for.
#![allow(clippy::print_stdout, reason = "it speaks with guest.sh")]

use std::error::Error;
use std::io::{self, BufRead};
use std::path::Path;

use ublk_core::device::{BufferMode, Device, DeviceOptions, ExchangeMode};
use ublk_core::driver::linux::Linux;
use ublk_core::stats::QueueStats;
use ublk_core::target::file::{File, FileOptions};
use ublk_core::target::native::Native;
use ublk_core::target::null::Null;

const NULL_BYTES: u64 = 1 << 30;

fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().nth(1).is_some_and(|argument| argument == "mark") {
        mark();
        return Ok(());
    }
    let mut target = String::from("null");
    let mut options = DeviceOptions::default();
    for argument in std::env::args().skip(1) {
        match argument.split_once('=') {
            Some(("target", what)) => target = what.to_owned(),
            Some((name, value)) => set(&mut options, name, value)?,
            None => return Err(format!("'{argument}' is not NAME=VALUE").into()),
        }
    }
    let target = match target.as_str() {
        "null" => Native::Null(Null::new(NULL_BYTES)),
        path => Native::File(File::open(Path::new(path), &FileOptions::default())?),
    };
    serve(&Device::create(&Linux::new(), target, options)?)
}

fn mark() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a nop with an unusual operand, which is not accessed.
    unsafe {
        std::arch::asm!("nop dword ptr [rax + 0x55424c4b]", options(nomem, nostack));
    }
}

fn set(options: &mut DeviceOptions, name: &str, value: &str) -> Result<(), Box<dyn Error>> {
    match (name, value) {
        ("buffers", "auto") => options.buffers = Some(BufferMode::Auto),
        ("buffers", "register") => options.buffers = Some(BufferMode::Register),
        ("buffers", "split") => {
            options.buffers = Some(BufferMode::Register);
            options.split_register = true;
        }
        ("buffers", "copy") => options.buffers = Some(BufferMode::Copy),
        ("exchange", "per-io") => options.exchange = Some(ExchangeMode::PerIo),
        ("exchange", "batch") => options.exchange = Some(ExchangeMode::Batch),
        ("queues", count) => options.queues = count.parse()?,
        ("depth", count) => options.depth = count.parse()?,
        _ => return Err(format!("unknown option {name}={value}").into()),
    }
    Ok(())
}

fn serve(device: &Device<Linux>) -> Result<(), Box<dyn Error>> {
    println!("ready /dev/ublkb{}", device.info().id);
    for line in io::stdin().lock().lines() {
        line?;
        println!("{}", counters(&device.stats()));
    }
    device.close()?;
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
