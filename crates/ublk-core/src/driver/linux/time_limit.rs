//! How long a control command may go unanswered.

use std::fs;
use std::time::{Duration, Instant};

use ublk_sys::UBLK_CMD_STOP_DEV;

/// A limit. For `STOP_DEV` it starts anew whenever a request of the device has ended meanwhile:
/// before a disk goes, the kernel writes back what clients have left in the page cache
/// (`blk_report_disk_dead`), be it gigabytes for a slow backend, and whoever gives up loses it.
pub(super) struct TimeLimit {
    limit: Duration,
    deadline: Instant,
    watched: Option<u32>,
    ended: u64,
}

impl TimeLimit {
    pub(super) fn new(operation: u32, id: u32, limit: Duration) -> Self {
        // The number is the same, encoded as an ioctl or not.
        let watched = (operation & 0xff == UBLK_CMD_STOP_DEV.into()).then_some(id);
        let ended = watched.map_or(0, requests_ended);
        Self { limit, deadline: Instant::now() + limit, watched, ended }
    }

    /// How long to wait before [`lasts`](Self::lasts) is asked.
    pub(super) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Whether to wait on. It is time, where this says no.
    pub(super) fn lasts(&mut self) -> bool {
        if !self.left().is_zero() {
            return true;
        }
        let ended = self.watched.map_or(0, requests_ended);
        if ended == self.ended {
            return false;
        }
        self.ended = ended;
        self.deadline = Instant::now() + self.limit;
        true
    }
}

/// How many requests of a disk have ended; 0 when it has gone, or where the kernel does not count.
fn requests_ended(id: u32) -> u64 {
    let stat = fs::read_to_string(format!("/sys/block/ublkb{id}/stat")).unwrap_or_default();
    sum_of_requests(&stat)
}

/// Reads, writes, discards and flushes (Documentation/block/stat.rst); the last two are not counted
/// by all kernels.
fn sum_of_requests(stat: &str) -> u64 {
    let fields: Vec<u64> = stat.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    [0, 4, 11, 15].iter().filter_map(|&field| fields.get(field)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_requests_of_a_disk_are_counted_and_nothing_else() {
        let of_7_3 = "  1 90 90 90  20 90 90 90  90 90 90  300 90 90 90  4000 90\n";
        assert_eq!(sum_of_requests(of_7_3), 4321);
        assert_eq!(sum_of_requests("1 90 90 90 20 90 90 90 90 90 90"), 21);
        assert_eq!(sum_of_requests(""), 0);
    }

    #[test]
    fn it_is_over_where_no_requests_are_seen_to_end() {
        for operation in [ublk_sys::UBLK_U_CMD_STOP_DEV, UBLK_CMD_STOP_DEV.into()] {
            assert!(!TimeLimit::new(operation, u32::MAX, Duration::ZERO).lasts());
        }
        assert!(TimeLimit::new(0, u32::MAX, Duration::from_secs(3600)).lasts());
    }
}
