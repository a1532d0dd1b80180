//! Requests that do not end, by the stamps of their queues: the reactor stamps a tag with the number of
//! the last look when a request begins, and clears the stamp when the request has been answered. No
//! clock is read for a request.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Counters, Tally};
use crate::tag::Tag;

/// Stamps the requests of a device's queues until it is dropped, and finds requests that are old.
#[derive(Debug)]
pub(crate) struct Guard {
    parts: Vec<Part>,
    /// The number of looks so far; a stamp of 0 is none.
    looks: u32,
}

/// The tags that one reactor serves of one queue.
#[derive(Debug)]
struct Part {
    queue: u16,
    counters: Arc<Counters>,
    seen: Box<[Seen]>,
}

/// A request as a look has found it.
#[derive(Clone, Copy, Debug)]
struct Seen {
    stamp: u32,
    /// When a look first found the request in flight.
    since: Instant,
    reported: bool,
}

/// A request in flight for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Old {
    /// The part of the device with the request, for the other methods.
    pub(crate) part: usize,
    pub(crate) tag: Tag,
    /// Tells this request from the tag's later requests.
    pub(crate) stamp: u32,
}

impl Guard {
    /// Stamps requests of these queues of `depth` tags that begin from now on.
    pub(crate) fn new(tally: &Tally, depth: u16) -> Self {
        let nothing = Seen { stamp: 0, since: Instant::now(), reported: false };
        let part = |(queue, counters): &(u16, Arc<Counters>)| {
            counters.trace.guard(depth);
            let seen = vec![nothing; depth.into()].into();
            Part { queue: *queue, counters: Arc::clone(counters), seen }
        };
        Self { parts: tally.iter().map(part).collect(), looks: 1 }
    }

    /// Looks at all tags, and returns the requests not yet reported that earlier looks have found in
    /// flight for `after`. A request is never counted as older than the request is.
    pub(crate) fn look(&mut self, after: Duration) -> Vec<Old> {
        let now = Instant::now();
        self.looks = self.looks.checked_add(1).unwrap_or(1);
        let mut old = Vec::new();
        for (number, part) in self.parts.iter_mut().enumerate() {
            let stamps = part.counters.trace.stamps(self.looks);
            for (tag, (stamp, seen)) in (0..).map(Tag::new).zip(stamps.zip(&mut part.seen)) {
                if stamp != seen.stamp {
                    *seen = Seen { stamp, since: now, reported: false };
                } else if stamp != 0 && !seen.reported && now - seen.since >= after {
                    old.push(Old { part: number, tag, stamp });
                }
            }
        }
        old
    }

    /// How long looks have found the request in flight; none, once the request has ended. The request
    /// counts as reported from now on.
    pub(crate) fn report(&mut self, old: Old) -> Option<Duration> {
        let part = self.parts.get_mut(old.part)?;
        let seen = part.seen.get_mut(old.tag.index()).filter(|seen| seen.stamp == old.stamp)?;
        let lives = part.counters.trace.stamp(old.tag) == old.stamp;
        seen.reported = true;
        lives.then(|| seen.since.elapsed())
    }

    /// The request waits for nothing that could stall: the time begins anew.
    pub(crate) fn excuse(&mut self, old: Old) {
        if let Some(seen) = self.parts[old.part].seen.get_mut(old.tag.index()) {
            seen.since = Instant::now();
        }
    }

    /// The queue of a part.
    pub(crate) fn queue(&self, part: usize) -> u16 {
        self.parts[part].queue
    }

    /// The counters of a part, which name the part to the reactor.
    pub(crate) fn counters(&self, part: usize) -> &Arc<Counters> {
        &self.parts[part].counters
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.parts.iter().for_each(|part| part.counters.trace.leave_unguarded());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::{Op, Request, RequestFlags};

    const REQUEST: Request =
        Request { op: Op::Read, flags: RequestFlags(0), offset: 0, length: 512 };

    fn tags(guard: &mut Guard) -> Vec<Tag> {
        guard.look(Duration::ZERO).iter().map(|old| old.tag).collect()
    }

    #[test]
    fn a_request_is_old_when_a_second_look_finds_it_and_until_it_ends() {
        let queues = vec![(3, Arc::<Counters>::default())];
        let trace = &queues[0].1.trace;
        trace.begin(Tag::new(0));
        let mut guard = Guard::new(&queues, 4);
        trace.begin(Tag::new(2));
        assert_eq!(tags(&mut guard), [], "found for the first time");
        assert_eq!(guard.look(Duration::from_secs(60)), []);
        let old = guard.look(Duration::ZERO)[0];
        assert_eq!((old.tag, guard.queue(old.part)), (Tag::new(2), 3));
        guard.excuse(old);
        assert!(guard.report(old).is_some());
        assert_eq!(tags(&mut guard), [], "reported");
        trace.end(Tag::new(2), REQUEST, 0);
        assert!(guard.report(old).is_none());
        trace.begin(Tag::new(2));
        assert_eq!(tags(&mut guard), [], "another request of the tag");
        assert_eq!(tags(&mut guard), [Tag::new(2)]);
        drop(guard);
        assert!(!trace.is_on());
    }

    #[test]
    fn requests_that_take_turns_at_a_tag_are_never_old() {
        let queues = vec![(0, Arc::<Counters>::default())];
        let mut guard = Guard::new(&queues, 1);
        for _ in 0..3 {
            queues[0].1.trace.begin(Tag::new(0));
            assert_eq!(guard.look(Duration::ZERO), []);
            queues[0].1.trace.end(Tag::new(0), REQUEST, 0);
        }
    }
}
