//! How the peer waits for requests: it may look for them a little before it sleeps.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use super::Channel;
use crate::patience::Patience;

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
        if self.spin.is_zero() {
            return false;
        }
        let Self { channel, spin, patience } = self;
        let Ok(found) = patience.look::<Infallible>(*spin, || Ok(channel.has_requests()));
        found
    }

    /// Looks for requests, then sleeps until there are some, or for `limit`. Whether there are any.
    pub fn wait(&mut self, limit: Duration) -> bool {
        self.look() || self.channel.wait(limit)
    }
}
