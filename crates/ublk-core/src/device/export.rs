//! Devices whose users are clients of NBD.

use super::{Device, DeviceOptions};
use crate::driver::nbd::{Export, Nbd};
use crate::error::{Code, Error, Result};
use crate::target::{Geometry, Target};

impl Device<Nbd> {
    /// Serves a target to clients of NBD. The address comes first: for an address that cannot be had,
    /// `open` is not called. Blocks.
    ///
    /// # Errors
    /// `InvalidArgument` for fewer requests than connections; `Unsupported` for zones and metadata; the errors of [`Nbd::bind`], of `open`, and of
    /// [`Device::create`].
    pub fn export<T: Target>(
        export: Export,
        open: impl FnOnce() -> Result<T>,
        options: DeviceOptions,
    ) -> Result<Self> {
        options.validate()?;
        if options.depth < export.connections {
            // Each connection has a request at least, whatever the others do.
            let message = format!(
                "depth is {}, less than the {} connections of the export",
                options.depth, export.connections
            );
            return Err(Error::new(Code::InvalidArgument, message)
                .hint("allow fewer connections, or more requests at once"));
        }
        let driver = Nbd::bind(export)?;
        let target = open()?;
        check(target.geometry())?;
        Self::create(&driver, target, options)
    }
}

fn check(geometry: &Geometry) -> Result<()> {
    let lacks = |what: &str| {
        let message = format!("NBD has no {what}: the target cannot be exported");
        Err(Error::new(Code::Unsupported, message).hint("serve the target with `ublk add`"))
    };
    match (geometry.zoned, geometry.integrity) {
        (Some(_), _) => lacks("zones"),
        (_, Some(_)) => lacks("metadata of sectors"),
        _ => Ok(()),
    }
}
