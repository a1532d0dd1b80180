//! Verbs on overlays without a server: create, fork, info, diff.

use std::path::{Path, PathBuf};

use napi::Env;
use napi::bindgen_prelude::Object;
use napi_derive::napi;
use ublk_core::targets::{Snapshot, overlay};

use crate::describe::number;
use crate::targets::NativeTarget;
use crate::task;

/// The contents of a layer, from the layer's file.
#[derive(Debug)]
#[napi(object, object_from_js = false)]
pub struct OverlayLayer {
    /// The path of the file.
    pub path: String,
    /// The layer's UUID.
    pub layer: String,
    /// The number of superblocks written so far.
    pub generation: f64,
    /// Whether the layer is never written to again.
    pub frozen: bool,
    /// Whether the last server has closed the layer.
    pub closed: bool,
    /// The size of the disk, in bytes.
    pub size: f64,
    /// The logical block of the disk, in bytes.
    pub logical_block_size: u32,
    /// Bytes of the disk in the layer, zeros not counted.
    pub stored: f64,
    /// Bytes of the disk that the layer makes zeros.
    pub zeros: f64,
    /// Runs of blocks in the layer.
    pub extents: f64,
    /// Bytes of the file system that the file takes.
    pub allocated: f64,
}

impl From<&overlay::Info> for OverlayLayer {
    fn from(info: &overlay::Info) -> Self {
        Self {
            path: info.path.display().to_string(),
            layer: info.layer.to_string(),
            generation: number(info.generation),
            frozen: info.frozen,
            closed: info.closed,
            size: number(info.size),
            logical_block_size: info.logical_block,
            stored: number(info.stored),
            zeros: number(info.zeros),
            extents: number(info.extents),
            allocated: number(info.allocated),
        }
    }
}

/// What a disk held at one moment.
#[derive(Debug)]
#[napi(object, object_from_js = false)]
pub struct OverlaySnapshot {
    /// The path of the frozen layer's file.
    pub path: String,
    /// The layer's UUID.
    pub layer: String,
    /// The number of superblocks written so far.
    pub generation: f64,
}

impl From<&Snapshot> for OverlaySnapshot {
    fn from(snapshot: &Snapshot) -> Self {
        Self {
            path: snapshot.file.display().to_string(),
            layer: snapshot.layer.to_string(),
            generation: number(snapshot.generation),
        }
    }
}

/// Bytes of a disk that a layer stores or makes zeros.
#[derive(Debug)]
#[napi(object, object_from_js = false)]
pub struct OverlayChange {
    /// The first byte.
    pub offset: f64,
    /// The number of bytes.
    pub length: f64,
    /// Whether the bytes read as zeros and are not stored.
    pub zeros: bool,
}

impl From<&overlay::Change> for OverlayChange {
    fn from(&overlay::Change { offset, length, zeros }: &overlay::Change) -> Self {
        Self { offset: number(offset), length: number(length), zeros }
    }
}

/// Makes an empty layer on a base; answers the UUID of the layer.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<string>>")]
pub fn create_overlay(
    env: &Env,
    base: NativeTarget,
    path: String,
    logical_block_size: Option<u32>,
) -> napi::Result<Object<'_>> {
    task::promise(env, move || {
        let logical_block_size = logical_block_size.or(base.logical_block_size);
        let base = base.into_base().open()?;
        Ok(overlay::create(&base, Path::new(&path), logical_block_size)?.to_string())
    })
}

/// Freezes a layer and makes empty layers on the frozen layer.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<void>>")]
pub fn fork_overlay(
    env: &Env,
    path: String,
    #[napi(ts_arg_type = "readonly string[]")] children: Vec<String>,
    history: Option<String>,
) -> napi::Result<Object<'_>> {
    task::promise(env, move || {
        let children: Vec<_> = children.into_iter().map(PathBuf::from).collect();
        overlay::fork(Path::new(&path), &children, history.as_deref().map(Path::new))
    })
}

/// Describes a layer and the layers below, the lowest last.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<OverlayLayer[]>>")]
pub fn overlay_info(env: &Env, path: String) -> napi::Result<Object<'_>> {
    task::promise(env, move || {
        let layers = overlay::info(Path::new(&path))?;
        Ok(layers.iter().map(OverlayLayer::from).collect::<Vec<_>>())
    })
}

/// The difference between a disk and its base, or the disk of a layer below.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<OverlayChange[]>>")]
pub fn overlay_diff(env: &Env, path: String, from: Option<String>) -> napi::Result<Object<'_>> {
    task::promise(env, move || {
        let changes = overlay::diff(Path::new(&path), from.as_deref().map(Path::new))?;
        Ok(changes.iter().map(OverlayChange::from).collect::<Vec<_>>())
    })
}
