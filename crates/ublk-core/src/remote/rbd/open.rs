//! Opens an image: settings, monitors, pool, image, exclusive lock.

use std::ffi::{CStr, CString};
use std::fmt;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::RbdOptions;
use super::api::Api;
use super::explain;
use super::handles::{Cluster, Image};
use crate::error::{Code, Error, Result};

/// `RBD_FEATURE_EXCLUSIVE_LOCK`.
const FEATURE_EXCLUSIVE_LOCK: u64 = 1 << 2;
/// The limit of requests, unless Ceph's configuration has one.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(300);

/// How soon librados asks the monitors for the cluster's new state while an OSD does not answer: each setting with
/// Ceph's default and with ours, in seconds. With the defaults, requests may wait 10 s for an OSD that was away for less.
const WATCHFULNESS: [(&CStr, f64, &CStr); 2] =
    [(c"objecter_tick_interval", 5.0, c"1"), (c"objecter_timeout", 10.0, c"2")];

/// The name of an image, and the way to the cluster.
#[derive(Clone, Debug, Default)]
pub struct RbdImage {
    /// The name of the image.
    pub name: String,
    /// The pool.
    pub pool: String,
    /// The namespace of the pool; empty: the default namespace.
    pub namespace: String,
    /// The name of a snapshot.
    pub snapshot: Option<String>,
    /// The user's name, without `client.`; absent: `admin`.
    pub user: Option<String>,
    /// The name of the cluster, for the names of files; absent: `ceph`.
    pub cluster: Option<String>,
    /// Ceph's configuration; absent: where Ceph looks, `/etc/ceph/CLUSTER.conf` first.
    pub conf: Option<PathBuf>,
    /// The file with the user's key; absent: as the configuration says.
    pub keyring: Option<PathBuf>,
}

impl fmt::Display for RbdImage {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "rbd:{}/", self.pool)?;
        if !self.namespace.is_empty() {
            write!(to, "{}/", self.namespace)?;
        }
        to.write_str(&self.name)?;
        self.snapshot.iter().try_for_each(|snapshot| write!(to, "@{snapshot}"))
    }
}

/// What the cluster says of an image; sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The size of the image, or of the snapshot.
    pub size: u64,
    /// The size of each object.
    pub object_size: u64,
    /// How much lies in one object before the next object has its turn.
    pub stripe_unit: u64,
    /// The number of objects that have turns.
    pub stripe_count: u64,
    /// The smallest range that a discard gives back.
    pub discard_granularity: u64,
    /// Cluster, pool and number of the image, which no other image has.
    pub identity: String,
}

/// How far opening has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Monitors,
    Image,
    Lock,
}

/// # Errors
/// Those of [`Rbd::open`](super::Rbd::open).
pub(super) fn open(
    api: &'static Api,
    image: &RbdImage,
    options: RbdOptions,
    stage: &Mutex<Stage>,
) -> Result<(Image, Facts)> {
    let reach = |reached| *stage.lock().unwrap_or_else(PoisonError::into_inner) = reached;
    let failed = |what: &'static str| move |error: i32| explain::failed(image, what, error);
    let cluster = configure(api, image, options)?;
    cluster.connect().map_err(|error| explain::no_cluster(image, error))?;
    reach(Stage::Image);
    let fsid = cluster.fsid().map_err(failed("rados_cluster_fsid"))?;
    let granularity = cluster.get(c"rbd_discard_granularity_bytes").ok();
    let pool = cluster
        .open_pool(&c_string(&image.pool)?, &c_string(&image.namespace)?)
        .map_err(|error| explain::no_pool(image, error))?;
    let name = c_string(&image.name)?;
    let snapshot = image.snapshot.as_deref().map(c_string).transpose()?;
    let read_only = options.read_only || snapshot.is_some();
    let opened =
        pool.open_image(&name, snapshot.as_ref(), read_only).map_err(|(error, pool)| {
            let has_image = snapshot.is_some() && pool.open_image(&name, None, true).is_ok();
            explain::no_image(image, error, has_image)
        })?;
    let info = opened.info().map_err(failed("rbd_stat"))?;
    let facts = Facts {
        size: info.size,
        object_size: info.object_size,
        stripe_unit: opened
            .number(api.rbd_get_stripe_unit)
            .map_err(failed("rbd_get_stripe_unit"))?,
        stripe_count: opened
            .number(api.rbd_get_stripe_count)
            .map_err(failed("rbd_get_stripe_count"))?,
        discard_granularity: granularity.and_then(|text| text.parse().ok()).unwrap_or(0),
        identity: identity(&fsid, &opened, image).map_err(failed("rbd_get_id"))?,
    };
    let features = opened.number(api.rbd_get_features).map_err(failed("rbd_get_features"))?;
    if options.lock && !read_only && features & FEATURE_EXCLUSIVE_LOCK != 0 {
        reach(Stage::Lock);
        opened.lock().map_err(|error| explain::no_lock(image, error))?;
    }
    Ok((opened, facts))
}

/// A connection with all settings, not made yet.
fn configure(api: &'static Api, image: &RbdImage, options: RbdOptions) -> Result<Cluster> {
    let name = image.cluster.as_deref().unwrap_or("ceph");
    let user = c_string(&format!("client.{}", image.user.as_deref().unwrap_or("admin")))?;
    let failed = |what: &'static str| move |error: i32| explain::failed(image, what, error);
    let cluster = Cluster::new(api, &c_string(name)?, &user).map_err(failed("rados_create2"))?;
    let path = image.conf.as_deref().map(c_path).transpose()?;
    cluster
        .read_settings(path.as_deref())
        .map_err(|error| explain::no_settings(image, name, error))?;
    if let Some(keyring) = &image.keyring {
        // librados takes a missing file for a file without the key.
        File::open(keyring).map_err(|error| explain::no_keyring(image, keyring, &error))?;
        cluster.set(c"keyring", &c_path(keyring)?).map_err(failed("rados_conf_set"))?;
    }
    let connecting = whole_seconds(options.connect_timeout);
    let mut settings = vec![
        (c"client_mount_timeout", connecting.clone()),
        (c"rados_mon_op_timeout", connecting),
        // Calls come from reactors, which must not block.
        (c"rbd_non_blocking_aio", c"true".to_owned()),
    ];
    if let Some(limit) = request_timeout(&cluster, options.request_timeout) {
        settings.push((c"rados_osd_op_timeout", whole_seconds(limit)));
    }
    for (setting, default, ours) in WATCHFULNESS {
        if number(&cluster, setting) == Some(default) {
            settings.push((setting, ours.to_owned()));
        }
    }
    for (setting, value) in settings {
        cluster.set(setting, &value).map_err(failed("rados_conf_set"))?;
    }
    Ok(cluster)
}

/// The limit to be set: the one asked for, or ours where Ceph's configuration has none.
fn request_timeout(cluster: &Cluster, asked: Option<Duration>) -> Option<Duration> {
    match asked {
        Some(limit) => Some(limit),
        None if number(cluster, c"rados_osd_op_timeout").is_some_and(|own| own > 0.0) => None,
        None => Some(REQUEST_TIMEOUT),
    }
}

/// A number of Ceph's configuration.
fn number(cluster: &Cluster, setting: &CStr) -> Option<f64> {
    cluster.get(setting).ok()?.parse().ok()
}

/// Older releases take whole seconds only.
fn whole_seconds(limit: Duration) -> CString {
    let seconds = limit.as_millis().div_ceil(1000).max(1);
    CString::new(seconds.to_string()).unwrap_or_default()
}

fn identity(fsid: &str, opened: &Image, image: &RbdImage) -> std::result::Result<String, i32> {
    let (pool, id) = (opened.pool.id(), opened.id()?);
    let snapshot = image.snapshot.as_ref().map_or(String::new(), |name| format!("@{name}"));
    Ok(format!(
        "rbd of cluster {fsid}, pool {pool}, namespace '{}', image {id}{snapshot}",
        image.namespace
    ))
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| has_nul(&path.to_string_lossy()))
}

fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| has_nul(text))
}

fn has_nul(text: &str) -> Error {
    Error::new(Code::InvalidArgument, format!("{text:?} has a byte of value 0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_named_as_rbd_names_it() {
        let image = RbdImage { name: "vm".into(), pool: "rbd".into(), ..RbdImage::default() };
        assert_eq!(image.to_string(), "rbd:rbd/vm");
        let (namespace, snapshot) = ("a".into(), Some("s".into()));
        assert_eq!(RbdImage { namespace, snapshot, ..image }.to_string(), "rbd:rbd/a/vm@s");
    }

    #[test]
    fn limits_are_whole_seconds_and_never_none() {
        for (limit, text) in [(0, c"1"), (1, c"1"), (1000, c"1"), (1001, c"2"), (60_000, c"60")] {
            assert_eq!(whole_seconds(Duration::from_millis(limit)).as_c_str(), text);
        }
    }
}
