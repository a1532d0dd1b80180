//! What a target needs of the driver beyond what every device has.

use ublk_sys::{
    UBLK_F_AUTO_BUF_REG, UBLK_F_BATCH_IO, UBLK_F_INTEGRITY, UBLK_F_USER_COPY, UBLK_F_ZONED,
    ublksrv_ctrl_dev_info,
};

use super::options::DeviceOptions;
use crate::error::{Code, Error, Result};
use crate::reactor::UNPRIVILEGED_LIMIT;
use crate::targets::{Geometry, Target};

/// Adds to what is asked for what zones and metadata need.
///
/// # Errors
/// `Unsupported` when the kernel has no way to them.
pub(super) fn add(
    mut wanted: ublksrv_ctrl_dev_info,
    features: u64,
    geometry: &Geometry,
) -> Result<ublksrv_ctrl_dev_info> {
    let zoned = Need {
        what: "a zoned target",
        flag: UBLK_F_ZONED,
        kernel: "Linux 6.6, built with CONFIG_BLK_DEV_ZONED",
    };
    let integrity = Need {
        what: "a target with integrity",
        flag: UBLK_F_INTEGRITY,
        kernel: "Linux 7.0, built with CONFIG_BLK_DEV_INTEGRITY",
    };
    for (is_there, need) in
        [(geometry.zoned.is_some(), zoned), (geometry.integrity.is_some(), integrity)]
    {
        if is_there {
            wanted.flags |= need.flags(features)?;
        }
    }
    if geometry.zoned.is_some() && wanted.flags & UBLK_F_BATCH_IO != 0 {
        avoid_lost_landings(&mut wanted);
    }
    Ok(wanted)
}

/// A batched commit lets go of an automatically registered buffer first, and with that completes
/// the request: where its append went is stored too late (ublk_drv.c of Linux 7.3,
/// `ublk_batch_commit_io`; seen as a btrfs that goes wrong).
fn avoid_lost_landings(wanted: &mut ublksrv_ctrl_dev_info) {
    wanted.flags &= !UBLK_F_AUTO_BUF_REG;
}

/// Whether the requests of an unprivileged device can end before the kernel ends their server.
///
/// # Errors
/// `InvalidArgument` when the target lets them wait for too long by itself, or a handler may.
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
    Ok(())
}

struct Need {
    what: &'static str,
    flag: u64,
    kernel: &'static str,
}

impl Need {
    fn flags(&self, features: u64) -> Result<u64> {
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

    fn flags(features: u64, geometry: &Geometry) -> Result<u64> {
        Ok(add(ublksrv_ctrl_dev_info::default(), features, geometry)?.flags)
    }

    fn zoned() -> Geometry {
        let limits = ZonedLimits { max_open: 0, max_active: 0 };
        Geometry { chunk: 4096, zoned: Some(limits), ..Geometry::new(8192) }
    }

    #[test]
    fn zones_and_metadata_come_with_user_copy() {
        assert_eq!(flags(ALL, &Geometry::new(8192)).unwrap(), 0);
        assert_eq!(flags(ALL, &zoned()).unwrap(), UBLK_F_ZONED | UBLK_F_USER_COPY);
        let integrity = Geometry { integrity: Some(Default::default()), ..Geometry::new(8192) };
        assert_eq!(flags(ALL, &integrity).unwrap(), UBLK_F_INTEGRITY | UBLK_F_USER_COPY);
    }

    #[test]
    fn batches_of_zones_register_by_hand() {
        let asked = UBLK_F_BATCH_IO | UBLK_F_AUTO_BUF_REG;
        let wanted = ublksrv_ctrl_dev_info { flags: asked, ..Default::default() };
        assert_eq!(add(wanted, ALL, &zoned()).unwrap().flags & asked, UBLK_F_BATCH_IO);
        assert_eq!(add(wanted, ALL, &Geometry::new(8192)).unwrap().flags & asked, asked);
    }

    #[test]
    fn a_kernel_without_a_way_is_named() {
        let lacking = flags(UBLK_F_USER_COPY, &zoned()).unwrap_err();
        assert_eq!(lacking.code, Code::Unsupported);
    }
}
