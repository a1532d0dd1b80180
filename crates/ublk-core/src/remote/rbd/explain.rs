//! What went wrong when an image was opened, for people.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::open::{RbdImage, Stage};
use crate::error::{Code, Error};

/// What it means when the cluster does not answer at a stage, and what to look at.
fn silence(stage: Stage) -> (&'static str, &'static str) {
    match stage {
        Stage::Monitors => (
            "the monitors of the cluster do not answer",
            "are mon_host in Ceph's configuration and the network right? `ceph -s` tells",
        ),
        Stage::Image => {
            ("OSDs do not answer", "are the placement groups of the pool active? `ceph -s` tells")
        }
        Stage::Lock => (
            "another client keeps the exclusive lock",
            "the lock of a client that was killed is free after 30 s; `rbd status POOL/IMAGE` names the \
             clients; the option connectTimeoutMs (--connect-timeout) is the limit",
        ),
    }
}

/// librados or librbd has waited for the cluster for as long as it may.
fn unanswered(image: &RbdImage, stage: Stage, call: &'static str) -> Error {
    let (what, hint) = silence(stage);
    explained(Code::Timeout, image, &what, call, -libc::ETIMEDOUT).hint(hint)
}

/// An error of Ceph's: `error` is a negative errno, of `call`.
fn explained(
    code: Code,
    image: &dyn fmt::Display,
    why: &dyn fmt::Display,
    call: &'static str,
    error: i32,
) -> Error {
    let os = io::Error::from_raw_os_error(error.saturating_neg());
    Error::os(code, format!("cannot open {image}: {why}"), call, &os)
}

pub(super) fn no_library(image: &RbdImage, reason: &str) -> Error {
    let message = format!("cannot open {image}: Ceph's library librbd cannot be loaded: {reason}");
    Error::new(Code::Unsupported, message).hint(
        "install the package librbd1, of Ceph 16 or newer: `apt-get install librbd1` (Debian, Ubuntu), \
         `dnf install librbd1` (Fedora, RHEL)",
    )
}

pub(super) fn no_settings(image: &RbdImage, cluster: &str, error: i32) -> Error {
    let path = image
        .conf
        .as_ref()
        .map_or_else(|| format!("/etc/ceph/{cluster}.conf"), |path| path.display().to_string());
    let code = if error == -libc::EACCES { Code::Permission } else { Code::NoBackend };
    let why = format!("Ceph's configuration {path} cannot be read");
    explained(code, image, &why, "rados_conf_read_file", error).hint(
        "it names the monitors (mon_host); `ceph config generate-minimal-conf` on the cluster prints one; \
         the option conf (--conf) names another file",
    )
}

pub(super) fn no_keyring(image: &RbdImage, path: &Path, error: &io::Error) -> Error {
    let code = match error.raw_os_error() {
        Some(libc::EACCES) => Code::Permission,
        _ => Code::NoBackend,
    };
    let user = image.user.as_deref().unwrap_or("admin");
    let message = format!("cannot open {image}: the keyring {} cannot be read", path.display());
    Error::os(code, message, "open", error)
        .hint(format!("`ceph auth get client.{user} -o FILE` makes such a file"))
}

pub(super) fn no_cluster(image: &RbdImage, error: i32) -> Error {
    let user = format!("client.{}", image.user.as_deref().unwrap_or("admin"));
    let call = "rados_connect";
    match -error {
        libc::ETIMEDOUT => unanswered(image, Stage::Monitors, call),
        libc::EACCES | libc::EPERM => {
            let why = format!("the cluster refuses {user}, or the keyring has no key of this user");
            explained(Code::Permission, image, &why, call, error)
                .hint(format!("does the keyring have the key that `ceph auth get {user}` prints?"))
        }
        libc::ENOENT | libc::EOPNOTSUPP | libc::EINVAL => {
            let why = format!("no key of {user} was found, or no monitor is known");
            explained(Code::NoBackend, image, &why, call, error).hint(
                "the options user and keyring (--user, --keyring) name another key; mon_host in Ceph's \
                 configuration names the monitors",
            )
        }
        _ => explained(Code::BadBackend, image, &"no connection to the cluster", call, error),
    }
}

pub(super) fn no_pool(image: &RbdImage, error: i32) -> Error {
    let why = format!("the cluster has no pool '{}'", image.pool);
    match -error {
        libc::ENOENT => explained(Code::NoBackend, image, &why, "rados_ioctx_create", error)
            .hint("`ceph osd lspools` lists the pools"),
        _ => failed(image, "rados_ioctx_create", error),
    }
}

/// `has_image`: only the snapshot is missing.
pub(super) fn no_image(image: &RbdImage, error: i32, has_image: bool) -> Error {
    let call = "rbd_open";
    let RbdImage { name, pool, .. } = image;
    let place = match &*image.namespace {
        "" => pool.clone(),
        namespace => format!("{pool}/{namespace}"),
    };
    match (-error, &image.snapshot) {
        (libc::ENOENT, Some(snapshot)) if has_image => {
            let why = format!("the image has no snapshot '{snapshot}'");
            explained(Code::NoBackend, image, &why, call, error)
                .hint(format!("`rbd snap ls {place}/{name}` lists the snapshots"))
        }
        (libc::ENOENT, _) => {
            let why = format!("{place} has no image '{name}'");
            explained(Code::NoBackend, image, &why, call, error)
                .hint(format!("`rbd ls {place}` lists the images"))
        }
        (libc::EACCES | libc::EPERM, _) => {
            let user = image.user.as_deref().unwrap_or("admin");
            let why = format!("client.{user} may not open the image");
            explained(Code::Permission, image, &why, call, error).hint(
                "the user needs `mon 'profile rbd' osd 'profile rbd pool=POOL'`; with \
                 'profile rbd-read-only', the option readOnly (--read-only)",
            )
        }
        (libc::ETIMEDOUT, _) => unanswered(image, Stage::Image, call),
        _ => failed(image, call, error),
    }
}

pub(super) fn no_lock(image: &RbdImage, error: i32) -> Error {
    let call = "rbd_lock_acquire";
    match -error {
        // librbd's errno is EROFS, which would mislead.
        libc::EROFS | libc::EBUSY => {
            let message = format!("cannot open {image}: another client holds the exclusive lock");
            Error::new(Code::Busy, message).hint(format!(
                "{} names the client; the copy of an image on a mirror's other cluster refuses the lock, too; \
                 with readOnly (--read-only) the image can be read meanwhile",
                status(image)
            ))
        }
        // The lock is an object of the image: OSDs keep it.
        libc::ETIMEDOUT => unanswered(image, Stage::Image, call),
        _ => explained(Code::BadBackend, image, &"no exclusive lock", call, error),
    }
}

pub(super) fn timed_out(name: &str, stage: Stage, limit: Duration) -> Error {
    let (what, hint) = silence(stage);
    let message = format!("cannot open {name}: {what}, within {} ms", limit.as_millis());
    Error::new(Code::Timeout, message).hint(hint)
}

/// A call that should not fail.
pub(super) fn failed(image: &RbdImage, call: &'static str, error: i32) -> Error {
    let code = if error == -libc::ETIMEDOUT { Code::Timeout } else { Code::BadBackend };
    explained(code, image, &call, call, error)
}

fn status(image: &RbdImage) -> String {
    format!("`rbd status {}`", image.to_string().trim_start_matches("rbd:"))
}
