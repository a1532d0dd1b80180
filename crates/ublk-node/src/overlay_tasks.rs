//! Verbs on overlays without a server that take long: export, flatten, commit, changes as streams.

use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use napi::Env;
use napi::bindgen_prelude::Object;
use napi_derive::napi;
use ublk_core::error::{Code, Error};
use ublk_core::targets::overlay;
use ublk_core::targets::{Frozen, Merged, Progress};

use crate::describe::number;
use crate::targets::NativeTarget;
use crate::task;

/// A verb under way: how far the verb is, and the way to end the verb.
#[napi]
#[derive(Debug, Default)]
pub struct NativeOverlayTask {
    pub(crate) progress: Arc<Progress>,
}

#[napi]
impl NativeOverlayTask {
    /// Bytes that are done, and all bytes.
    #[napi(catch_unwind)]
    pub fn progress(&self) -> Vec<f64> {
        let (done, total) = self.progress.get();
        vec![number(done), number(total)]
    }

    /// Ends the verb.
    #[napi(catch_unwind)]
    pub fn cancel(&self) {
        self.progress.cancel();
    }
}

/// A task for a verb that has not begun.
#[napi(catch_unwind)]
pub fn overlay_task() -> NativeOverlayTask {
    NativeOverlayTask::default()
}

/// The file of an export.
#[derive(Debug)]
#[napi(object, object_from_js = false)]
pub struct OverlayExport {
    /// The size of the disk, in bytes.
    pub size: f64,
    /// Bytes that are written; all others are holes.
    pub written: f64,
}

/// The frozen layers below a disk.
#[derive(Debug)]
#[napi(object, object_from_js = false)]
pub struct FrozenLayers {
    /// How many there are.
    pub layers: u32,
    /// Bytes that their files take.
    pub allocated: f64,
    /// Bytes that a single layer with the same contents stores.
    pub stored: f64,
}

impl From<Frozen> for FrozenLayers {
    fn from(Frozen { layers, allocated, stored }: Frozen) -> Self {
        Self { layers, allocated: number(allocated), stored: number(stored) }
    }
}

/// The layers below a layer after a merge.
#[derive(Debug)]
#[napi(object, object_from_js = false)]
pub struct OverlayMerged {
    /// The merged layers that are still there, the highest first.
    pub kept: Vec<String>,
    /// The merged layers that were removed, the highest first.
    pub removed: Vec<String>,
}

impl From<Merged> for OverlayMerged {
    fn from(merged: Merged) -> Self {
        let names = |paths: Vec<std::path::PathBuf>| {
            paths.into_iter().map(|path| path.display().to_string()).collect()
        };
        Self { kept: names(merged.kept), removed: names(merged.removed) }
    }
}

/// Writes the whole disk of a layer to a raw file.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<OverlayExport>>")]
pub fn overlay_export<'env>(
    env: &'env Env,
    base: NativeTarget,
    path: String,
    out: String,
    replaces: bool,
    task: &NativeOverlayTask,
) -> napi::Result<Object<'env>> {
    let progress = Arc::clone(&task.progress);
    task::promise(env, move || {
        let base = base.into_base().open()?;
        let made = overlay::export(&base, Path::new(&path), Path::new(&out), replaces, &progress)?;
        Ok(OverlayExport { size: number(made.size), written: number(made.written) })
    })
}

/// Merges all layers of a disk into one.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<OverlayMerged>>")]
pub fn overlay_flatten<'env>(
    env: &'env Env,
    path: String,
    prunes: bool,
    task: &NativeOverlayTask,
) -> napi::Result<Object<'env>> {
    let progress = Arc::clone(&task.progress);
    task::promise(env, move || {
        Ok(OverlayMerged::from(overlay::flatten(Path::new(&path), prunes, &progress)?))
    })
}

/// Merges a layer and the layer below.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<OverlayMerged>>")]
pub fn overlay_commit<'env>(
    env: &'env Env,
    path: String,
    task: &NativeOverlayTask,
) -> napi::Result<Object<'env>> {
    let progress = Arc::clone(&task.progress);
    task::promise(env, move || {
        Ok(OverlayMerged::from(overlay::commit(Path::new(&path), &progress)?))
    })
}

/// What a rebase has put into the layer, in bytes.
#[derive(Debug)]
#[napi(object, object_from_js = false)]
pub struct OverlayRebased {
    /// Copied from the old base.
    pub copied: f64,
    /// Made zeros, as in the old base.
    pub zeros: f64,
}

/// Makes another base the base of a disk; absent `from`: only the name changes.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<OverlayRebased>>")]
pub fn overlay_rebase<'env>(
    env: &'env Env,
    path: String,
    from: Option<NativeTarget>,
    to: NativeTarget,
    task: &NativeOverlayTask,
) -> napi::Result<Object<'env>> {
    let progress = Arc::clone(&task.progress);
    task::promise(env, move || {
        let from = from.map(|from| from.into_base().open()).transpose()?;
        let to = to.into_base().open()?;
        let done = overlay::rebase(Path::new(&path), from.as_ref(), &to, &progress)?;
        Ok(OverlayRebased { copied: number(done.copied), zeros: number(done.zeros) })
    })
}

/// Writes the blocks of a layer into the base.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<void>>")]
pub fn overlay_commit_into_base<'env>(
    env: &'env Env,
    base: String,
    path: String,
    task: &NativeOverlayTask,
) -> napi::Result<Object<'env>> {
    let progress = Arc::clone(&task.progress);
    task::promise(env, move || {
        overlay::commit_into_base(Path::new(&base), Path::new(&path), &progress)
    })
}

/// Writes the changes of a disk to a descriptor, which may be closed when this has returned.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<void>>")]
pub fn overlay_send<'env>(
    env: &'env Env,
    path: String,
    from: Option<String>,
    fd: i32,
    task: &NativeOverlayTask,
) -> napi::Result<Object<'env>> {
    let (progress, out) = (Arc::clone(&task.progress), own(fd));
    task::promise(env, move || {
        overlay::send(Path::new(&path), from.as_deref().map(Path::new), out?.as_fd(), &progress)
    })
}

/// Makes a layer of changes that are read from a descriptor, which may be closed when this has returned.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<void>>")]
pub fn overlay_receive<'env>(
    env: &'env Env,
    fd: i32,
    path: String,
    base: Option<NativeTarget>,
    task: &NativeOverlayTask,
) -> napi::Result<Object<'env>> {
    let (progress, input) = (Arc::clone(&task.progress), own(fd));
    task::promise(env, move || {
        let base = base.map(|base| base.into_base().open()).transpose()?;
        overlay::receive(input?.as_fd(), Path::new(&path), base.as_ref(), &progress)
    })
}

/// A descriptor of our own for what the caller's refers to.
fn own(fd: i32) -> Result<OwnedFd, Error> {
    // SAFETY: fcntl of any number.
    let own = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) };
    if own < 0 {
        let error = std::io::Error::last_os_error();
        let tried = format!("cannot use the descriptor {fd}");
        return Err(Error::os(Code::InvalidArgument, tried, "fcntl", &error));
    }
    // SAFETY: new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(own) })
}
