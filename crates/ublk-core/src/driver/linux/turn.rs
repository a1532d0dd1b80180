//! Whose turn it is to send a command, on kernels that lose commands.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use ublk_sys::{
    UBLK_CMD_ADD_DEV, UBLK_CMD_GET_PARAMS, UBLK_CMD_SET_PARAMS, UBLK_CMD_START_USER_RECOVERY,
    UBLK_U_CMD_UPDATE_SIZE,
};

/// Linux 7.3 loses no commands.
const FIRST_SOUND: (u32, u32) = (7, 3);
/// How long a command waits for its turn before it goes without: whoever has the turn may be
/// waiting for a device that is being stopped.
const PATIENCE: Duration = Duration::from_millis(100);

static TAKEN: Mutex<bool> = Mutex::new(false);
static FREE: Condvar = Condvar::new();

/// The turn; the next command has it when this is dropped.
pub(super) struct Turn(());

impl Turn {
    /// Waits for the turn, where this kernel loses commands that sleep when many are sent at once
    /// (trap 26). Only commands that sleep for a moment take turns: those that wait for requests,
    /// for fetches or for openers never do.
    pub(super) fn take(operation: u32, limit: Duration) -> Option<Self> {
        if !is_brief(operation) || !kernel_loses_commands() {
            return None;
        }
        Self::within(limit)
    }

    /// The turn, if it is free within the limit and within our patience.
    fn within(limit: Duration) -> Option<Self> {
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = FREE.wait_timeout_while(taken, limit.min(PATIENCE), |taken| *taken);
        let (mut taken, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if *taken {
            return None;
        }
        *taken = true;
        Some(Self(()))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) = false;
        FREE.notify_one();
    }
}

/// The number is the same, encoded as an ioctl or not.
fn is_brief(operation: u32) -> bool {
    let brief = [
        UBLK_CMD_ADD_DEV.into(),
        UBLK_CMD_SET_PARAMS.into(),
        UBLK_CMD_GET_PARAMS.into(),
        UBLK_CMD_START_USER_RECOVERY.into(),
        UBLK_U_CMD_UPDATE_SIZE & 0xff,
    ];
    brief.contains(&(operation & 0xff))
}

pub(super) fn kernel_loses_commands() -> bool {
    static LOSES: OnceLock<bool> = OnceLock::new();
    *LOSES.get_or_init(|| release().is_none_or(|release| release < FIRST_SOUND))
}

/// The running kernel's first two numbers.
pub(super) fn release() -> Option<(u32, u32)> {
    let mut name = MaybeUninit::<libc::utsname>::zeroed();
    // SAFETY: uname fills the struct, all of whose bytes are numbers; zeros are valid too.
    let name = unsafe {
        libc::uname(name.as_mut_ptr());
        name.assume_init()
    };
    // SAFETY: the kernel ends the string within its field.
    parse(unsafe { CStr::from_ptr(name.release.as_ptr()) }.to_str().ok()?)
}

fn parse(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::mem::ManuallyDrop;
    use std::sync::mpsc;
    use std::thread;

    use ublk_sys::{
        UBLK_U_CMD_ADD_DEV, UBLK_U_CMD_DEL_DEV, UBLK_U_CMD_REG_BUF, UBLK_U_CMD_STOP_DEV,
    };

    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        assert_eq!(parse("7.3.4+deb13-cloud-amd64"), Some((7, 3)));
        assert!(parse("6.12.9").unwrap() < FIRST_SOUND && parse("7.10").unwrap() > FIRST_SOUND);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn whoever_waits_too_long_goes_without() {
        // Where others hold the lock for ever, the test shall fail, and not hang in giving its turn back.
        let turn = ManuallyDrop::new(Turn::within(PATIENCE).unwrap());
        let (tell, told) = mpsc::channel();
        let late = thread::spawn(move || tell.send(Turn::within(PATIENCE).is_some()));
        assert_eq!(told.recv_timeout(Duration::from_secs(30)), Ok(false));
        late.join().unwrap().unwrap();
        drop(ManuallyDrop::into_inner(turn));
        assert!(Turn::within(PATIENCE).is_some());
    }

    #[test]
    fn what_waits_for_others_takes_no_turn() {
        assert!(is_brief(UBLK_U_CMD_ADD_DEV) && is_brief(UBLK_CMD_ADD_DEV.into()));
        for operation in [UBLK_U_CMD_STOP_DEV, UBLK_U_CMD_DEL_DEV, UBLK_U_CMD_REG_BUF] {
            assert!(!is_brief(operation));
        }
    }
}
