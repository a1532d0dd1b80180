//! What folders of overlays hold, and whether that is sound: tree, check.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use napi::Env;
use napi::bindgen_prelude::Object;
use napi_derive::napi;
use ublk_core::targets::overlay;

use crate::describe::number;
use crate::overlay_tasks::NativeOverlayTask;
use crate::targets::NativeTarget;
use crate::task;

/// A layer in a folder.
#[derive(Debug)]
#[napi(object, object_from_js = false)]
pub struct NativeBranch {
    /// The path of the file.
    pub path: String,
    /// The layer's UUID.
    pub layer: String,
    /// The number of superblocks written so far.
    pub generation: f64,
    /// The size of the disk, in bytes.
    pub size: f64,
    /// Bytes of the file system that the file takes.
    pub allocated: f64,
    /// Whether the layer is never written to again.
    pub frozen: bool,
    /// Whether the last server has closed the layer.
    pub closed: bool,
    /// The file of the layer below, or of the base.
    pub below: Option<String>,
    /// Whether the layer stands on a layer.
    pub on_layer: bool,
    /// The process that has the layer.
    pub server: Option<u32>,
}

/// A problem of a file.
#[derive(Debug)]
#[napi(object, object_from_js = false)]
pub struct OverlayProblem {
    /// The file.
    pub path: String,
    /// What is wrong, and what to do.
    pub message: String,
}

/// What a check has found.
#[derive(Debug)]
#[napi(object, object_from_js = false)]
pub struct OverlayReport {
    /// The layers that were checked, the highest first.
    pub layers: Vec<String>,
    /// What is wrong.
    pub problems: Vec<OverlayProblem>,
    /// Bytes that the highest layer's file takes and nothing uses.
    pub unused: f64,
    /// Bytes that were given back.
    pub reclaimed: f64,
}

fn name(path: &Path) -> String {
    path.display().to_string()
}

impl From<overlay::Branch> for NativeBranch {
    fn from(branch: overlay::Branch) -> Self {
        Self {
            path: name(&branch.path),
            layer: branch.layer.to_string(),
            generation: number(branch.generation),
            size: number(branch.size),
            allocated: number(branch.allocated),
            frozen: branch.frozen,
            closed: branch.closed,
            below: branch.below.as_deref().map(name),
            on_layer: branch.on_layer,
            server: branch.server,
        }
    }
}

impl From<overlay::Check> for OverlayReport {
    fn from(check: overlay::Check) -> Self {
        let problem =
            |(path, message): (PathBuf, String)| OverlayProblem { path: name(&path), message };
        Self {
            layers: check.layers.iter().map(|path| name(path)).collect(),
            problems: check.problems.into_iter().map(problem).collect(),
            unused: number(check.unused),
            reclaimed: number(check.reclaimed),
        }
    }
}

/// Describes all layers in a folder.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<NativeBranch[]>>")]
pub fn overlay_tree(env: &Env, folder: String) -> napi::Result<Object<'_>> {
    task::promise(env, move || {
        let tree = overlay::tree(Path::new(&folder))?;
        Ok(tree.into_iter().map(NativeBranch::from).collect::<Vec<_>>())
    })
}

/// Checks the files of a disk.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<OverlayReport>>")]
pub fn overlay_check<'env>(
    env: &'env Env,
    path: String,
    base: Option<NativeTarget>,
    repairs: bool,
    task: &NativeOverlayTask,
) -> napi::Result<Object<'env>> {
    let progress = Arc::clone(&task.progress);
    task::promise(env, move || {
        let base = base.map(|base| base.into_base().open()).transpose()?;
        overlay::check(Path::new(&path), base.as_ref(), repairs, &progress).map(OverlayReport::from)
    })
}
