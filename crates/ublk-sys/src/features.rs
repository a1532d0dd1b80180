//! `UBLK_F_*`: what a driver can do ([`UBLK_U_CMD_GET_FEATURES`](crate::UBLK_U_CMD_GET_FEATURES)),
//! and what one device was made with
//! ([`ublksrv_ctrl_dev_info::flags`](crate::ublksrv_ctrl_dev_info::flags)).

/// A feature of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// The kernel's name: `"UBLK_F_ZONED"`.
    pub name: &'static str,
    /// Its bit in the mask of features: `UBLK_F_ZONED`.
    pub flag: u64,
    /// The first mainline release where it works: `"6.6"`. For hints, never for decisions.
    pub since: &'static str,
}

/// Defines the flags, and from the same lines the table of features.
macro_rules! features {
    ($($(#[$meta:meta])* pub const $name:ident: u64 = $value:expr, since $since:literal;)*) => {
        constants! {
            $(
                $(#[$meta])*
                #[doc = concat!("\n\nSince ", $since, ".")]
                pub const $name: u64 = $value;
            )*
        }

        /// Every feature of Linux 7.3, in the order of the bits.
        pub const FEATURES: &[Feature] =
            &[$(Feature { name: stringify!($name), flag: $name, since: $since }),*];
    };
}

features! {
    /// Requests lend their pages to an io_uring as fixed buffers, on
    /// [`UBLK_U_IO_REGISTER_IO_BUF`](crate::UBLK_U_IO_REGISTER_IO_BUF). Not for unprivileged
    /// devices. (Kernels from 6.0 to 6.14 define the bit but cannot do it.)
    pub const UBLK_F_SUPPORT_ZERO_COPY: u64 = 1 << 0, since "6.15";
    /// Commands complete in the task of the server by io_uring's own means. Newer kernels always
    /// do and always set it.
    pub const UBLK_F_URING_CMD_COMP_IN_TASK: u64 = 1 << 1, since "6.0";
    /// A write is announced without its data; the server gives a buffer with
    /// [`UBLK_U_IO_NEED_GET_DATA`](crate::UBLK_U_IO_NEED_GET_DATA). Dropped by the kernel together
    /// with zero copy, user copy or batch.
    pub const UBLK_F_NEED_GET_DATA: u64 = 1 << 2, since "6.0";
    /// The device outlives its server: requests in flight fail, new ones wait for the next server.
    pub const UBLK_F_USER_RECOVERY: u64 = 1 << 3, since "6.1";
    /// With `USER_RECOVERY`: requests in flight are issued again, so a write can happen twice.
    pub const UBLK_F_USER_RECOVERY_REISSUE: u64 = 1 << 4, since "6.1";
    /// Made by, and for, a user who is not root. Root's devices lose the bit. Excludes zero copy
    /// and user copy, and silently drops recovery.
    pub const UBLK_F_UNPRIVILEGED_DEV: u64 = 1 << 5, since "6.3";
    /// The driver understands the ioctl-encoded `UBLK_U_*` commands. Newer kernels always set it.
    pub const UBLK_F_CMD_IOCTL_ENCODE: u64 = 1 << 6, since "6.4";
    /// The server copies data with `pread`/`pwrite` on `/dev/ublkcN`, at
    /// [`user_copy_offset`](crate::user_copy_offset). Not for unprivileged devices.
    pub const UBLK_F_USER_COPY: u64 = 1 << 7, since "6.5";
    /// A zoned device. Needs `USER_COPY` or `SUPPORT_ZERO_COPY`, else `EINVAL`.
    pub const UBLK_F_ZONED: u64 = 1 << 8, since "6.6";
    /// With `USER_RECOVERY`: requests fail while there is no server.
    pub const UBLK_F_USER_RECOVERY_FAIL_IO: u64 = 1 << 9, since "6.13";
    /// [`UBLK_U_CMD_UPDATE_SIZE`](crate::UBLK_U_CMD_UPDATE_SIZE).
    pub const UBLK_F_UPDATE_SIZE: u64 = 1 << 10, since "6.16";
    /// Request buffers are registered before the request is delivered, and unregistered when it is
    /// committed: see [`ublk_auto_buf_reg`](crate::ublk_auto_buf_reg). Not for unprivileged
    /// devices.
    pub const UBLK_F_AUTO_BUF_REG: u64 = 1 << 11, since "6.16";
    /// [`UBLK_U_CMD_QUIESCE_DEV`](crate::UBLK_U_CMD_QUIESCE_DEV). Needs `USER_RECOVERY`, else
    /// `EINVAL`.
    pub const UBLK_F_QUIESCE: u64 = 1 << 12, since "6.16";
    /// Each tag, not only each queue, may be served by a task of its own. Always set, except with
    /// `BATCH_IO`.
    pub const UBLK_F_PER_IO_DAEMON: u64 = 1 << 13, since "6.16";
    /// Buffers may be registered and unregistered by any task; unregistering ignores queue and
    /// tag, so a wrong index unregisters another request's buffer. Always set.
    pub const UBLK_F_BUF_REG_OFF_DAEMON: u64 = 1 << 14, since "6.17";
    /// Requests are fetched and committed in batches: see
    /// [`ublk_batch_io`](crate::ublk_batch_io). Excludes the commands for single tags.
    pub const UBLK_F_BATCH_IO: u64 = 1 << 15, since "7.0";
    /// Requests may carry integrity data. Needs `USER_COPY`, else `EINVAL`; missing in kernels
    /// built without `CONFIG_BLK_DEV_INTEGRITY`.
    pub const UBLK_F_INTEGRITY: u64 = 1 << 16, since "7.0";
    /// [`UBLK_U_CMD_TRY_STOP_DEV`](crate::UBLK_U_CMD_TRY_STOP_DEV). Always set.
    pub const UBLK_F_SAFE_STOP_DEV: u64 = 1 << 17, since "7.0";
    /// Starting the device does not read its partition table.
    pub const UBLK_F_NO_AUTO_PART_SCAN: u64 = 1 << 18, since "7.0";
    /// Requests on memory registered with [`UBLK_U_CMD_REG_BUF`](crate::UBLK_U_CMD_REG_BUF) name
    /// their place in it ([`UBLK_IO_F_SHMEM_ZC`](crate::UBLK_IO_F_SHMEM_ZC)).
    pub const UBLK_F_SHMEM_ZC: u64 = 1 << 19, since "7.1";
    /// The server chooses
    /// [`ublksrv_ctrl_dev_info::io_desc_size`](crate::ublksrv_ctrl_dev_info::io_desc_size).
    pub const UBLK_F_IO_DESC_SIZE: u64 = 1 << 20, since "7.3";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_each_bit_once_and_in_order() {
        assert_eq!(FEATURES.len(), 21);
        for (bit, feature) in FEATURES.iter().enumerate() {
            assert_eq!(feature.flag, 1 << bit, "{}", feature.name);
        }
    }
}
