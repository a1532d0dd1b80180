//! What is done with overlays that are not served.

use std::path::{Path, PathBuf};

use napi::Env;
use napi::bindgen_prelude::Object;
use napi_derive::napi;
use ublk_core::target::overlay;

use crate::describe::number;
use crate::target::NativeTarget;
use crate::task;

/// What a layer's file says.
#[derive(Debug)]
#[napi(object, object_from_js = false)]
pub struct OverlayLayer {
    /// Where the file is.
    pub path: String,
    /// The layer's UUID.
    pub layer: String,
    /// Counts the superblocks that were written.
    pub generation: f64,
    /// Whether nothing is written to it any more.
    pub frozen: bool,
    /// Whether the last server has closed the layer.
    pub closed: bool,
    /// The size of the disk, in bytes.
    pub size: f64,
    /// Bytes of the disk that lie in the layer, zeros not counted.
    pub stored: f64,
    /// Bytes of the disk that are zeros by the layer.
    pub zeros: f64,
    /// Runs of blocks that the layer has.
    pub extents: f64,
    /// Bytes that the file takes of its file system.
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
            stored: number(info.stored),
            zeros: number(info.zeros),
            extents: number(info.extents),
            allocated: number(info.allocated),
        }
    }
}

/// Makes an empty layer on a base; answers its UUID.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<string>>")]
pub fn create_overlay(env: &Env, base: NativeTarget, path: String) -> napi::Result<Object<'_>> {
    task::promise(env, move || {
        let base = base.into_base().open()?;
        Ok(overlay::create(&base, Path::new(&path))?.to_string())
    })
}

/// Freezes a layer and makes empty ones on it.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<void>>")]
pub fn fork_overlay(
    env: &Env,
    path: String,
    children: Vec<String>,
    history: Option<String>,
) -> napi::Result<Object<'_>> {
    task::promise(env, move || {
        let children: Vec<_> = children.into_iter().map(PathBuf::from).collect();
        overlay::fork(Path::new(&path), &children, history.as_deref().map(Path::new))
    })
}

/// What is known of a layer and of those that it stands on, the lowest last.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<OverlayLayer[]>>")]
pub fn overlay_info(env: &Env, path: String) -> napi::Result<Object<'_>> {
    task::promise(env, move || {
        let layers = overlay::info(Path::new(&path))?;
        Ok(layers.iter().map(OverlayLayer::from).collect::<Vec<_>>())
    })
}
