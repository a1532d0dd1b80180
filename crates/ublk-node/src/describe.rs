//! The core's answers, in the types of `src/info.ts`.

use napi_derive::napi;
use ublk_core::device::{self, Buffering, DeviceState, ExchangeMode, Recovery};
use ublk_core::driver::{User, Users};
use ublk_core::stats::QueueStats;
use ublk_sys::FEATURES;

/// A device as the kernel describes it.
#[derive(Debug)]
#[napi(object, object_from_js = false)]
pub struct DeviceInfo {
    /// The number N of `/dev/ublkbN`.
    pub id: u32,
    /// The block device.
    pub path: String,
    /// Whether the device is served.
    #[napi(ts_type = "'dead' | 'live' | 'quiesced' | 'fail-io'")]
    pub state: &'static str,
    /// Hardware queues.
    pub queues: u16,
    /// Requests of a queue in flight at once.
    pub depth: u16,
    /// The largest request, in bytes.
    pub max_io_bytes: u32,
    /// In bytes; absent before the parameters are set, and while the parameters are unknown.
    pub size: Option<f64>,
    /// In bytes; absent as `size` is.
    pub logical_block_size: Option<u32>,
    /// Whether writes are refused; absent as `size` is.
    pub read_only: Option<bool>,
    /// The process that serves the device.
    pub server_pid: Option<u32>,
    /// The user who created the device.
    pub owner_uid: u32,
    /// The group of the owner.
    pub owner_gid: u32,
    /// What becomes of requests without a server; absent: the device ends with the server.
    #[napi(ts_type = "'queue' | 'reissue' | 'fail'")]
    pub recovery: Option<&'static str>,
    /// The features in force.
    pub features: Vec<String>,
}

impl From<&device::DeviceInfo> for DeviceInfo {
    fn from(info: &device::DeviceInfo) -> Self {
        Self {
            id: info.id,
            path: format!("/dev/ublkb{}", info.id),
            state: state(info.state),
            queues: info.queues,
            depth: info.depth,
            max_io_bytes: info.max_io_bytes,
            size: info.size.map(number),
            logical_block_size: info.logical_block,
            read_only: info.read_only,
            server_pid: info.server_pid,
            owner_uid: info.owner_uid,
            owner_gid: info.owner_gid,
            recovery: info.recovery.map(recovery),
            features: features(info.flags)
                .filter(|one| one.supported)
                .map(|one| one.name)
                .collect(),
        }
    }
}

/// The users of a device.
#[derive(Debug)]
#[napi(object, object_from_js = false)]
pub struct DeviceUsers {
    /// The users found.
    pub found: Vec<DeviceUser>,
    /// Whether all places were looked at.
    pub complete: bool,
    /// All users, in words.
    pub text: String,
}

/// A user of a device.
#[derive(Debug)]
#[napi(object, object_from_js = false)]
pub struct DeviceUser {
    /// What uses the device.
    #[napi(ts_type = "'mount' | 'device' | 'swap' | 'process'")]
    pub kind: &'static str,
    /// The mount point, the name of the device or of the process.
    pub name: Option<String>,
    /// Of a process.
    pub pid: Option<u32>,
}

impl From<Users> for DeviceUsers {
    fn from(users: Users) -> Self {
        let text = users.to_string();
        let found = users.found.into_iter().map(DeviceUser::from).collect();
        Self { found, complete: users.complete, text }
    }
}

impl From<User> for DeviceUser {
    fn from(user: User) -> Self {
        let (kind, name, pid) = match user {
            User::Mount { at } => ("mount", Some(at), None),
            User::Device { name } => ("device", Some(name), None),
            User::Swap => ("swap", None, None),
            User::Process { pid, name } => ("process", Some(name), Some(pid)),
        };
        Self { kind, name, pid }
    }
}

/// A feature of the driver.
#[derive(Debug)]
#[napi(object, object_from_js = false)]
pub struct Feature {
    /// The kernel's name without `UBLK_F_`; of a bit without a name, the bit.
    pub name: String,
    /// The first release with the feature.
    pub since: &'static str,
    /// Whether the feature is there.
    pub supported: bool,
}

/// All features known to this package, with their presence in `flags`; then the other bits of
/// `flags`, as numbers.
pub(crate) fn features(flags: u64) -> impl Iterator<Item = Feature> {
    let known = FEATURES.iter().map(move |feature| Feature {
        name: feature.name.trim_start_matches("UBLK_F_").into(),
        since: feature.since,
        supported: flags & feature.flag != 0,
    });
    let named = FEATURES.iter().fold(0, |bits, feature| bits | feature.flag);
    let unknown = (0..u64::BITS).map(|bit| 1 << bit).filter(move |bit| flags & bit & !named != 0);
    let unknown =
        unknown.map(|bit| Feature { name: format!("{bit:#x}"), since: "unknown", supported: true });
    known.chain(unknown)
}

/// The exchange, in the words of `src/info.ts`.
pub(crate) fn exchange_mode(mode: ExchangeMode) -> &'static str {
    match mode {
        ExchangeMode::PerIo => "per-io",
        ExchangeMode::Batch => "batch",
    }
}

/// How a device's requests reach their data.
#[derive(Debug)]
#[napi(object, object_from_js = false)]
pub struct Buffers {
    /// The buffer mode that can serve every request.
    #[napi(ts_type = "'auto' | 'register' | 'user-copy' | 'get-data' | 'copy'")]
    pub mode: &'static str,
    /// With zero copy: user copy is there as well.
    pub user_copy: bool,
    /// Clients can share memory.
    pub shared: bool,
}

impl From<Buffering> for Buffers {
    fn from(buffers: Buffering) -> Self {
        let Buffering { mode, user_copy, shared } = buffers;
        Self { mode: mode.name(), user_copy, shared }
    }
}

fn recovery(recovery: Recovery) -> &'static str {
    match recovery {
        Recovery::Queue => "queue",
        Recovery::Reissue => "reissue",
        Recovery::Fail => "fail",
    }
}

fn state(state: DeviceState) -> &'static str {
    match state {
        DeviceState::Dead => "dead",
        DeviceState::Live => "live",
        DeviceState::Quiesced => "quiesced",
        DeviceState::FailIo => "fail-io",
    }
}

/// As JavaScript counts: exact up to 2^53, more than any disk or counter here reaches soon.
#[expect(clippy::cast_precision_loss, reason = "beyond 2^53 nobody counts single bytes")]
pub(crate) fn number(value: u64) -> f64 {
    value as f64
}

macro_rules! counters {
    ($($name:ident),* $(,)?) => {
        /// The counters of a queue; `src/info.ts` describes the counters.
        #[allow(missing_docs)]
        #[derive(Debug)]
        #[napi(object, object_from_js = false)]
        pub struct Counters {
            $(pub $name: f64,)*
        }

        impl From<&QueueStats> for Counters {
            fn from(stats: &QueueStats) -> Self {
                Self { $($name: number(stats.$name),)* }
            }
        }
    };
}

counters! {
    reads, writes, flushes, discards, write_zeroes, read_bytes, write_bytes, zero_copy_bytes,
    copied_bytes, errors, short_results, zero_filled_bytes, registrations, fallbacks, enters,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_that_a_newer_kernel_has_are_numbers() {
        let newer = (1 << 62) | FEATURES[0].flag;
        let supported: Vec<_> =
            features(newer).filter(|one| one.supported).map(|one| one.name).collect();
        assert_eq!(supported, ["SUPPORT_ZERO_COPY", "0x4000000000000000"]);
        assert_eq!(features(0).count(), FEATURES.len());
    }
}
