//! A number means one device only as long as that device lives.
//!
//! The kernel hands the lowest free number out again at once. A [`Control`] that is bound to a device
//! looks before each command whether its number is still that device's. While a server has
//! `/dev/ublkcN` open, the number cannot change hands.

use std::io;
use std::sync::atomic::AtomicBool;

use super::Control;
use super::command::{ADD_DEV, Command, GET_FEATURES};
use crate::driver::{Driver, Identity};
use crate::error::{Code, Error, Result};

/// A device, by its number and by what no other device shares.
#[derive(Debug)]
pub(super) struct Bound {
    id: u32,
    identity: Option<Identity>,
    /// An `UPDATE_SIZE` has not been answered in time, and may be carried out at any moment.
    pub(super) resizes: AtomicBool,
}

impl Bound {
    pub(super) fn new<D: Driver>(driver: &D, id: u32) -> Self {
        Self { id, identity: driver.device_identity(id), resizes: AtomicBool::new(false) }
    }
}

impl<D: Driver> Control<D> {
    /// Whether a command may be sent by this number.
    pub(super) fn check(&self, command: Command, id: u32) -> Result<()> {
        let of_a_device = ![ADD_DEV, GET_FEATURES].iter().any(|other| other.name == command.name);
        let Some(ours) = self.identity_of(id).filter(|_| of_a_device) else { return Ok(()) };
        let now = self.driver.device_identity(id);
        if now == Some(ours) {
            return Ok(());
        }
        let gone = io::Error::from_raw_os_error(libc::ENODEV);
        let tried = format!("{} of ublk device {id}", command.name);
        let error = Error::os(Code::NoDevice, tried, command.name, &gone);
        Err(match now {
            Some(_) => error.hint("the device is gone; another device has its number now"),
            None => error.hint("the device has been deleted"),
        })
    }

    /// Whether no command reaches the device any more. ADD_DEV may find the number taken for a moment yet
    /// (trap 70).
    ///
    /// # Errors
    /// What the kernel says when it is asked, but for [`Code::NoDevice`].
    pub fn is_gone(&self, id: u32) -> Result<bool> {
        match self.driver.device_identity(id) {
            Some(now) => Ok(self.bound.is_some() && self.identity_of(id) != Some(now)),
            // Deleted; who has it open still keeps the number.
            None => self.is_unknown(id),
        }
    }

    /// Whether the kernel has no device of this number, whoever's.
    pub(super) fn is_unknown(&self, id: u32) -> Result<bool> {
        match Self::new(self.driver.clone()).info(id) {
            Err(Error { code: Code::NoDevice, .. }) => Ok(true),
            info => info.map(|_| false),
        }
    }

    fn identity_of(&self, id: u32) -> Option<Identity> {
        self.bound.as_ref().filter(|bound| bound.id == id).and_then(|bound| bound.identity)
    }
}
