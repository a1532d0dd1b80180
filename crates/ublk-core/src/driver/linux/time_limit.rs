//! How long a control command may go unanswered.

use std::collections::BTreeSet;
use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ublk_sys::UBLK_CMD_STOP_DEV;

/// A limit. For `STOP_DEV` it starts anew whenever a request of the device has ended meanwhile:
/// before a disk goes, the kernel writes back what clients have left in the page cache
/// (`blk_report_disk_dead`), be it gigabytes for a slow backend, and whoever gives up loses it. The
/// limit also starts anew while the kernel answers other stops of this process: stops wait for each other
/// at mutexes of the whole machine (`dev_pm_qos_constraints_destroy`), and a thousand of them for longer
/// than the limit of each. Only stops that have begun before the first end of the limit count, so that a
/// device that hangs is given up however many others come and go.
pub(super) struct TimeLimit {
    limit: Duration,
    deadline: Instant,
    stop: Option<Stop>,
}

/// A `STOP_DEV` on its way.
struct Stop {
    id: u32,
    requests: u64,
    number: u64,
    /// The stops answered before this one began.
    answered: u64,
    /// From the first end of the limit on: the number that the stops which count stay below, and how many
    /// of these are on their way.
    others: Option<(u64, usize)>,
    /// The limit is over: nobody hears the answer.
    given_up: bool,
}

static STOPS: Mutex<Stops> = Mutex::new(Stops { next: 0, answered: 0, under_way: BTreeSet::new() });

/// The stops of this process.
struct Stops {
    next: u64,
    answered: u64,
    under_way: BTreeSet<u64>,
}

impl Stop {
    fn new(id: u32) -> Self {
        let mut stops = stops();
        let number = stops.next;
        stops.next += 1;
        stops.under_way.insert(number);
        let answered = stops.answered;
        drop(stops);
        let requests = requests_ended(id);
        Self { id, requests, number, answered, others: None, given_up: false }
    }

    /// Whether a request of the device has ended, or another stop that counts, since the limit began.
    fn moves(&mut self) -> bool {
        let requests = requests_ended(self.id);
        let ended = requests != std::mem::replace(&mut self.requests, requests);
        let stops = stops();
        let below = self.others.map_or(stops.next, |(below, _)| below);
        let left = stops.under_way.range(..below).count();
        let answered = match self.others.replace((below, left)) {
            None => stops.answered != self.answered,
            Some((_, before)) => left != before,
        };
        self.given_up = !ended && !answered;
        !self.given_up
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        if self.given_up {
            // The kernel has not answered: the number stays, else the other stops would wait for each
            // other's ends, one limit after another.
            return;
        }
        let mut stops = stops();
        stops.under_way.remove(&self.number);
        stops.answered += 1;
    }
}

fn stops() -> MutexGuard<'static, Stops> {
    STOPS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TimeLimit {
    pub(super) fn new(operation: u32, id: u32, limit: Duration) -> Self {
        // The number is the same, encoded as an ioctl or not.
        let stops = operation & 0xff == UBLK_CMD_STOP_DEV.into();
        Self { limit, deadline: Instant::now() + limit, stop: stops.then(|| Stop::new(id)) }
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
        if !self.stop.as_mut().is_some_and(Stop::moves) {
            return false;
        }
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
    fn a_limit_is_over_where_nothing_moves_and_lasts_while_stops_of_its_time_are_answered() {
        let stop = || TimeLimit::new(UBLK_CMD_STOP_DEV.into(), u32::MAX, Duration::ZERO);
        assert!(!TimeLimit::new(ublk_sys::UBLK_U_CMD_STOP_DEV, u32::MAX, Duration::ZERO).lasts());
        assert!(TimeLimit::new(0, u32::MAX, Duration::from_secs(3600)).lasts());
        assert!(!TimeLimit::new(0, u32::MAX, Duration::ZERO).lasts());
        let [first, second, third] = [(); 3].map(|()| stop());
        let (mut lost, mut hangs) = (stop(), stop());
        drop(first);
        assert!(hangs.lasts(), "a stop was answered");
        drop(second);
        assert!(hangs.lasts(), "another stop was answered");
        drop(stop());
        assert!(!hangs.lasts(), "the stop that was answered began too late to count");
        assert!(lost.lasts() && !lost.lasts());
        drop(lost);
        assert!(!hangs.lasts(), "no stop was answered");
        drop(third);
        assert!(hangs.lasts(), "the last stop was answered");
        assert!(!hangs.lasts());
    }
}
