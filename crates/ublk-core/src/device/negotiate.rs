//! The negotiation with the kernel: the request, and the result.
//!
//! A kernel may fail to keep the promise of the feature list: 6.12 lists zero copy and clears the
//! flag when a device is added. So the flags returned by ADD_DEV decide.

use ublk_sys::{
    UBLK_F_BATCH_IO, UBLK_F_BUF_REG_OFF_DAEMON, UBLK_F_PER_IO_DAEMON, ublksrv_ctrl_dev_info,
};

use super::abilities;
use super::buffering::{BufferMode, Buffering, MODES};
use super::options::{DeviceOptions, ExchangeMode};
use crate::error::{Code, Error, Result};

/// The kind of device, besides the options.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kind {
    /// The device has dedicated reactors and is not zoned.
    pub(super) plain: bool,
    /// A handler answers the requests.
    pub(super) asks: bool,
    /// The target has remotes.
    pub(super) remote: bool,
}

/// The device to add: as asked, with the best buffer mode and exchange listed by the kernel.
pub(super) fn wanted(
    features: u64,
    options: &DeviceOptions,
    kind: Kind,
) -> Result<ublksrv_ctrl_dev_info> {
    let lacks_it = |mode: &BufferMode| features & mode.flags() != mode.flags();
    if let Some(&lacking) = options.buffers.iter().find(|&mode| features != 0 && lacks_it(mode)) {
        return Err(lacks(lacking));
    }
    let buffers = best(features, options);
    let exchange = match options.exchange {
        Some(ExchangeMode::Batch) if features & UBLK_F_BATCH_IO == 0 => return Err(lacks_batch()),
        Some(ExchangeMode::Batch) => UBLK_F_BATCH_IO,
        Some(ExchangeMode::PerIo) => 0,
        None if batch_is_best(buffers, options, kind) => features & UBLK_F_BATCH_IO,
        None => 0,
    };
    Ok(ublksrv_ctrl_dev_info {
        nr_hw_queues: options.queues,
        queue_depth: options.depth,
        max_io_buf_bytes: options.max_io_bytes,
        dev_id: options.id.unwrap_or(u32::MAX),
        flags: buffers.flags() | exchange | abilities::wanted(features, options)?,
        io_desc_size: options.io_desc_size.unwrap_or_default(),
        ..Default::default()
    })
}

/// The requested modes; where the request leaves a choice, the best mode listed by the kernel.
fn best(features: u64, options: &DeviceOptions) -> Buffering {
    let asked = |mode| options.buffers.contains(&mode);
    let listed = |mode: &BufferMode| features & mode.flags() == mode.flags();
    let mode = match options.base() {
        Some(mode) => mode,
        // The kernel lends no client's pages to an unprivileged server.
        None if options.unprivileged => BufferMode::Copy,
        None => MODES.into_iter().find(listed).unwrap_or(BufferMode::Copy),
    };
    Buffering {
        mode,
        user_copy: mode.is_zero_copy() && asked(BufferMode::UserCopy),
        shared: asked(BufferMode::Shared),
    }
}

/// Whether batches cost less in all: 600 instructions of 18,000 less per 4 KiB read at depth 32,
/// though 1,170 more than 35,330 at depth 1. Batches are not best where the load is spread over
/// many queues (each queue has a separate fetch and commit), nor for devices that outlive the
/// server: `QUIESCE_DEV` makes the kernel fail requests of such a device with batches. With
/// batches, a handler's thread may commit directly, which saves a wake-up of the reactor. Of a target
/// with remotes, whose data is copied, batches cost a little less in the one rough run that there was (4 KiB
/// reads from nbdkit on the same machine, depths 1 and 32).
fn batch_is_best(buffers: Buffering, options: &DeviceOptions, kind: Kind) -> bool {
    (buffers.mode == BufferMode::Auto
        || buffers.mode == BufferMode::Copy && (kind.asks || kind.remote))
        && kind.plain
        && options.depth > 1
        && options.recovery.is_none()
        && !options.spreads()
        && !options.rings_apart
}

/// The buffer modes and the exchange given by a device's flags.
pub(super) fn in_force(flags: u64) -> (Buffering, ExchangeMode) {
    let exchange = match flags & UBLK_F_BATCH_IO {
        0 => ExchangeMode::PerIo,
        _ => ExchangeMode::Batch,
    };
    (Buffering::in_force(flags), exchange)
}

/// The buffer modes and the exchange of the added device.
pub(super) fn given(
    info: &ublksrv_ctrl_dev_info,
    options: &DeviceOptions,
) -> Result<(Buffering, ExchangeMode)> {
    abilities::given(info.flags, options)?;
    let (buffers, exchange) = in_force(info.flags);
    let lost = |mode: &BufferMode| info.flags & mode.flags() != mode.flags();
    if let Some(&lost) = options.buffers.iter().find(|&mode| lost(mode)) {
        return Err(lacks(lost));
    }
    if options.exchange.is_some_and(|asked| asked != exchange) {
        return Err(lacks_batch());
    }
    Ok((buffers, exchange))
}

/// Whether an existing device can have the requested threads.
pub(super) fn check_threads(options: &DeviceOptions, flags: u64) -> Result<()> {
    let spread = if options.spreads() { UBLK_F_PER_IO_DAEMON } else { 0 };
    let apart = if options.rings_apart { UBLK_F_BUF_REG_OFF_DAEMON } else { 0 };
    abilities::check(flags, spread | apart)
}

fn lacks_batch() -> Error {
    let message = "this kernel's ublk driver lacks exchange 'batch'";
    Error::new(Code::Unsupported, message)
        .hint("it needs Linux 7.0; leave the option out and the best of this kernel is chosen")
}

fn lacks(mode: BufferMode) -> Error {
    let message = format!("this kernel's ublk driver lacks buffer mode '{mode}'");
    Error::new(Code::Unsupported, message).hint(format!(
        "it needs {}; leave the option out and the best mode of this kernel is chosen",
        mode.needs()
    ))
}

#[cfg(test)]
mod tests {
    use ublk_sys::{
        UBLK_F_AUTO_BUF_REG, UBLK_F_NEED_GET_DATA, UBLK_F_SHMEM_ZC, UBLK_F_SUPPORT_ZERO_COPY,
        UBLK_F_USER_COPY,
    };

    use super::super::options::Recovery;
    use super::*;

    const ZERO_COPY: u64 = UBLK_F_AUTO_BUF_REG | UBLK_F_SUPPORT_ZERO_COPY;
    const ALL: u64 = ZERO_COPY | UBLK_F_USER_COPY | UBLK_F_NEED_GET_DATA | UBLK_F_SHMEM_ZC;

    fn asking(buffers: &[BufferMode]) -> DeviceOptions {
        DeviceOptions { buffers: buffers.to_vec(), ..Default::default() }
    }

    fn flags(features: u64, buffers: &[BufferMode]) -> u64 {
        wanted(features, &asking(buffers), Kind::default()).unwrap().flags & ALL
    }

    #[test]
    fn the_best_mode_is_asked_for_and_the_flags_that_come_back_decide() {
        let options = DeviceOptions::default();
        let info = wanted(ALL, &options, Kind::default()).unwrap();
        assert_eq!(info.flags & ALL, ZERO_COPY);
        let stripped = ublksrv_ctrl_dev_info { flags: 0, ..info };
        let copy = Buffering { mode: BufferMode::Copy, user_copy: false, shared: false };
        assert_eq!(given(&stripped, &options).unwrap(), (copy, ExchangeMode::PerIo));
    }

    #[test]
    fn a_mode_that_the_kernel_takes_back_is_an_error_only_if_it_was_asked_for() {
        let options = asking(&[BufferMode::Register]);
        let info = wanted(UBLK_F_SUPPORT_ZERO_COPY, &options, Kind::default()).unwrap();
        let stripped = ublksrv_ctrl_dev_info { flags: 0, ..info };
        assert_eq!(given(&stripped, &options).unwrap_err().code, Code::Unsupported);
        assert_eq!(wanted(1 << 40, &options, Kind::default()).unwrap_err().code, Code::Unsupported);
    }

    #[test]
    fn what_is_beside_a_mode_comes_with_the_best_of_the_kernel() {
        use BufferMode::{Auto, Copy, Shared, UserCopy};
        assert_eq!(flags(ALL, &[Shared]), UBLK_F_SHMEM_ZC | ZERO_COPY);
        assert_eq!(flags(ALL, &[Shared, Copy]), UBLK_F_SHMEM_ZC);
        assert_eq!(flags(ALL, &[UserCopy]), UBLK_F_USER_COPY);
        assert_eq!(flags(ALL, &[UserCopy, Auto]), UBLK_F_USER_COPY | ZERO_COPY);
        let lost = ublksrv_ctrl_dev_info { flags: ZERO_COPY, ..Default::default() };
        for buffers in [[Auto, UserCopy], [Auto, Shared]] {
            assert_eq!(given(&lost, &asking(&buffers)).unwrap_err().code, Code::Unsupported);
        }
    }

    #[test]
    fn batches_are_for_plain_devices_unless_told_otherwise() {
        let plain = Kind { plain: true, ..Kind::default() };
        let batches = |options: &DeviceOptions, features, kind| {
            wanted(features, options, kind).unwrap().flags & UBLK_F_BATCH_IO != 0
        };
        let all = ALL | UBLK_F_BATCH_IO | ublk_sys::UBLK_F_USER_RECOVERY | UBLK_F_PER_IO_DAEMON;
        let options = DeviceOptions::default();
        assert!(batches(&options, all, plain));
        assert!(!batches(&options, ALL, plain), "the kernel has none");
        assert!(!batches(&options, all, Kind::default()));
        let copying = asking(&[BufferMode::Copy]);
        assert!(!batches(&copying, all, plain));
        assert!(batches(&copying, all, Kind { asks: true, ..plain }));
        assert!(batches(&copying, all, Kind { remote: true, ..plain }));
        let per_io = Some(ExchangeMode::PerIo);
        for other in [
            asking(&[BufferMode::Register]),
            DeviceOptions { exchange: per_io, ..DeviceOptions::default() },
            DeviceOptions { recovery: Some(Recovery::Queue), ..DeviceOptions::default() },
            DeviceOptions { threads: Some(2), ..DeviceOptions::default() },
            DeviceOptions { depth: 1, ..DeviceOptions::default() },
        ] {
            assert!(!batches(&other, all, plain), "{other:?}");
        }
    }

    #[test]
    fn a_device_that_is_there_says_whether_its_tags_can_be_dealt_out() {
        let options = |threads| DeviceOptions { threads: Some(threads), ..Default::default() };
        let per_io = UBLK_F_PER_IO_DAEMON;
        assert!(check_threads(&options(2), per_io).is_ok());
        let old = check_threads(&options(2), 0).unwrap_err();
        assert_eq!(old.code, Code::Unsupported);
        assert!(old.to_string().contains("PER_IO_DAEMON"), "{old}");
        let apart = DeviceOptions { rings_apart: true, ..Default::default() };
        let off = UBLK_F_BUF_REG_OFF_DAEMON;
        assert!(check_threads(&apart, UBLK_F_SUPPORT_ZERO_COPY | off).is_ok());
        let old = check_threads(&apart, UBLK_F_SUPPORT_ZERO_COPY).unwrap_err();
        assert!(old.to_string().contains("BUF_REG_OFF_DAEMON"), "{old}");
    }
}
