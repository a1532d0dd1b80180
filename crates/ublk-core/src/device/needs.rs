//! What a target needs of the driver beyond what every device has.

use ublk_sys::{
    UBLK_F_AUTO_BUF_REG, UBLK_F_BATCH_IO, UBLK_F_INTEGRITY, UBLK_F_USER_COPY, UBLK_F_ZONED,
    ublksrv_ctrl_dev_info,
};

use super::buffering::{BufferMode, exclusive};
use super::options::{DeviceOptions, Recovery};
use crate::error::{Code, Error, Result};
use crate::reactor::UNPRIVILEGED_LIMIT;
use crate::targets::{Geometry, Target};

/// Adds to what is asked for what zones and metadata need.
///
/// # Errors
/// `InvalidArgument` when the options leave no way to them; `Unsupported` when the kernel has none.
pub(super) fn add(
    mut wanted: ublksrv_ctrl_dev_info,
    features: u64,
    options: &DeviceOptions,
    geometry: &Geometry,
) -> Result<ublksrv_ctrl_dev_info> {
    let zoned = Need {
        what: "a zoned target",
        flag: UBLK_F_ZONED,
        kernel: "Linux 6.6, built with CONFIG_BLK_DEV_ZONED",
        why: "the field that names a buffer says where an append went",
    };
    let integrity = Need {
        what: "a target with integrity",
        flag: UBLK_F_INTEGRITY,
        kernel: "Linux 7.0, built with CONFIG_BLK_DEV_INTEGRITY",
        why: "metadata is reached by user copy alone",
    };
    for (is_there, need) in
        [(geometry.zoned.is_some(), zoned), (geometry.integrity.is_some(), integrity)]
    {
        if is_there {
            wanted.flags |= need.flags(features, options)?;
        }
    }
    if geometry.zoned.is_some() && wanted.flags & UBLK_F_BATCH_IO != 0 {
        avoid_lost_landings(&mut wanted, options)?;
    }
    Ok(wanted)
}

/// A batched commit lets go of an automatically registered buffer first, and with that completes
/// the request: where its append went is stored too late (ublk_drv.c of Linux 7.3,
/// `ublk_batch_commit_io`; seen as a btrfs that goes wrong).
fn avoid_lost_landings(wanted: &mut ublksrv_ctrl_dev_info, options: &DeviceOptions) -> Result<()> {
    if options.base() == Some(BufferMode::Auto) {
        let why = "the driver forgets where an append went";
        return Err(exclusive(
            "a zoned target in exchange 'batch'",
            "buffers 'auto'",
            &format!("{why}; buffers 'register' does as well"),
        ));
    }
    wanted.flags &= !UBLK_F_AUTO_BUF_REG;
    Ok(())
}

/// Whether each queue of a target may have several threads.
pub(super) fn check_threads<T: Target>(
    options: &DeviceOptions,
    target: &T,
    pooled: bool,
) -> Result<()> {
    let handler = target.elsewhere().is_some();
    let zoned = target.geometry().zoned.is_some();
    let one_ring = "each queue of a handler has one ring, from one thread to another";
    let landings = "where an append went would have to follow it from thread to thread";
    let own = "the pool has its own threads";
    let cases = [
        (options.spreads() && handler, "threads", "a handler", one_ring),
        (options.rings_apart && handler, "ringsApart", "a handler", one_ring),
        (options.rings_apart && zoned, "ringsApart", "a zoned target", landings),
        (options.rings_apart && pooled, "ringsApart", "pool", own),
    ];
    match cases.into_iter().find(|(both, ..)| *both) {
        Some((_, one, other, why)) => Err(exclusive(one, other, why)),
        None => Ok(()),
    }
}

/// Whether a device with this base buffer mode and so many reactors can have a target with remotes. A
/// session needs addresses, where the kernel lends pages without an address.
///
/// # Errors
/// `InvalidArgument` when there is a mode without addresses, or several sessions where one server can have
/// only one.
pub(super) fn check_remotes<T: Target>(
    options: &DeviceOptions,
    mode: Option<BufferMode>,
    queues: u16,
    target: &T,
) -> Result<()> {
    let Some(first) = target.remotes().first() else { return Ok(()) };
    if let Some(mode) = mode.filter(|mode| mode.is_zero_copy()) {
        let why = "a connection to a server sends and receives memory with an address";
        return Err(exclusive(&first.name(), &format!("buffers '{mode}'"), why));
    }
    let single = target.remotes().iter().find(|remote| !remote.is_shareable());
    if let Some(single) = single {
        let why = "the server does not promise that a flush on one connection counts for all \
                   (NBD_FLAG_CAN_MULTI_CONN), so all requests must come through one thread";
        let both =
            [(queues > 1, format!("queues {queues}")), (options.spreads(), "threads".into())];
        if let Some((_, what)) = both.iter().find(|(is_there, _)| *is_there) {
            return Err(exclusive(&single.name(), what, why));
        }
    }
    Ok(())
}

/// Whether the requests of an unprivileged device can end before the kernel ends their server.
///
/// # Errors
/// `InvalidArgument` when the target lets them wait for too long by itself, or a handler may; or when
/// their buffers could not be given up.
pub(super) fn check_age<T: Target>(options: &DeviceOptions, target: &T) -> Result<()> {
    if !options.unprivileged {
        return Ok(());
    }
    let most = UNPRIVILEGED_LIMIT.as_secs();
    let hint = format!(
        "the kernel kills the server of an unprivileged device when a request is 30 s old; \
         let no request take {most} s, or serve the device as root"
    );
    let refuse =
        |message: String| Err(Error::new(Code::InvalidArgument, message).hint(hint.clone()));
    if target.longest_wait() >= UNPRIVILEGED_LIMIT {
        let waits = target.longest_wait().as_millis();
        return refuse(format!(
            "the target delays requests by {waits} ms, too long for an unprivileged device"
        ));
    }
    let timeout = target.elsewhere().map(|one| one.bridge().options().timeout);
    if let Some(timeout) = timeout.filter(|&timeout| timeout > UNPRIVILEGED_LIMIT) {
        let timeout = timeout.as_millis();
        return refuse(format!(
            "timeoutMs of the handler is {timeout}, too long for an unprivileged device"
        ));
    }
    match options.base() {
        Some(BufferMode::GetData) => {
            let why =
                "a buffer that is lent to each request cannot be given up with one that is old";
            Err(exclusive("unprivileged", "buffers 'get-data'", why))
        }
        _ => Ok(()),
    }
}

struct Need {
    what: &'static str,
    flag: u64,
    kernel: &'static str,
    /// Why the kernel must not copy.
    why: &'static str,
}

impl Need {
    fn flags(&self, features: u64, options: &DeviceOptions) -> Result<u64> {
        if options.unprivileged {
            let why = "an unprivileged server has neither user copy nor zero copy";
            return Err(exclusive(self.what, "unprivileged", why));
        }
        if self.flag == UBLK_F_ZONED && options.recovery == Some(Recovery::Reissue) {
            let why = "an append that is executed twice lands in two places";
            return Err(exclusive(self.what, "recovery 'reissue'", why));
        }
        if let Some(mode @ (BufferMode::Copy | BufferMode::GetData)) = options.base() {
            return Err(exclusive(self.what, &format!("buffers '{mode}'"), self.why));
        }
        // User copy beside zero copy, too: the driver of Linux 6.12 takes zero copy back.
        let needed = self.flag | UBLK_F_USER_COPY;
        if features & needed != needed {
            let message = format!("this kernel's ublk driver cannot serve {}", self.what);
            let hint = format!("it needs {}", self.kernel);
            return Err(Error::new(Code::Unsupported, message).hint(hint));
        }
        Ok(needed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::ZonedLimits;

    const ALL: u64 = UBLK_F_ZONED | UBLK_F_INTEGRITY | UBLK_F_USER_COPY;

    fn flags(features: u64, buffers: &[BufferMode], geometry: &Geometry) -> Result<u64> {
        let options = DeviceOptions { buffers: buffers.to_vec(), ..Default::default() };
        Ok(add(ublksrv_ctrl_dev_info::default(), features, &options, geometry)?.flags)
    }

    fn zoned() -> Geometry {
        let limits = ZonedLimits { max_open: 0, max_active: 0 };
        Geometry { chunk: 4096, zoned: Some(limits), ..Geometry::new(8192) }
    }

    #[test]
    fn zones_and_metadata_come_with_user_copy() {
        assert_eq!(flags(ALL, &[], &Geometry::new(8192)).unwrap(), 0);
        assert_eq!(flags(ALL, &[], &zoned()).unwrap(), UBLK_F_ZONED | UBLK_F_USER_COPY);
        let integrity = Geometry { integrity: Some(Default::default()), ..Geometry::new(8192) };
        assert_eq!(flags(ALL, &[], &integrity).unwrap(), UBLK_F_INTEGRITY | UBLK_F_USER_COPY);
    }

    #[test]
    fn requests_of_zones_are_never_executed_twice() {
        let options = |recovery| DeviceOptions { recovery: Some(recovery), ..Default::default() };
        let add = |options| add(ublksrv_ctrl_dev_info::default(), ALL, &options, &zoned());
        let error = add(options(Recovery::Reissue)).unwrap_err();
        assert_eq!(error.message, "a zoned target and recovery 'reissue' exclude each other");
        assert!(add(options(Recovery::Queue)).is_ok());
        let unprivileged = DeviceOptions { unprivileged: true, ..Default::default() };
        assert_eq!(add(unprivileged).unwrap_err().code, Code::InvalidArgument);
    }

    #[test]
    fn batches_of_zones_register_by_hand() {
        let asked = UBLK_F_BATCH_IO | UBLK_F_AUTO_BUF_REG;
        let wanted = ublksrv_ctrl_dev_info { flags: asked, ..Default::default() };
        let add = |buffers: &[BufferMode], geometry| {
            let options = DeviceOptions { buffers: buffers.to_vec(), ..Default::default() };
            add(wanted, ALL, &options, &geometry)
        };
        assert_eq!(add(&[], zoned()).unwrap().flags & asked, UBLK_F_BATCH_IO);
        assert_eq!(add(&[], Geometry::new(8192)).unwrap().flags & asked, asked);
        let error = add(&[BufferMode::Auto], zoned()).unwrap_err();
        assert!(error.message.ends_with("'batch' and buffers 'auto' exclude each other"));
    }

    #[test]
    fn a_kernel_or_options_without_a_way_are_named() {
        let lacking = flags(UBLK_F_USER_COPY, &[], &zoned()).unwrap_err();
        assert_eq!(lacking.code, Code::Unsupported);
        for mode in [BufferMode::Copy, BufferMode::GetData] {
            let error = flags(ALL, &[mode], &zoned()).unwrap_err();
            assert_eq!(error.code, Code::InvalidArgument);
            let message = format!("a zoned target and buffers '{mode}' exclude each other");
            assert_eq!(error.message, message);
        }
        assert!(flags(ALL, &[BufferMode::Register], &zoned()).is_ok());
    }
}
