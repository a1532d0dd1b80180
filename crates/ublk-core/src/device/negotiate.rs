//! What to ask the kernel for, and what it gave.
//!
//! The list of features is a promise that a kernel may take back: 6.12 lists zero copy and clears
//! the flag when a device is added. So the flags that come back decide.

use ublk_sys::{
    UBLK_F_AUTO_BUF_REG, UBLK_F_BATCH_IO, UBLK_F_SUPPORT_ZERO_COPY, ublksrv_ctrl_dev_info,
};

use super::abilities;
use super::options::{BufferMode, DeviceOptions, ExchangeMode};
use crate::error::{Code, Error, Result};
use crate::reactor::Transfer;

impl BufferMode {
    fn flags(self) -> u64 {
        match self {
            // A request whose automatic registration fails is registered by hand.
            Self::Auto => UBLK_F_AUTO_BUF_REG | UBLK_F_SUPPORT_ZERO_COPY,
            Self::Register => UBLK_F_SUPPORT_ZERO_COPY,
            Self::Copy => 0,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Register => "register",
            Self::Copy => "copy",
        }
    }

    fn needs(self) -> &'static str {
        match self {
            Self::Auto => "Linux 6.16",
            Self::Register => "Linux 6.15",
            Self::Copy => "Linux 6.0",
        }
    }

    fn in_force(flags: u64) -> Self {
        [Self::Auto, Self::Register]
            .into_iter()
            .find(|mode| flags & mode.flags() == mode.flags())
            .unwrap_or(Self::Copy)
    }

    pub(super) fn transfer(self, split: bool) -> Transfer {
        match self {
            Self::Auto => Transfer::Auto,
            Self::Register => Transfer::Register { split },
            Self::Copy => Transfer::Copy,
        }
    }
}

/// What to add: as asked, with the best buffer mode that the kernel lists.
pub(super) fn wanted(features: u64, options: &DeviceOptions) -> Result<ublksrv_ctrl_dev_info> {
    let mode = match options.buffers {
        Some(mode) if features & mode.flags() != mode.flags() => return Err(lacks(mode)),
        Some(mode) => mode,
        // The kernel lends nobody's pages to an unprivileged server.
        None if options.unprivileged => BufferMode::Copy,
        None => BufferMode::in_force(features),
    };
    let exchange = match options.exchange {
        Some(ExchangeMode::Batch) if features & UBLK_F_BATCH_IO == 0 => return Err(lacks_batch()),
        Some(ExchangeMode::Batch) => UBLK_F_BATCH_IO,
        Some(ExchangeMode::PerIo) | None => 0,
    };
    Ok(ublksrv_ctrl_dev_info {
        nr_hw_queues: options.queues,
        queue_depth: options.depth,
        max_io_buf_bytes: options.max_io_bytes,
        dev_id: options.id.unwrap_or(u32::MAX),
        flags: mode.flags() | exchange | abilities::wanted(features, options)?,
        io_desc_size: options.io_desc_size.unwrap_or_default(),
        ..Default::default()
    })
}

/// The buffer mode and the exchange that a device's flags say.
pub(super) fn in_force(flags: u64) -> (BufferMode, ExchangeMode) {
    let exchange = match flags & UBLK_F_BATCH_IO {
        0 => ExchangeMode::PerIo,
        _ => ExchangeMode::Batch,
    };
    (BufferMode::in_force(flags), exchange)
}

/// The buffer mode and the exchange of the device that was added.
pub(super) fn given(
    info: &ublksrv_ctrl_dev_info,
    options: &DeviceOptions,
) -> Result<(BufferMode, ExchangeMode)> {
    abilities::given(info.flags, options)?;
    let (mode, exchange) = in_force(info.flags);
    if options.buffers.is_some_and(|asked| asked != mode) {
        return Err(options.buffers.map_or_else(lacks_batch, lacks));
    }
    if options.exchange.is_some_and(|asked| asked != exchange) {
        return Err(lacks_batch());
    }
    Ok((mode, exchange))
}

fn lacks_batch() -> Error {
    let message = "this kernel's ublk driver lacks exchange 'batch'";
    Error::new(Code::Unsupported, message)
        .hint("it needs Linux 7.0; leave the option out and the best of this kernel is chosen")
}

fn lacks(mode: BufferMode) -> Error {
    let message = format!("this kernel's ublk driver lacks buffer mode '{}'", mode.name());
    Error::new(Code::Unsupported, message).hint(format!(
        "it needs {}; leave the option out and the best mode of this kernel is chosen",
        mode.needs()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = UBLK_F_AUTO_BUF_REG | UBLK_F_SUPPORT_ZERO_COPY;

    #[test]
    fn the_best_mode_is_asked_for_and_the_flags_that_come_back_decide() {
        let options = DeviceOptions::default();
        let info = wanted(ALL, &options).unwrap();
        assert_eq!(info.flags & ALL, ALL);
        let stripped = ublksrv_ctrl_dev_info { flags: 0, ..info };
        let least = (BufferMode::Copy, ExchangeMode::PerIo);
        assert_eq!(given(&stripped, &options).unwrap(), least);
    }

    #[test]
    fn a_mode_that_the_kernel_takes_back_is_an_error_only_if_it_was_asked_for() {
        let options = DeviceOptions { buffers: Some(BufferMode::Register), ..Default::default() };
        let info = wanted(UBLK_F_SUPPORT_ZERO_COPY, &options).unwrap();
        let stripped = ublksrv_ctrl_dev_info { flags: 0, ..info };
        assert_eq!(given(&stripped, &options).unwrap_err().code, Code::Unsupported);
        assert_eq!(wanted(0, &options).unwrap_err().code, Code::Unsupported);
    }
}
