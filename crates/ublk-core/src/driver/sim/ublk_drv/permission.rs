//! Permissions of users, and encodings of commands: ublk_ctrl_uring_cmd_permission, and the numbers of
//! commands from before ioctl encoding.

use ublk_sys::{
    UBLK_F_AUTO_BUF_REG, UBLK_F_CMD_IOCTL_ENCODE, UBLK_F_SUPPORT_ZERO_COPY,
    UBLK_F_UNPRIVILEGED_DEV, UBLK_F_USER_COPY, UBLK_F_USER_RECOVERY, UBLK_F_USER_RECOVERY_REISSUE,
    UBLK_U_CMD_ADD_DEV, UBLK_U_CMD_DEL_DEV, UBLK_U_CMD_DEL_DEV_ASYNC, UBLK_U_CMD_END_USER_RECOVERY,
    UBLK_U_CMD_GET_DEV_INFO, UBLK_U_CMD_GET_DEV_INFO2, UBLK_U_CMD_GET_PARAMS,
    UBLK_U_CMD_GET_QUEUE_AFFINITY, UBLK_U_CMD_SET_PARAMS, UBLK_U_CMD_START_DEV,
    UBLK_U_CMD_START_USER_RECOVERY, UBLK_U_CMD_STOP_DEV, ublksrv_ctrl_cmd, ublksrv_ctrl_dev_info,
};

use crate::driver::sim::model::Model;

/// The commands with a number from before the ioctl encoding.
const OLD: [u32; 11] = [
    UBLK_U_CMD_GET_QUEUE_AFFINITY,
    UBLK_U_CMD_GET_DEV_INFO,
    UBLK_U_CMD_ADD_DEV,
    UBLK_U_CMD_DEL_DEV,
    UBLK_U_CMD_START_DEV,
    UBLK_U_CMD_STOP_DEV,
    UBLK_U_CMD_SET_PARAMS,
    UBLK_U_CMD_GET_PARAMS,
    UBLK_U_CMD_START_USER_RECOVERY,
    UBLK_U_CMD_END_USER_RECOVERY,
    UBLK_U_CMD_GET_DEV_INFO2,
];

impl Model {
    /// The command of a number. The model refuses bare numbers, like a kernel without
    /// `CONFIG_BLKDEV_UBLK_LEGACY_OPCODES`.
    pub(crate) fn decode(&self, operation: u32) -> Result<u32, i32> {
        let encoded = operation > 0xff;
        if encoded != (self.config.kernel.features & UBLK_F_CMD_IOCTL_ENCODE != 0) {
            return Err(libc::EOPNOTSUPP);
        }
        if encoded {
            return Ok(operation);
        }
        OLD.into_iter().find(|old| old & 0xff == operation).ok_or(libc::EOPNOTSUPP)
    }

    /// The flags after ublk_ctrl_add_dev, for a user.
    pub(crate) fn check_privilege(&self, info: &mut ublksrv_ctrl_dev_info) -> Result<(), i32> {
        if self.config.kernel.root {
            info.flags &= !UBLK_F_UNPRIVILEGED_DEV;
            return Ok(());
        }
        if info.flags & UBLK_F_UNPRIVILEGED_DEV == 0 {
            return Err(libc::EPERM);
        }
        info.flags &= !(UBLK_F_USER_RECOVERY | UBLK_F_USER_RECOVERY_REISSUE);
        let lends = UBLK_F_USER_COPY | UBLK_F_SUPPORT_ZERO_COPY | UBLK_F_AUTO_BUF_REG;
        if info.flags & lends != 0 { Err(libc::EINVAL) } else { Ok(()) }
    }

    /// Whether the user may send the command, and the length of the device's path at the start of the buffer.
    pub(crate) fn check_permission(
        &self,
        device: usize,
        operation: u32,
        command: &ublksrv_ctrl_cmd,
        buffer: &[u8],
    ) -> Result<usize, i32> {
        let found = &self.devices[device];
        if !found.is_unprivileged() {
            if !self.config.kernel.root {
                return Err(libc::EPERM);
            }
            if operation != UBLK_U_CMD_GET_DEV_INFO2 {
                return Ok(0);
            }
        }
        let length = usize::from(command.dev_path_len);
        if length == 0 || length > buffer.len() || operation == UBLK_U_CMD_DEL_DEV_ASYNC {
            return Err(libc::EINVAL);
        }
        let path = format!("/dev/ublkc{}\0", found.info.dev_id);
        if buffer[..length] == *path.as_bytes() { Ok(length) } else { Err(libc::EPERM) }
    }
}
