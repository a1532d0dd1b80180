//! Devices whose users are clients of NBD.

use super::{Device, DeviceOptions};
use crate::driver::linux::Linux;
use crate::driver::nbd::{Export, Nbd};
use crate::driver::{Driver, RingSize};
use crate::error::{Code, Error, Result};
use crate::targets::{Geometry, Target};

impl Device<Nbd> {
    /// Serves a target to clients of NBD. The address comes first: for an address that cannot be had,
    /// `open` is not called. Blocks.
    ///
    /// # Errors
    /// `NoIoUring`; `InvalidArgument` for fewer requests than connections; `Unsupported` for zones and metadata; the errors of [`Nbd::bind`], of `open`, and of
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
        check_io_uring()?;
        let driver = Nbd::bind(export)?;
        let target = open()?;
        check(target.geometry())?;
        Self::create(&driver, target, options)
    }
}

/// Whether there is an io_uring for this user: an export has no control command that would find out.
fn check_io_uring() -> Result<()> {
    let entries = RingSize { submissions: 8, completions: 16, tells_of_work: false };
    let Err(error) = Linux::new().ring(entries) else { return Ok(()) };
    let (code, hint) = match error.raw_os_error() {
        Some(libc::EPERM) => {
            let why = "io_uring is disabled (`sysctl kernel.io_uring_disabled=0` enables io_uring), or \
                       a seccomp filter, as of a container, forbids io_uring";
            (Code::NoIoUring, why)
        }
        Some(libc::ENOSYS) => {
            (Code::NoIoUring, "this kernel, or a seccomp filter, has no io_uring")
        }
        Some(libc::EINVAL) => (Code::NoIoUring, "an export needs Linux 6.1 or later"),
        _ => (Code::Kernel, "see the limits of this process: descriptors, locked memory"),
    };
    Err(Error::os(code, "cannot use io_uring, which an export needs", "io_uring_setup", &error)
        .hint(hint))
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
