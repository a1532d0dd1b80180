//! Which time it is that the machine runs, from its start to the end of its power.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A boot of the machine, or of a simulated one. What a killed process has left in the page cache
/// is there for as long as the boot lasts.
#[derive(Clone, Debug)]
pub struct Boot {
    id: [u8; 16],
    over: Arc<AtomicBool>,
}

impl Boot {
    /// The boot that the kernel tells of.
    ///
    /// # Errors
    /// Those of reading `/proc/sys/kernel/random/boot_id`.
    pub fn of_machine() -> io::Result<Self> {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        let id = u128::from_str_radix(&digits, 16).map_err(io::Error::other)?;
        Ok(Self::simulated(id))
    }

    /// A boot that a simulation counts.
    pub fn simulated(id: u128) -> Self {
        Self { id: id.to_be_bytes(), over: Arc::default() }
    }

    /// What tells it from all others.
    pub fn id(&self) -> [u8; 16] {
        self.id
    }

    /// From now on nothing that its processes do has any effect.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Whether it has [ended](Self::end).
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}
