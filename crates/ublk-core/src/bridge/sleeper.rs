//! How the peer waits for requests: it may look for them a little before it sleeps.

use std::hint;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Channel;
use crate::patience::Patience;

/// The clock costs more than a look.
const LOOKS_PER_CLOCK: u32 = 32;

/// The waiting of a channel's peer; there is one.
#[derive(Debug)]
pub struct Sleeper {
    channel: Arc<Channel>,
    spin: Duration,
    patience: Patience,
}

impl Sleeper {
    /// `spin`: how long to look for requests before sleeping; zero: not at all. One who looks in
    /// vain again and again stops, and tries again now and then.
    pub fn new(channel: Arc<Channel>, spin: Duration) -> Self {
        Self { channel, spin, patience: Patience::default() }
    }

    /// The channel.
    pub fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }

    /// Looks for requests without sleeping. Whether there are any.
    pub fn look(&mut self) -> bool {
        if self.spin.is_zero() || !self.patience.lasts() {
            return false;
        }
        let deadline = Instant::now() + self.spin;
        let mut looks = 0_u32;
        while !self.channel.has_requests() {
            looks += 1;
            if looks.is_multiple_of(LOOKS_PER_CLOCK) && Instant::now() >= deadline {
                self.patience.missed();
                return false;
            }
            hint::spin_loop();
        }
        self.patience.found();
        true
    }

    /// Looks for requests, then sleeps until there are some, or for `limit`. Whether there are any.
    pub fn wait(&mut self, limit: Duration) -> bool {
        self.look() || self.channel.wait(limit)
    }
}
