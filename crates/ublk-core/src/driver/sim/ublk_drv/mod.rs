//! The driver: drivers/block/ublk_drv.c.

pub(crate) mod batch;
pub(crate) mod call;
pub(crate) mod chan;
pub(crate) mod control;
pub(crate) mod device;
pub(crate) mod dispatch;
pub(crate) mod events;
pub(crate) mod params;
pub(crate) mod permission;
pub(crate) mod recovery;
pub(crate) mod shared;
pub(crate) mod start;
pub(crate) mod teardown;
pub(crate) mod user_copy;
