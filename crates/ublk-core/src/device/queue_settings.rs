//! Settings of the kernel's queue above the device: `/sys/block/ublkbN/queue`
//! (Documentation/ABI/stable/sysfs-block, block/blk-sysfs.c).

use std::io;

use ublk_sys::ublksrv_ctrl_dev_info;

use crate::driver::Driver;
use crate::error::{Code, Error, Result};
use crate::reactor::can_be_left;

/// Settings of the device's queue other than the kernel's defaults. The names are the kernel's. ublk writes
/// each setting once, after the start of the device; root may change the setting later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueSettings {
    /// `scheduler`: the I/O scheduler, `none` or one of the kernel's.
    pub scheduler: Option<String>,
    /// `wbt_lat_usec`: the latency of reads, in microseconds, above which the kernel throttles background
    /// writes; 0 never throttles, −1 is the kernel's default (2 ms; 75 ms for rotational devices). Absent:
    /// −1, but 0 for a target whose writes need no throttling
    /// ([`Target::throttles_writes`](crate::targets::Target::throttles_writes)).
    pub wbt_lat_usec: Option<i64>,
    /// `nomerges`: 0 merges requests of neighbouring sectors, 1 merges in cheap cases only, 2 never.
    pub nomerges: Option<u8>,
    /// `iostats`: whether `/proc/diskstats`, and so iostat, counts the device's requests.
    pub iostats: Option<bool>,
    /// `rq_affinity`: completions run on the server's CPU (0), near the submitter's CPU (1), on the
    /// submitter's CPU (2).
    pub rq_affinity: Option<u8>,
    /// `read_ahead_kb`: the read-ahead of the page cache, in KiB.
    pub read_ahead_kb: Option<u32>,
    /// `max_sectors_kb`: the largest request of the kernel, in KiB, at most the device's `max_io_bytes`.
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

    /// Writes the settings of a started device, which has this `info`, and the
    /// [wishes](Self::wishes) of ublk.
    ///
    /// # Errors
    /// [`Code::Unsupported`] for a setting that the kernel lacks, [`Code::InvalidArgument`] for a value that
    /// the kernel refuses, [`Code::Permission`], [`Code::Timeout`].
    pub(super) fn apply<D: Driver>(
        &self,
        driver: &D,
        info: &ublksrv_ctrl_dev_info,
        throttles_writes: bool,
    ) -> Result<()> {
        let id = info.dev_id;
        // A scheduler sets both anew: wishes come before the settings of the caller.
        let waits = self.entries().next().is_some();
        for (name, value) in self.wishes(info, throttles_writes) {
            // A kernel may lack throttling. Without a free tag, QUIESCE_DEV fails only while requests have
            // all tags of a queue.
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

    /// Settings that the caller has not asked for: no throttling where writes need none, and a free tag of
    /// each queue, which QUIESCE_DEV needs to take a device from the server.
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

    /// Whether requests that wait for a server keep their tags: with a scheduler, requests wait without tags,
    /// and `nr_requests` is the number of requests that the scheduler takes.
    fn leaves_tags_to_the_driver(&self) -> bool {
        self.scheduler.as_deref().is_none_or(|name| name == "none")
    }

    /// Names and values for sysfs, in an order that loses no value: a scheduler resets the throttling, and
    /// each limit of the queue resets the read-ahead.
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
        // Of /bin/sh: sysfs itself never answers so.
        Some(libc::EAGAIN) => Error::os(Code::Kernel, tried, "clone", error),
        Some(libc::ENOSYS) => Error::os(Code::Unsupported, tried, "start", error)
            .hint("queue settings are written by /bin/sh, which is missing here"),
        _ => Error::os(Code::Kernel, tried, "write", error),
    }
}
