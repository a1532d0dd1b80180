//! Settings of the kernel's queue above the device: `/sys/block/ublkbN/queue`
//! (Documentation/ABI/stable/sysfs-block, block/blk-sysfs.c).

use std::io;

use ublk_sys::ublksrv_ctrl_dev_info;

use crate::driver::Driver;
use crate::error::{Code, Error, Result};
use crate::reactor::can_be_left;

/// What of the device's queue differs from the kernel's default. The names are the kernel's own;
/// each is written once, when the device has started, and anybody may change it later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueSettings {
    /// `scheduler`: which one orders requests, `none` or one that the kernel has.
    pub scheduler: Option<String>,
    /// `wbt_lat_usec`: how long a read may take, in microseconds, before background writes are held
    /// back; 0 never holds them back, −1 leaves it to the kernel (2 ms; 75 ms for rotational
    /// devices). Absent: −1, but 0 for a target that has no use for it
    /// ([`Target::throttles_writes`](crate::target::Target::throttles_writes)).
    pub wbt_lat_usec: Option<i64>,
    /// `nomerges`: 0 merges requests of neighbouring sectors, 1 tries only the cheap ways, 2 never.
    pub nomerges: Option<u8>,
    /// `iostats`: whether `/proc/diskstats`, and so iostat, counts the device's requests.
    pub iostats: Option<bool>,
    /// `rq_affinity`: where completions run: 0 where the server is, 1 near the submitter's CPU, 2 on
    /// it.
    pub rq_affinity: Option<u8>,
    /// `read_ahead_kb`: how far the page cache reads ahead.
    pub read_ahead_kb: Option<u32>,
    /// `max_sectors_kb`: the largest request that the kernel makes, at most the device's
    /// `max_io_bytes`.
    pub max_sectors_kb: Option<u32>,
}

impl QueueSettings {
    /// Checks what can be checked without the kernel.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`], naming the setting, its value and its range.
    pub(super) fn validate(&self, max_io_bytes: u32) -> Result<()> {
        let refuse = |message: String| Err(Error::new(Code::InvalidArgument, message));
        if let Some(name) = &self.scheduler
            && !(1..=32).contains(&name.len())
        {
            return refuse(format!("queue.scheduler is '{name}'; it must be a scheduler's name"));
        }
        if self.wbt_lat_usec.is_some_and(|latency| latency < -1) {
            return refuse("queue.wbtLatUsec must be −1 or more".into());
        }
        if self.nomerges.is_some_and(|level| level > 2) {
            return refuse("queue.nomerges must be 0, 1 or 2".into());
        }
        if self.rq_affinity.is_some_and(|level| level > 2) {
            return refuse("queue.rqAffinity must be 0, 1 or 2".into());
        }
        let largest = max_io_bytes >> 10;
        if let Some(size) = self.max_sectors_kb
            && !(4..=largest).contains(&size)
        {
            return refuse(format!(
                "queue.maxSectorsKb is {size}; it must be from 4 to {largest}, which is maxIoBytes"
            ));
        }
        Ok(())
    }

    /// Writes them to a started device, which has this `info`. Where writes need no throttling and
    /// nothing was said about it, it is turned off if the kernel lets us. A device that can be taken
    /// from its server keeps a tag for that.
    ///
    /// # Errors
    /// [`Code::Unsupported`] for what this kernel does not have, [`Code::InvalidArgument`] for a
    /// value that it refuses, [`Code::Permission`].
    pub(super) fn apply<D: Driver>(
        &self,
        driver: &D,
        info: &ublksrv_ctrl_dev_info,
        throttles_writes: bool,
    ) -> Result<()> {
        let id = info.dev_id;
        // A scheduler sets both anew, so that a device with settings of its own waits for these first.
        let waits = self.entries().next().is_some();
        for (name, value) in self.wishes(info, throttles_writes) {
            // A kernel without throttling is as good. Without the tag the device is taken away all the
            // same, unless requests have all tags of a queue just then.
            let _lacking = match waits {
                true => driver.set_queue(id, name, &value),
                false => driver.set_queue_soon(id, name, &value),
            };
        }
        for (name, value) in self.entries() {
            driver
                .set_queue(id, name, &value)
                .map_err(|error| refused(id, name, &value, &error))?;
        }
        Ok(())
    }

    /// What nobody asked for: no throttling where writes need none, and one tag of each queue that
    /// requests leave free, which QUIESCE_DEV needs of a device that can be taken from its server.
    fn wishes(
        &self,
        info: &ublksrv_ctrl_dev_info,
        throttles_writes: bool,
    ) -> impl Iterator<Item = (&'static str, String)> {
        let unthrottled = self.wbt_lat_usec.is_none() && !throttles_writes;
        let keeps_a_tag = can_be_left(info.flags) && self.leaves_tags_to_the_driver();
        [
            unthrottled.then(|| ("wbt_lat_usec", "0".to_owned())),
            keeps_a_tag.then(|| ("nr_requests", (info.queue_depth - 1).to_string())),
        ]
        .into_iter()
        .flatten()
    }

    /// Whether requests that wait for a server keep their tags: with a scheduler they wait without, and
    /// `nr_requests` is how many the scheduler takes.
    fn leaves_tags_to_the_driver(&self) -> bool {
        self.scheduler.as_deref().is_none_or(|name| name == "none")
    }

    /// Names and values as sysfs takes them, in an order that loses none: a scheduler brings its own
    /// throttling, and each limit of the queue sets the read-ahead anew.
    fn entries(&self) -> impl Iterator<Item = (&'static str, String)> {
        let number = |value: Option<u8>| value.map(|value| value.to_string());
        [
            ("scheduler", self.scheduler.clone()),
            ("wbt_lat_usec", self.wbt_lat_usec.filter(|&us| us >= 0).map(|us| us.to_string())),
            ("nomerges", number(self.nomerges)),
            ("iostats", number(self.iostats.map(u8::from))),
            ("rq_affinity", number(self.rq_affinity)),
            ("max_sectors_kb", self.max_sectors_kb.map(|size| size.to_string())),
            ("read_ahead_kb", self.read_ahead_kb.map(|size| size.to_string())),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }
}

fn refused(id: u32, name: &'static str, value: &str, error: &io::Error) -> Error {
    let path = format!("/sys/block/ublkb{id}/queue/{name}");
    let tried = format!("cannot write {value} to {path}");
    match error.raw_os_error() {
        Some(libc::ENOENT) => Error::os(Code::Unsupported, tried, "open", error)
            .hint(format!("this kernel has no queue setting {name}: leave it out")),
        Some(libc::EINVAL) => {
            let hint = match name {
                "scheduler" => "see /sys/block/*/queue/scheduler for what this kernel has",
                _ => "the kernel does not take this value",
            };
            Error::os(Code::InvalidArgument, tried, "write", error).hint(hint)
        }
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => {
            Error::os(Code::Permission, tried, "open", error)
                .hint("queue settings need root and a writable /sys")
        }
        Some(libc::ETIMEDOUT) => Error::os(Code::Timeout, tried, "write", error)
            .hint("requests in flight are not answered: the kernel takes no setting before"),
        Some(libc::ENOSYS) => Error::os(Code::Unsupported, tried, "start", error)
            .hint("queue settings are written by /bin/sh, which is missing here"),
        _ => Error::os(Code::Kernel, tried, "write", error),
    }
}
