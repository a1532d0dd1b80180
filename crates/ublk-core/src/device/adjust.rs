//! What of a device can change while clients use the device.

use super::{Device, DeviceInfo, ThrottleLimits, change};
use crate::driver::Driver;
use crate::error::{Code, Error, Result};

impl<D: Driver> Device<D> {
    /// Changes the size of the device (Linux 6.16), in bytes: a multiple of the logical block size,
    /// with room in the target. Returns the changed device.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`](crate::error::Code::InvalidArgument);
    /// [`Code::BadBackend`](crate::error::Code::BadBackend) when the backing store is too small;
    /// [`Code::Unsupported`](crate::error::Code::Unsupported) before Linux 6.16, or when the
    /// target's size is fixed; [`Code::Closed`](crate::error::Code::Closed) when the device has
    /// ended.
    pub fn resize(&self, size: u64) -> Result<DeviceInfo> {
        self.lives()?;
        let shared = &self.shared;
        let limit = shared.options.limit;
        change::resize_with(&shared.control, shared.info.id, size, limit, &shared.size_check.0)
    }

    /// Limits the requests and bytes per second of the device from now on, in place of earlier limits. What
    /// is over a limit waits its turn in the server. Limits end when the device closes or is left to its next
    /// server: nobody waits for a limit then.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`](crate::error::Code::InvalidArgument) for limits that let nothing through;
    /// [`Code::Unsupported`](crate::error::Code::Unsupported) for an unprivileged device, whose server the
    /// kernel kills when a request is 30 s old; [`Code::Closed`](crate::error::Code::Closed) when the device
    /// has ended.
    pub fn throttle(&self, limits: &ThrottleLimits) -> Result<()> {
        limits.validate()?;
        self.lives()?;
        if self.shared.options.unprivileged && !limits.is_none() {
            let message = "an unprivileged device cannot be throttled";
            return Err(Error::new(Code::Unsupported, message)
                .hint("the kernel kills its server when a request is 30 s old"));
        }
        self.shared.throttle.set(limits);
        Ok(())
    }
}
