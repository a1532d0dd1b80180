//! Control commands: `/dev/ublk-control`, `IORING_OP_URING_CMD` on a ring with 128-byte SQEs,
//! [`ublksrv_ctrl_cmd`] at the start of the 80 bytes of `sqe->cmd`.
//!
//! Use the `UBLK_U_CMD_*` numbers (since 6.4, see [`UBLK_F_CMD_IOCTL_ENCODE`]); the bare
//! `UBLK_CMD_*` are refused with `EOPNOTSUPP` where the kernel was built without
//! `CONFIG_BLKDEV_UBLK_LEGACY_OPCODES`.
//!
//! [`UBLK_F_CMD_IOCTL_ENCODE`]: crate::UBLK_F_CMD_IOCTL_ENCODE

use crate::ioctl::{ior, iowr};

const fn read(number: u8) -> u32 {
    ior::<ublksrv_ctrl_cmd>(b'u', number)
}

const fn write(number: u8) -> u32 {
    iowr::<ublksrv_ctrl_cmd>(b'u', number)
}

constants! {
    /// Legacy number of [`UBLK_U_CMD_GET_QUEUE_AFFINITY`]. Since 6.0.
    pub const UBLK_CMD_GET_QUEUE_AFFINITY: u8 = 0x01;
    /// Legacy number of [`UBLK_U_CMD_GET_DEV_INFO`]. Since 6.0.
    pub const UBLK_CMD_GET_DEV_INFO: u8 = 0x02;
    /// Legacy number of [`UBLK_U_CMD_ADD_DEV`]. Since 6.0.
    pub const UBLK_CMD_ADD_DEV: u8 = 0x04;
    /// Legacy number of [`UBLK_U_CMD_DEL_DEV`]. Since 6.0.
    pub const UBLK_CMD_DEL_DEV: u8 = 0x05;
    /// Legacy number of [`UBLK_U_CMD_START_DEV`]. Since 6.0.
    pub const UBLK_CMD_START_DEV: u8 = 0x06;
    /// Legacy number of [`UBLK_U_CMD_STOP_DEV`]. Since 6.0.
    pub const UBLK_CMD_STOP_DEV: u8 = 0x07;
    /// Legacy number of [`UBLK_U_CMD_SET_PARAMS`]. Since 6.0.
    pub const UBLK_CMD_SET_PARAMS: u8 = 0x08;
    /// Legacy number of [`UBLK_U_CMD_GET_PARAMS`]. Since 6.0.
    pub const UBLK_CMD_GET_PARAMS: u8 = 0x09;
    /// Legacy number of [`UBLK_U_CMD_START_USER_RECOVERY`]. Since 6.1.
    pub const UBLK_CMD_START_USER_RECOVERY: u8 = 0x10;
    /// Legacy number of [`UBLK_U_CMD_END_USER_RECOVERY`]. Since 6.1.
    pub const UBLK_CMD_END_USER_RECOVERY: u8 = 0x11;
    /// Legacy number of [`UBLK_U_CMD_GET_DEV_INFO2`]. Since 6.3.
    pub const UBLK_CMD_GET_DEV_INFO2: u8 = 0x12;

    /// Which CPUs feed queue `data[0]`, as a bit mask of `unsigned long`s in the buffer
    /// `addr`/`len`. `len` must be a multiple of 8 (4 on 32-bit machines) and have a bit for each
    /// possible CPU, else `EINVAL`.
    pub const UBLK_U_CMD_GET_QUEUE_AFFINITY: u32 = read(UBLK_CMD_GET_QUEUE_AFFINITY);
    /// Fills the buffer with a [`ublksrv_ctrl_dev_info`]; `ENODEV` without such a device.
    pub const UBLK_U_CMD_GET_DEV_INFO: u32 = read(UBLK_CMD_GET_DEV_INFO);
    /// Creates `/dev/ublkcN` from the [`ublksrv_ctrl_dev_info`] in the buffer and writes back what
    /// became of it: id, queues, depth, buffer size and flags can all differ from what was asked.
    ///
    /// `dev_id` of the command and of the info must be equal; `u32::MAX` lets the kernel choose.
    /// `EEXIST`: the id is in use. `EACCES`: the module's limit `ublks_max` is reached (since 6.15 it
    /// counts unprivileged devices only). `EPERM`: not root, and not asking for an unprivileged
    /// device. `EINVAL`: depth or queues out of range, or flags that exclude one another.
    pub const UBLK_U_CMD_ADD_DEV: u32 = write(UBLK_CMD_ADD_DEV);
    /// Removes the device and waits until nobody holds it: open files, mappings of the
    /// descriptors, rings that have it registered.
    pub const UBLK_U_CMD_DEL_DEV: u32 = write(UBLK_CMD_DEL_DEV);
    /// Creates `/dev/ublkbN`; `data[0]` is the server's process id (thread group). Waits, without
    /// a limit, until every tag of every queue has been fetched.
    pub const UBLK_U_CMD_START_DEV: u32 = write(UBLK_CMD_START_DEV);
    /// Removes `/dev/ublkbN`: waits for I/O in flight, then aborts the fetches with
    /// [`UBLK_IO_RES_ABORT`](crate::UBLK_IO_RES_ABORT). The server must serve until it returns.
    pub const UBLK_U_CMD_STOP_DEV: u32 = write(UBLK_CMD_STOP_DEV);
    /// Sets the [`ublk_params`](crate::ublk_params) in the buffer; before START_DEV only, later
    /// `EACCES`.
    pub const UBLK_U_CMD_SET_PARAMS: u32 = write(UBLK_CMD_SET_PARAMS);
    /// Reads the [`ublk_params`](crate::ublk_params); their `len` must be set before.
    pub const UBLK_U_CMD_GET_PARAMS: u32 = read(UBLK_CMD_GET_PARAMS);
    /// Prepares a device whose server is gone for a new one. `EBUSY` until the old server's files
    /// are really released and the device is quiesced. Since 6.1.
    pub const UBLK_U_CMD_START_USER_RECOVERY: u32 = write(UBLK_CMD_START_USER_RECOVERY);
    /// Puts a device in recovery back to work; `data[0]` is the new server's process id. Waits as
    /// START_DEV does. Since 6.1.
    pub const UBLK_U_CMD_END_USER_RECOVERY: u32 = write(UBLK_CMD_END_USER_RECOVERY);
    /// GET_DEV_INFO with the permission check of unprivileged devices: the buffer begins with the
    /// path of `/dev/ublkcN`, `dev_path_len` bytes with the final NUL. Since 6.3.
    pub const UBLK_U_CMD_GET_DEV_INFO2: u32 = read(UBLK_CMD_GET_DEV_INFO2);
    /// Writes the driver's `UBLK_F_*` bits into a buffer of exactly [`UBLK_FEATURES_LEN`] bytes.
    /// Needs no device. Since 6.5.
    pub const UBLK_U_CMD_GET_FEATURES: u32 = read(0x13);
    /// DEL_DEV that does not wait for the last user. Refused with `EINVAL` for unprivileged
    /// devices. Since 6.7.
    pub const UBLK_U_CMD_DEL_DEV_ASYNC: u32 = read(0x14);
    /// Sets the capacity of a live device to `data[0]` sectors. The kernel validates nothing.
    /// Since 6.16, with [`UBLK_F_UPDATE_SIZE`](crate::UBLK_F_UPDATE_SIZE).
    pub const UBLK_U_CMD_UPDATE_SIZE: u32 = write(0x15);
    /// Quiesces a device so that its server can be replaced; `data[0]` is a time limit in
    /// milliseconds (0: none; truncated to 32 bits). `EBUSY` when the server kept all tags until
    /// then, which leaves the device cancelling. Since 6.16, with
    /// [`UBLK_F_QUIESCE`](crate::UBLK_F_QUIESCE).
    pub const UBLK_U_CMD_QUIESCE_DEV: u32 = write(0x16);
    /// STOP_DEV that answers `EBUSY` while somebody has `/dev/ublkbN` open. Since 7.0, with
    /// [`UBLK_F_SAFE_STOP_DEV`](crate::UBLK_F_SAFE_STOP_DEV).
    pub const UBLK_U_CMD_TRY_STOP_DEV: u32 = write(0x17);
    /// Registers the shared memory described by the
    /// [`ublk_shmem_buf_reg`](crate::ublk_shmem_buf_reg) in the buffer and answers its index. Pins
    /// the pages and freezes the queues: never from a thread that serves I/O. Since 7.1, with
    /// [`UBLK_F_SHMEM_ZC`](crate::UBLK_F_SHMEM_ZC), else `EOPNOTSUPP`.
    pub const UBLK_U_CMD_REG_BUF: u32 = write(0x18);
    /// Unregisters the shared memory with the index `data[0]`. Since 7.1.
    pub const UBLK_U_CMD_UNREG_BUF: u32 = write(0x19);

    /// The exact buffer length, in bytes, of [`UBLK_U_CMD_GET_FEATURES`].
    pub const UBLK_FEATURES_LEN: u16 = 8;

    /// [`ublksrv_ctrl_dev_info::state`]: added, or stopped; no `/dev/ublkbN`.
    pub const UBLK_S_DEV_DEAD: u16 = 0;
    /// [`ublksrv_ctrl_dev_info::state`]: started and served.
    pub const UBLK_S_DEV_LIVE: u16 = 1;
    /// [`ublksrv_ctrl_dev_info::state`]: the server is gone; I/O waits for the next one. Since 6.1.
    pub const UBLK_S_DEV_QUIESCED: u16 = 2;
    /// [`ublksrv_ctrl_dev_info::state`]: the server is gone; I/O fails until the next one comes.
    /// Since 6.13.
    pub const UBLK_S_DEV_FAIL_IO: u16 = 3;
}

/// The argument of every control command, at the start of `sqe->cmd`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub struct ublksrv_ctrl_cmd {
    /// Which device: the N of `/dev/ublkcN`.
    pub dev_id: u32,
    /// Always `u16::MAX`: no command is for one queue (GET_QUEUE_AFFINITY names its queue in
    /// `data`).
    pub queue_id: u16,
    /// Length of the buffer at `addr` in bytes.
    pub len: u16,
    /// Address of a buffer that the command reads or fills; 0 if it has none. For unprivileged
    /// devices the buffer starts with the path of `/dev/ublkcN`.
    pub addr: u64,
    /// An argument that needs no buffer: see the command.
    pub data: [u64; 1],
    /// Length of the path at the start of the buffer, its NUL included; 0 without one. Since 6.3.
    pub dev_path_len: u16,
    /// Zero.
    pub pad: u16,
    /// Zero.
    pub reserved: u32,
}

layout!(ublksrv_ctrl_cmd, size 32, padding 0, {
    dev_id: 0, queue_id: 4, len: 6, addr: 8, data: 16, dev_path_len: 24, pad: 26, reserved: 28,
});
to_bytes!(ublksrv_ctrl_cmd);

impl ublksrv_ctrl_cmd {
    /// The command as the 80 bytes of `sqe->cmd` of a 128-byte SQE; what follows it is zero.
    #[inline]
    pub fn to_sqe_cmd(self) -> [u8; 80] {
        let mut cmd = [0; 80];
        cmd[..size_of::<Self>()].copy_from_slice(&self.to_bytes());
        cmd
    }
}

/// A device, as asked for with ADD_DEV and as told by GET_DEV_INFO.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub struct ublksrv_ctrl_dev_info {
    /// Number of queues, 1 to [`UBLK_MAX_NR_QUEUES`](crate::UBLK_MAX_NR_QUEUES); the kernel lowers
    /// it to the number of CPUs.
    pub nr_hw_queues: u16,
    /// Tags of each queue, 1 to [`UBLK_MAX_QUEUE_DEPTH`](crate::UBLK_MAX_QUEUE_DEPTH).
    pub queue_depth: u16,
    /// One of `UBLK_S_DEV_*`; told, not asked.
    pub state: u16,
    /// Bytes from one [`ublksrv_io_desc`](crate::ublksrv_io_desc) to the next: asked with
    /// [`UBLK_F_IO_DESC_SIZE`](crate::UBLK_F_IO_DESC_SIZE) (24 to 256, a multiple of 8), else told.
    /// Since 7.3; older kernels leave 0, which means 24.
    pub io_desc_size: u16,
    /// Longest request in bytes; rounded down to whole pages by the kernel.
    pub max_io_buf_bytes: u32,
    /// The N of `/dev/ublkcN`; `u32::MAX` in ADD_DEV lets the kernel choose.
    pub dev_id: u32,
    /// The server's process id; -1 before START_DEV.
    pub ublksrv_pid: i32,
    /// Zero.
    pub pad1: u32,
    /// `UBLK_F_*`. The kernel drops bits that it does not know or that do not go together.
    pub flags: u64,
    /// The server's own; the driver keeps it and does not look at it.
    pub ublksrv_flags: u64,
    /// Owner of the device; told, not asked. Since 6.3.
    pub owner_uid: u32,
    /// Group of the owner; told, not asked. Since 6.3.
    pub owner_gid: u32,
    /// Zero.
    pub reserved1: u64,
    /// Zero.
    pub reserved2: u64,
}

layout!(ublksrv_ctrl_dev_info, size 64, padding 0, {
    nr_hw_queues: 0, queue_depth: 2, state: 4, io_desc_size: 6, max_io_buf_bytes: 8, dev_id: 12,
    ublksrv_pid: 16, pad1: 20, flags: 24, ublksrv_flags: 32, owner_uid: 40, owner_gid: 44,
    reserved1: 48, reserved2: 56,
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_command_fills_the_start_of_the_sqe_and_leaves_zeros() {
        let cmd = ublksrv_ctrl_cmd { dev_id: 0x0403_0201, data: [7], ..Default::default() };
        let bytes = cmd.to_sqe_cmd();
        assert_eq!(bytes[..4], 0x0403_0201_u32.to_ne_bytes());
        assert_eq!(bytes[16..24], 7_u64.to_ne_bytes());
        assert!(bytes[24..].iter().all(|&byte| byte == 0));
    }
}
