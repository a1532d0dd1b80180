//! What the server under test is asked for.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use ublk_core::device::{BufferMode, DeviceOptions, ExchangeMode, QueueSettings};

/// All of it.
#[derive(Debug)]
pub(crate) struct Options {
    /// `null`, a path, or the URI of an export of NBD.
    pub(crate) target: String,
    /// The live layer of an overlay on the file `base`, made anew.
    pub(crate) layer: Option<PathBuf>,
    /// Refuse writes; then several devices may have one file.
    pub(crate) read_only: bool,
    /// How many devices.
    pub(crate) devices: usize,
    /// How many reactors they share; absent: each queue has its own.
    pub(crate) reactors: Option<u16>,
    /// Each device's own options.
    pub(crate) device: DeviceOptions,
}

impl Options {
    /// Reads `NAME=VALUE` arguments.
    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let device = DeviceOptions::default();
        let target = String::from("null");
        let mut options =
            Self { target, layer: None, read_only: false, devices: 1, reactors: None, device };
        for argument in arguments {
            let Some((name, value)) = argument.split_once('=') else {
                return Err(format!("'{argument}' is not NAME=VALUE").into());
            };
            options.set(name, value)?;
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Box<dyn Error>> {
        match name {
            "target" => value.clone_into(&mut self.target),
            "layer" => self.layer = Some(value.into()),
            "read_only" => self.read_only = value == "1",
            "devices" => self.devices = value.parse()?,
            "reactors" => self.reactors = Some(value.parse()?),
            _ => set_device(&mut self.device, name, value)?,
        }
        Ok(())
    }
}

fn set_device(options: &mut DeviceOptions, name: &str, value: &str) -> Result<(), Box<dyn Error>> {
    match (name, value) {
        ("buffers", "auto") => options.buffers = vec![BufferMode::Auto],
        ("buffers", "register") => options.buffers = vec![BufferMode::Register],
        ("buffers", "split") => {
            options.buffers = vec![BufferMode::Register];
            options.split_register = true;
        }
        ("buffers", "copy") => options.buffers = vec![BufferMode::Copy],
        ("exchange", "per-io") => options.exchange = Some(ExchangeMode::PerIo),
        ("exchange", "batch") => options.exchange = Some(ExchangeMode::Batch),
        ("affinity", cpu) => options.affinity = Some(vec![cpu.parse()?]),
        ("spin", usec) => options.spin = Duration::from_micros(usec.parse()?),
        ("queues", count) => options.queues = count.parse()?,
        ("depth", count) => options.depth = count.parse()?,
        _ => set_queue(&mut options.queue, name, value)?,
    }
    Ok(())
}

fn set_queue(queue: &mut QueueSettings, name: &str, value: &str) -> Result<(), Box<dyn Error>> {
    match name {
        "scheduler" => queue.scheduler = Some(value.into()),
        "wbt_lat_usec" => queue.wbt_lat_usec = Some(value.parse()?),
        "nomerges" => queue.nomerges = Some(value.parse()?),
        "iostats" => queue.iostats = Some(value != "0"),
        "rq_affinity" => queue.rq_affinity = Some(value.parse()?),
        "read_ahead_kb" => queue.read_ahead_kb = Some(value.parse()?),
        "max_sectors_kb" => queue.max_sectors_kb = Some(value.parse()?),
        _ => return Err(format!("unknown option {name}={value}").into()),
    }
    Ok(())
}
