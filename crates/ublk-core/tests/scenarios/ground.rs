//! What zones lie on, and are found on again when another server comes.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::PathBuf;

use ublk_core::targets::Boot;
use ublk_core::targets::file::{Direct, FileOptions};
use ublk_core::targets::zoned::{Zoned, ZonedOptions};

use crate::scenario::{Backend, SECTOR, Scenario, ZONE};

/// Two files in memory.
pub(crate) struct Ground {
    data: File,
    state: File,
    options: ZonedOptions,
    boot: u128,
    server: Boot,
}

impl Ground {
    /// # Panics
    /// For a scenario without zones.
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let Backend::Zones { capacity, max_open, max_active, .. } = scenario.backend else {
            panic!("a scenario of zones")
        };
        let (data, state) = (in_memory(c"zones"), in_memory(c"zones' state"));
        data.set_len((scenario.sectors * SECTOR) as u64).unwrap();
        let options = ZonedOptions {
            zone_size: ZONE,
            zone_capacity: Some(capacity),
            max_open,
            max_active,
            ..Default::default()
        };
        Self { data, state, options, boot: 1, server: Boot::simulated(1) }
    }

    /// The target of the next server.
    pub(crate) fn open(&mut self) -> Zoned {
        self.server = Boot::simulated(self.boot);
        // The model keeps files open for as long as it lives.
        let how = FileOptions { direct: Direct::No, unlocked: true, ..Default::default() };
        let state = Some(path(&self.state));
        let boot = Some(self.server.clone());
        let options = ZonedOptions { state, boot, ..self.options.clone() };
        Zoned::open(&path(&self.data), &how, &options).unwrap()
    }

    /// The server is killed: it does nothing more, not even to the files.
    pub(crate) fn kill_server(&self) {
        self.server.end();
    }
}

fn in_memory(name: &CStr) -> File {
    // SAFETY: plain arguments, and a string that outlives the call.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0, "no memory for a file");
    // SAFETY: a new descriptor that nobody else has.
    unsafe { File::from_raw_fd(fd) }
}

fn path(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}
