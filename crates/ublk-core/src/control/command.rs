//! The commands, by number.

use ublk_sys::{
    UBLK_CMD_ADD_DEV, UBLK_CMD_DEL_DEV, UBLK_CMD_END_USER_RECOVERY, UBLK_CMD_GET_DEV_INFO,
    UBLK_CMD_GET_DEV_INFO2, UBLK_CMD_GET_PARAMS, UBLK_CMD_GET_QUEUE_AFFINITY, UBLK_CMD_SET_PARAMS,
    UBLK_CMD_START_DEV, UBLK_CMD_START_USER_RECOVERY, UBLK_CMD_STOP_DEV, UBLK_U_CMD_ADD_DEV,
    UBLK_U_CMD_DEL_DEV, UBLK_U_CMD_DEL_DEV_ASYNC, UBLK_U_CMD_END_USER_RECOVERY,
    UBLK_U_CMD_GET_DEV_INFO, UBLK_U_CMD_GET_DEV_INFO2, UBLK_U_CMD_GET_FEATURES,
    UBLK_U_CMD_GET_PARAMS, UBLK_U_CMD_GET_QUEUE_AFFINITY, UBLK_U_CMD_QUIESCE_DEV,
    UBLK_U_CMD_REG_BUF, UBLK_U_CMD_SET_PARAMS, UBLK_U_CMD_START_DEV,
    UBLK_U_CMD_START_USER_RECOVERY, UBLK_U_CMD_STOP_DEV, UBLK_U_CMD_TRY_STOP_DEV,
    UBLK_U_CMD_UNREG_BUF, UBLK_U_CMD_UPDATE_SIZE,
};

/// A command: its number, its bare number from before ioctl encoding (Linux 6.4) if it is as old
/// as that, and its name in errors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Command {
    pub(super) operation: u32,
    pub(super) legacy: Option<u8>,
    pub(super) name: &'static str,
}

impl Command {
    const fn new(name: &'static str, operation: u32, legacy: Option<u8>) -> Self {
        Self { operation, legacy, name }
    }
}

macro_rules! commands {
    ($($name:ident = $operation:ident $(or $legacy:ident)?;)*) => {
        $(pub(super) const $name: Command =
            Command::new(stringify!($name), $operation, commands!(@ $($legacy)?));)*
    };
    (@) => { None };
    (@ $legacy:ident) => { Some($legacy) };
}

commands! {
    ADD_DEV = UBLK_U_CMD_ADD_DEV or UBLK_CMD_ADD_DEV;
    DEL_DEV = UBLK_U_CMD_DEL_DEV or UBLK_CMD_DEL_DEV;
    DEL_DEV_ASYNC = UBLK_U_CMD_DEL_DEV_ASYNC;
    GET_DEV_INFO = UBLK_U_CMD_GET_DEV_INFO or UBLK_CMD_GET_DEV_INFO;
    GET_DEV_INFO2 = UBLK_U_CMD_GET_DEV_INFO2 or UBLK_CMD_GET_DEV_INFO2;
    GET_FEATURES = UBLK_U_CMD_GET_FEATURES;
    GET_PARAMS = UBLK_U_CMD_GET_PARAMS or UBLK_CMD_GET_PARAMS;
    SET_PARAMS = UBLK_U_CMD_SET_PARAMS or UBLK_CMD_SET_PARAMS;
    GET_QUEUE_AFFINITY = UBLK_U_CMD_GET_QUEUE_AFFINITY or UBLK_CMD_GET_QUEUE_AFFINITY;
    START_DEV = UBLK_U_CMD_START_DEV or UBLK_CMD_START_DEV;
    STOP_DEV = UBLK_U_CMD_STOP_DEV or UBLK_CMD_STOP_DEV;
    TRY_STOP_DEV = UBLK_U_CMD_TRY_STOP_DEV;
    START_USER_RECOVERY = UBLK_U_CMD_START_USER_RECOVERY or UBLK_CMD_START_USER_RECOVERY;
    END_USER_RECOVERY = UBLK_U_CMD_END_USER_RECOVERY or UBLK_CMD_END_USER_RECOVERY;
    QUIESCE_DEV = UBLK_U_CMD_QUIESCE_DEV;
    UPDATE_SIZE = UBLK_U_CMD_UPDATE_SIZE;
    REG_BUF = UBLK_U_CMD_REG_BUF;
    UNREG_BUF = UBLK_U_CMD_UNREG_BUF;
}
