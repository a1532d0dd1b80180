//! The block layer above the driver.

pub(crate) mod layer;
pub(crate) mod protection;
pub(crate) mod queue;
pub(crate) mod sysfs;
pub(crate) mod zones;
