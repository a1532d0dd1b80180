//! The features of a device besides buffers and exchange: asked for, and what was given.

use ublk_sys::{
    FEATURES, UBLK_F_BUF_REG_OFF_DAEMON, UBLK_F_CMD_IOCTL_ENCODE, UBLK_F_IO_DESC_SIZE,
    UBLK_F_NO_AUTO_PART_SCAN, UBLK_F_PER_IO_DAEMON, UBLK_F_QUIESCE, UBLK_F_UNPRIVILEGED_DEV,
    UBLK_F_UPDATE_SIZE, UBLK_F_USER_RECOVERY, UBLK_F_USER_RECOVERY_FAIL_IO,
    UBLK_F_USER_RECOVERY_REISSUE,
};

use super::options::{DeviceOptions, Recovery};
use crate::error::{Code, Error, Result};

impl Recovery {
    fn flags(self) -> u64 {
        UBLK_F_USER_RECOVERY
            | match self {
                Self::Queue => 0,
                Self::Reissue => UBLK_F_USER_RECOVERY_REISSUE,
                Self::Fail => UBLK_F_USER_RECOVERY_FAIL_IO,
            }
    }

    /// What the flags of a device say.
    pub(super) fn of(flags: u64) -> Option<Self> {
        let has = |flag: u64| flags & flag != 0;
        match () {
            () if !has(UBLK_F_USER_RECOVERY) => None,
            () if has(UBLK_F_USER_RECOVERY_REISSUE) => Some(Self::Reissue),
            () if has(UBLK_F_USER_RECOVERY_FAIL_IO) => Some(Self::Fail),
            () => Some(Self::Queue),
        }
    }
}

/// Whether a device with these flags can be given another server.
pub(super) fn recovers(flags: u64) -> bool {
    Recovery::of(flags).is_some()
}

/// What was asked for by an option.
fn asked(options: &DeviceOptions) -> u64 {
    let flag = |on: bool, flag: u64| if on { flag } else { 0 };
    options.recovery.map_or(0, Recovery::flags)
        | flag(!options.part_scan, UBLK_F_NO_AUTO_PART_SCAN)
        | flag(options.unprivileged, UBLK_F_UNPRIVILEGED_DEV)
        | flag(options.io_desc_size.is_some(), UBLK_F_IO_DESC_SIZE)
        | flag(options.spreads(), UBLK_F_PER_IO_DAEMON)
        | flag(options.rings_apart, UBLK_F_BUF_REG_OFF_DAEMON)
}

/// The flags to add a device with; `features` are 0 where the kernel cannot be asked.
pub(super) fn wanted(features: u64, options: &DeviceOptions) -> Result<u64> {
    let asked = asked(options);
    if features != 0 {
        check(features, asked)?;
    }
    // They cost nothing, and cannot be had later.
    let quiesce = if options.recovery.is_some() { UBLK_F_QUIESCE } else { 0 };
    let free = (quiesce | UBLK_F_UPDATE_SIZE) & features;
    Ok(asked | free | UBLK_F_CMD_IOCTL_ENCODE)
}

/// Checks the flags of the device that was added.
pub(super) fn given(flags: u64, options: &DeviceOptions) -> Result<()> {
    if options.unprivileged && flags & UBLK_F_UNPRIVILEGED_DEV == 0 {
        let message = "unprivileged devices are for users who are not root, and this user is";
        return Err(Error::new(Code::InvalidArgument, message).hint("leave the option out"));
    }
    check(flags, asked(options))
}

pub(super) fn check(flags: u64, asked: u64) -> Result<()> {
    let missing = FEATURES.iter().find(|feature| asked & !flags & feature.flag != 0);
    let Some(feature) = missing else { return Ok(()) };
    let name = feature.name.trim_start_matches("UBLK_F_");
    let message = format!("this kernel's ublk driver lacks {name}");
    let hint = format!("it needs Linux {}; `ublk features` shows what there is", feature.since);
    Err(Error::new(Code::Unsupported, message).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_kinds_of_recovery_are_told_apart_by_their_flags() {
        for kind in [Recovery::Queue, Recovery::Reissue, Recovery::Fail] {
            assert_eq!(Recovery::of(kind.flags()), Some(kind));
        }
        assert_eq!(Recovery::of(!UBLK_F_USER_RECOVERY), None);
    }

    #[test]
    fn what_the_kernel_lacks_is_refused_by_its_name_and_what_it_takes_back_too() {
        let recovery = Some(Recovery::Fail);
        let options = DeviceOptions { recovery, ..DeviceOptions::default() };
        let error = wanted(UBLK_F_USER_RECOVERY, &options).unwrap_err();
        assert_eq!(error.code, Code::Unsupported);
        assert!(error.to_string().contains("USER_RECOVERY_FAIL_IO"), "{error}");
        assert!(error.to_string().contains("6.13"), "{error}");
        assert_eq!(given(UBLK_F_USER_RECOVERY, &options).unwrap_err().code, Code::Unsupported);
        let all = UBLK_F_USER_RECOVERY | UBLK_F_USER_RECOVERY_FAIL_IO;
        given(all, &options).unwrap();
    }

    #[test]
    fn what_costs_nothing_is_asked_for_where_the_kernel_has_it() {
        let options = DeviceOptions { recovery: Some(Recovery::Queue), ..Default::default() };
        let features = UBLK_F_USER_RECOVERY | UBLK_F_QUIESCE | UBLK_F_UPDATE_SIZE;
        assert_eq!(wanted(features, &options).unwrap() & features, features);
        let none = DeviceOptions::default();
        assert_eq!(wanted(features, &none).unwrap() & features, UBLK_F_UPDATE_SIZE);
        // A kernel that cannot be asked decides by itself.
        assert_eq!(wanted(0, &options).unwrap() & features, UBLK_F_USER_RECOVERY);
    }

    #[test]
    fn roots_unprivileged_device_is_no_such() {
        let options = DeviceOptions { unprivileged: true, ..Default::default() };
        assert_eq!(given(0, &options).unwrap_err().code, Code::InvalidArgument);
    }
}
