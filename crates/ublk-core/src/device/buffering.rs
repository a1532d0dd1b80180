//! Buffer modes: their names, and what each needs.

use std::fmt;

use ublk_sys::{
    UBLK_F_AUTO_BUF_REG, UBLK_F_NEED_GET_DATA, UBLK_F_SHMEM_ZC, UBLK_F_SUPPORT_ZERO_COPY,
    UBLK_F_USER_COPY,
};

/// How requests' data reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufferMode {
    /// The kernel registers each request's pages before it hands the request over
    /// (`UBLK_F_AUTO_BUF_REG`, Linux 6.16).
    Auto,
    /// The server registers and unregisters them (`UBLK_F_SUPPORT_ZERO_COPY`, Linux 6.15).
    Register,
    /// The server copies, with reads and writes of `/dev/ublkcN` (`UBLK_F_USER_COPY`, Linux 6.5).
    UserCopy,
    /// The kernel copies between the pages and a buffer that the server chooses when a request is
    /// there (`UBLK_F_NEED_GET_DATA`, Linux 6.0).
    GetData,
    /// The kernel copies between the pages and a buffer that each tag has for good.
    Copy,
    /// Requests on memory that clients have registered with the device name their place in it, and
    /// nothing is copied (`UBLK_F_SHMEM_ZC`, Linux 7.1); others go another way.
    Shared,
}

/// The buffer modes of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffering {
    /// What every request can be served with; never [`BufferMode::Shared`].
    pub mode: BufferMode,
    /// User copy is there beside zero copy: the way of metadata and zone reports.
    pub user_copy: bool,
    /// Clients can register memory.
    pub shared: bool,
}

/// All modes, the best first: zero copy; then the copy that costs least (measured on Linux 6.12,
/// see docs/architecture.md).
pub(super) const MODES: [BufferMode; 6] = [
    BufferMode::Auto,
    BufferMode::Register,
    BufferMode::Copy,
    BufferMode::UserCopy,
    BufferMode::GetData,
    BufferMode::Shared,
];

impl BufferMode {
    /// Its name in options: `"auto"`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Register => "register",
            Self::UserCopy => "user-copy",
            Self::GetData => "get-data",
            Self::Copy => "copy",
            Self::Shared => "shared",
        }
    }

    /// The mode of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        MODES.into_iter().find(|mode| mode.name() == name)
    }

    /// The `UBLK_F_*` that it takes.
    pub(super) fn flags(self) -> u64 {
        match self {
            // A request whose automatic registration fails is registered by hand.
            Self::Auto => UBLK_F_AUTO_BUF_REG | UBLK_F_SUPPORT_ZERO_COPY,
            Self::Register => UBLK_F_SUPPORT_ZERO_COPY,
            Self::UserCopy => UBLK_F_USER_COPY,
            Self::GetData => UBLK_F_NEED_GET_DATA,
            Self::Copy => 0,
            Self::Shared => UBLK_F_SHMEM_ZC,
        }
    }

    /// The first kernel that has it.
    pub(super) fn needs(self) -> &'static str {
        match self {
            Self::Auto => "Linux 6.16",
            Self::Register => "Linux 6.15",
            Self::UserCopy => "Linux 6.5",
            Self::GetData | Self::Copy => "Linux 6.0",
            Self::Shared => "Linux 7.1",
        }
    }

    /// Whether requests' pages are lent to the ring.
    pub(super) fn is_zero_copy(self) -> bool {
        matches!(self, Self::Auto | Self::Register)
    }
}

impl fmt::Display for BufferMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Buffering {
    /// The `UBLK_F_*` that it takes.
    pub(super) fn flags(self) -> u64 {
        let user_copy = if self.user_copy { UBLK_F_USER_COPY } else { 0 };
        let shared = if self.shared { UBLK_F_SHMEM_ZC } else { 0 };
        self.mode.flags() | user_copy | shared
    }

    /// What a device with these `UBLK_F_*` does.
    pub(super) fn in_force(flags: u64) -> Self {
        use BufferMode::{Auto, Copy, GetData, Register, UserCopy};
        let mode = [Auto, Register, UserCopy, GetData]
            .into_iter()
            .find(|mode| flags & mode.flags() == mode.flags())
            .unwrap_or(Copy);
        Self {
            mode,
            user_copy: mode.is_zero_copy() && flags & UBLK_F_USER_COPY != 0,
            shared: flags & UBLK_F_SHMEM_ZC != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_has_a_name_of_its_own() {
        for mode in MODES {
            assert_eq!(BufferMode::from_name(mode.name()), Some(mode));
        }
        assert_eq!(BufferMode::from_name("best"), None);
    }

    #[test]
    fn what_is_in_force_is_what_the_flags_say() {
        let all = Buffering { mode: BufferMode::Auto, user_copy: true, shared: true };
        assert_eq!(Buffering::in_force(all.flags()), all);
        for mode in MODES.into_iter().filter(|&mode| mode != BufferMode::Shared) {
            let plain = Buffering { mode, user_copy: false, shared: false };
            assert_eq!(Buffering::in_force(plain.flags()), plain);
        }
    }
}
