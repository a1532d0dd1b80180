//! Targets, as `src/targets/` describes targets.

use std::path::{Path, PathBuf};

use napi_derive::napi;
use ublk_core::error::Result;
use ublk_core::targets::delay::{Delay, Delays};
use ublk_core::targets::error::AlwaysFails;
use ublk_core::targets::file::{Direct, File, FileOptions, Promised};
use ublk_core::targets::handler::{Handler, HandlerOptions};
use ublk_core::targets::integrity::{Integrity, IntegrityFormat, IntegrityOptions};
use ublk_core::targets::linear::Linear;
use ublk_core::targets::native::Native;
use ublk_core::targets::null::Null;
use ublk_core::targets::overlay::{self, Fixed, Overlay, OverlayOptions};
use ublk_core::targets::qcow2::{Qcow2, Qcow2Options};
use ublk_core::targets::striped::Striped;
use ublk_core::targets::zoned::{Zoned, ZonedOptions};
use ublk_core::targets::{Boot, Op, Presentation, Target, ZoneOp};

mod formats;
mod remotes;

pub use formats::{NativeIntegrity, NativeZones};
pub use remotes::{NativeHttp, NativeNbd, NativeRbd};

use formats::handler_zones;

use crate::bridge;
use crate::options::{refused, unknown};

/// A target; the kind decides which fields are needed.
#[derive(Clone, Debug)]
#[napi(object, object_to_js = false)]
pub struct NativeTarget {
    /// What answers requests.
    #[napi(
        ts_type = "'null' | 'error' | 'file' | 'striped' | 'linear' | 'delay' | 'zoned' | 'overlay' | \
                   'nbd' | 'qcow2' | 'rbd' | 'http' | 'handler'"
    )]
    pub kind: String,
    /// In bytes.
    pub size: Option<i64>,
    /// Of the file, or of an overlay's live layer, absolute.
    pub path: Option<String>,
    /// Whether the page cache is left out.
    #[napi(ts_type = "'auto' | 'yes' | 'no'")]
    pub direct: Option<String>,
    /// Whether writes are refused.
    pub read_only: Option<bool>,
    /// Whether no other server may have the file.
    pub lock: Option<bool>,
    /// In bytes.
    pub logical_block_size: Option<u32>,
    /// The targets of a layer, the base of an overlay, or the backends of a handler.
    #[napi(ts_type = "readonly NativeTarget[]")]
    pub targets: Option<Vec<NativeTarget>>,
    /// In bytes.
    pub chunk: Option<u32>,
    /// How long reads wait, in microseconds.
    pub read_us: Option<u32>,
    /// How long writes, discards and zeros wait, in microseconds.
    pub write_us: Option<u32>,
    /// How long flushes wait, in microseconds.
    pub flush_us: Option<u32>,
    /// Of a zoned target.
    pub zones: Option<NativeZones>,
    /// The number of the bridge to a handler.
    pub bridge: Option<u32>,
    /// The methods of a handler: `read`, `write`, `flush`, `discard`, `writeZeroes`, and the
    /// operations of zoned devices.
    #[napi(ts_type = "readonly string[]")]
    pub ops: Option<Vec<String>>,
    /// Whether a handler's writes heed FUA.
    pub fua: Option<bool>,
    /// Metadata beside the data.
    pub integrity: Option<NativeIntegrity>,
    /// Whether to make an overlay's missing layer.
    pub create: Option<bool>,
    /// The folder of an overlay's history; absent: the default folder.
    pub history: Option<String>,
    /// Whether an overlay is served although a killed server's unflushed writes are lost.
    pub lose_unflushed: Option<bool>,
    /// An export of an NBD server.
    pub nbd: Option<NativeNbd>,
    /// An image of Ceph RBD.
    pub rbd: Option<NativeRbd>,
    /// A file on a web server.
    pub http: Option<NativeHttp>,
}

impl NativeTarget {
    /// Opens the backing store. May block.
    pub(crate) fn open(self) -> Result<Native> {
        self.open_for(None)
    }

    /// Opens the backing store of a device that already has clients. May block.
    pub(crate) fn recover(self, promised: Promised) -> Result<Native> {
        self.open_for(Some(promised))
    }

    /// Opens the backing store of a device on a machine with this boot. May block.
    pub(crate) fn open_in(self, boot: Boot) -> Result<Native> {
        match self.kind.as_str() {
            "zoned" => self.open_zoned(None, Some(boot)),
            "overlay" => self.open_overlay(None, Some(boot)),
            _ => self.open(),
        }
    }

    fn open_for(self, promised: Option<Promised>) -> Result<Native> {
        match self.kind.as_str() {
            "null" => self.open_null().map(Native::Null),
            "error" => Ok(Native::Error(AlwaysFails::new(bytes(given(self.size, "size")?)?))),
            "file" if self.integrity.is_some() => {
                self.open_integrity(promised).map(|target| Native::Integrity(Box::new(target)))
            }
            "file" => self.open_file(promised).map(Native::File),
            "striped" => {
                let chunk = given(self.chunk, "chunk")?;
                let asked = self.presentation();
                Striped::new(self.open_targets(promised)?, chunk)?
                    .presented(asked)
                    .map(Native::Striped)
            }
            "linear" => {
                let asked = self.presentation();
                Linear::new(self.open_targets(promised)?)?.presented(asked).map(Native::Linear)
            }
            "delay" => {
                let delays = Delays {
                    read: self.read_us.unwrap_or(0),
                    write: self.write_us.unwrap_or(0),
                    flush: self.flush_us.unwrap_or(0),
                };
                let asked = self.presentation();
                let target = given(self.open_targets(promised)?.pop(), "targets")?;
                Delay::new(target, delays).presented(asked).map(Native::Delay)
            }
            "zoned" => self.open_zoned(promised, None),
            "overlay" => self.open_overlay(promised, None),
            "qcow2" => self.open_qcow2(promised).map(|target| Native::Qcow2(Box::new(target))),
            "nbd" | "rbd" | "http" => {
                self.open_remote().map(|target| Native::Remote(Box::new(target)))
            }
            "handler" => self.open_handler(promised).map(Native::Handler),
            kind => Err(unknown("kind of target", kind)),
        }
    }

    fn open_qcow2(self, promised: Option<Promised>) -> Result<Qcow2> {
        let options = Qcow2Options {
            direct: direct(self.direct.as_deref())?,
            unlocked: self.lock == Some(false),
            asked: self.presentation(),
            promised,
        };
        Qcow2::open(Path::new(&given(self.path, "path")?), &options)
    }

    fn open_null(self) -> Result<Null> {
        let null = Null::new(bytes(given(self.size, "size")?)?).presented(self.presentation())?;
        let Some(integrity) = self.integrity else { return Ok(null) };
        let format = integrity.format()?;
        // An absent interval is the block size.
        let interval = match format.interval {
            0 => null.geometry().logical_block,
            interval => interval,
        };
        Ok(null.with_integrity(IntegrityFormat { interval, ..format }))
    }

    fn presentation(&self) -> Presentation {
        let read_only = self.read_only.unwrap_or(false);
        Presentation { read_only, logical_block: self.logical_block_size }
    }

    fn open_integrity(mut self, promised: Option<Promised>) -> Result<Integrity> {
        let integrity = given(self.integrity.take(), "integrity")?;
        let format = integrity.format()?;
        let options = IntegrityOptions {
            format,
            path: integrity.path.map(PathBuf::from),
            create: integrity.create.unwrap_or(false),
        };
        let file = self.file_options(promised)?;
        Integrity::open(Path::new(&given(self.path, "path")?), &file, &options)
    }

    fn open_file(self, promised: Option<Promised>) -> Result<File> {
        let options = self.file_options(promised)?;
        let path = PathBuf::from(given(self.path, "path")?);
        // The clients of a recovered device have written to the file already.
        if !options.read_only && options.promised.is_none() {
            overlay::check_no_base(&path)?;
        }
        File::open(&path, &options)
    }

    fn open_zoned(mut self, promised: Option<Promised>, boot: Option<Boot>) -> Result<Native> {
        let zones = ZonedOptions { boot, ..given(self.zones.take(), "zones")?.convert()? };
        let options = self.file_options(promised)?;
        let zoned = match self.path {
            Some(path) => Zoned::open(Path::new(&path), &options, &zones),
            None => Zoned::in_memory(given(options.size, "size")?, &zones),
        };
        zoned.map(|zoned| Native::Zoned(Box::new(zoned)))
    }

    fn open_overlay(mut self, promised: Option<Promised>, boot: Option<Boot>) -> Result<Native> {
        let path = given(self.path.take(), "path")?;
        let options = OverlayOptions {
            create: self.create.unwrap_or(false),
            logical_block: self.logical_block_size,
            history: self.history.take().map(PathBuf::from),
            lose_unflushed: self.lose_unflushed.unwrap_or(false),
            promised,
            boot,
            ..OverlayOptions::default()
        };
        let fixed = self.read_only.unwrap_or(false);
        let base = given(self.targets.and_then(|mut targets| targets.pop()), "targets")?;
        let options = OverlayOptions { logical_block_of_base: base.logical_block_size, ..options };
        let base = base.into_base().open_for(promised)?;
        if fixed {
            let fixed = Fixed::open(base, Path::new(&path), &options)?;
            return Ok(Native::Fixed(Box::new(fixed)));
        }
        let overlay = Overlay::open(base, Path::new(&path), &options)?;
        Ok(Native::Overlay(Box::new(overlay)))
    }

    /// This target, and everything below, for reading only.
    pub(crate) fn into_base(mut self) -> Self {
        self.read_only = Some(true);
        self.targets =
            self.targets.map(|targets| targets.into_iter().map(Self::into_base).collect());
        self
    }

    fn file_options(&self, promised: Option<Promised>) -> Result<FileOptions> {
        Ok(FileOptions {
            direct: direct(self.direct.as_deref())?,
            read_only: self.read_only.unwrap_or(false),
            logical_block: self.logical_block_size,
            size: self.size.map(bytes).transpose()?,
            unlocked: self.lock == Some(false),
            promised,
        })
    }

    fn open_handler(mut self, promised: Option<Promised>) -> Result<Handler> {
        let ops = given(self.ops.take(), "ops")?;
        Handler::new(HandlerOptions {
            size: bytes(given(self.size, "size")?)?,
            logical_block: self.logical_block_size,
            ops: ops.iter().map(|name| op(name)).collect::<Result<_>>()?,
            fua: self.fua,
            read_only: self.read_only.unwrap_or(false),
            zones: self
                .zones
                .take()
                .map(|zones| zones.convert().map(|zones| handler_zones(&zones)))
                .transpose()?,
            bridge: bridge::find(given(self.bridge, "bridge")?)?,
            backends: self.open_targets(promised)?,
        })
    }

    fn open_targets(self, promised: Option<Promised>) -> Result<Vec<Native>> {
        given(self.targets, "targets")?.into_iter().map(|one| one.open_for(promised)).collect()
    }
}

pub(crate) fn bytes(size: i64) -> Result<u64> {
    u64::try_from(size).map_err(|_| refused(format!("a size is {size}")))
}

fn op(name: &str) -> Result<Op> {
    match name {
        "read" => Ok(Op::Read),
        "write" => Ok(Op::Write),
        "flush" => Ok(Op::Flush),
        "discard" => Ok(Op::Discard),
        "writeZeroes" => Ok(Op::WriteZeroes),
        "reportZones" => Ok(Op::Zone(ZoneOp::Report)),
        "zoneAppend" => Ok(Op::Zone(ZoneOp::Append)),
        "zoneOpen" => Ok(Op::Zone(ZoneOp::Open)),
        "zoneClose" => Ok(Op::Zone(ZoneOp::Close)),
        "zoneFinish" => Ok(Op::Zone(ZoneOp::Finish)),
        "zoneReset" => Ok(Op::Zone(ZoneOp::Reset)),
        "zoneResetAll" => Ok(Op::Zone(ZoneOp::ResetAll)),
        _ => Err(unknown("operation", name)),
    }
}

fn direct(name: Option<&str>) -> Result<Direct> {
    match name {
        None | Some("auto") => Ok(Direct::Auto),
        Some("yes") => Ok(Direct::Yes),
        Some("no") => Ok(Direct::No),
        Some(name) => Err(unknown("value of direct", name)),
    }
}

fn given<T>(value: Option<T>, what: &str) -> Result<T> {
    value.ok_or_else(|| refused(format!("the target has no {what}")))
}
