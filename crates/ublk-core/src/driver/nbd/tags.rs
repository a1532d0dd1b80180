//! The tags of a queue: which wait for a request, and how many a connection may have.

use crate::tag::Tag;

/// A tag's fetch by the exchange above.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fetch {
    /// The `user_data` of the fetch.
    pub(super) user_data: u64,
    /// The buffer of the request at the tag.
    pub(super) address: u64,
    /// The buffer of the tag's next request.
    pub(super) next_address: u64,
    /// The request at the tag.
    pub(super) part: Part,
}

/// A request of the device: a part of a client's request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Part {
    /// The client's request.
    pub(super) job: u32,
    /// In bytes.
    pub(super) offset: u64,
    /// In bytes.
    pub(super) length: u32,
}

/// The tags of a queue.
#[derive(Debug)]
pub(super) struct Tags {
    tags: Box<[Fetch]>,
    /// Tags that wait for a request; the last is taken first, whose buffer is warm.
    parked: Vec<Tag>,
    /// Fetched tags that have not been given back.
    alive: usize,
    /// The most connections that there may be.
    connections: usize,
    /// Connections with a tag.
    holders: usize,
}

impl Tags {
    pub(super) fn new(depth: u16, connections: u16) -> Self {
        let tags = vec![Fetch::default(); depth.into()].into();
        let parked = Vec::with_capacity(depth.into());
        Self { tags, parked, alive: 0, connections: connections.into(), holders: 0 }
    }

    /// A tag is fetched for the first time.
    pub(super) fn fetch(&mut self, tag: Tag, user_data: u64, address: u64) {
        *self.get(tag) = Fetch { user_data, address, next_address: address, ..Fetch::default() };
        self.alive += 1;
        self.parked.push(tag);
    }

    pub(super) fn get(&mut self, tag: Tag) -> &mut Fetch {
        &mut self.tags[tag.index()]
    }

    /// A tag for a connection that has `held` tags already, unless others need the tag more.
    ///
    /// A connection has no more tags than are free, and leaves a tag for each connection without one.
    /// So however many connections keep their tags, because their clients take no replies, there is a
    /// tag for each other connection.
    pub(super) fn take(&mut self, held: u16) -> Option<Tag> {
        let free = self.parked.len();
        let reserved = self.connections.saturating_sub(self.holders);
        if held > 0 && free <= reserved.max(held.into()) {
            return None;
        }
        let tag = self.parked.pop()?;
        self.holders += usize::from(held == 0);
        Some(tag)
    }

    /// The tag, the last of its connection or not, waits for a request.
    pub(super) fn park(&mut self, tag: Tag, last: bool) {
        self.holders -= usize::from(last);
        let state = self.get(tag);
        state.address = state.next_address;
        self.parked.push(tag);
    }

    /// Gives a waiting tag up; the `user_data` of the fetch.
    pub(super) fn end_one(&mut self) -> Option<u64> {
        let tag = self.parked.pop()?;
        self.alive -= 1;
        Some(self.get(tag).user_data)
    }

    /// Whether no tag has a request.
    pub(super) fn are_idle(&self) -> bool {
        self.parked.len() == self.alive
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(depth: u16) -> Tags {
        let mut tags = Tags::new(depth, 16);
        Tag::all(depth).for_each(|tag| tags.fetch(tag, tag.number().into(), 0));
        tags
    }

    #[test]
    fn connections_that_keep_their_tags_leave_a_tag_for_each_other() {
        for greedy in [1, 3, 15] {
            let mut tags = tags(128);
            let mut held = vec![0_u16; greedy];
            loop {
                let before = held.clone();
                for count in &mut held {
                    *count += u16::from(tags.take(*count).is_some());
                }
                if held == before {
                    break;
                }
            }
            assert!(held.iter().all(|&count| count >= 7), "{held:?}");
            for newcomer in greedy..16 {
                assert!(tags.take(0).is_some(), "connection {newcomer} beside {greedy}");
            }
        }
    }

    #[test]
    fn connections_that_take_all_they_can_one_after_another_leave_a_tag_for_each_other() {
        for depth in [16, 64, 128] {
            let mut tags = tags(depth);
            for number in 0..16 {
                assert!(tags.take(0).is_some(), "connection {number} of depth {depth}");
                (1..).find(|&held| tags.take(held).is_none()).unwrap();
            }
        }
    }

    #[test]
    fn a_lone_connection_has_half_of_the_tags() {
        let mut tags = tags(128);
        let held = (0..).find(|&held| tags.take(held).is_none()).unwrap();
        assert_eq!(held, 64);
    }

    #[test]
    fn a_tag_that_waits_again_has_the_buffer_of_its_commit() {
        let mut tags = Tags::new(1, 1);
        tags.fetch(Tag::new(0), 0, 0);
        let tag = tags.take(0).unwrap();
        assert!(!tags.are_idle());
        tags.get(tag).next_address = 4096;
        assert_eq!(tags.get(tag).address, 0);
        tags.park(tag, true);
        assert_eq!(tags.get(tag).address, 4096);
        assert_eq!((tags.end_one(), tags.end_one()), (Some(0), None));
    }
}
