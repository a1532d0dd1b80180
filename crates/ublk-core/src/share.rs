//! The tags of a queue that one reactor serves.

use crate::tag::Tag;

/// Every `of`th tag, from `first` on.
///
/// Several threads may serve the tags of a queue (`UBLK_F_PER_IO_DAEMON`, Linux 6.16). All commands of a tag
/// come from the thread of the tag's first fetch (`io->task` in ublk_drv.c), so this thread serves all
/// requests of the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    first: u16,
    of: u16,
}

impl Share {
    /// All tags.
    pub const WHOLE: Self = Self { first: 0, of: 1 };

    /// The tags of `queue` for thread number `thread` of `threads`, when the tags of all queues are dealt out
    /// to the threads one after another; none for a thread without a tag of the queue.
    ///
    /// # Panics
    /// If `threads` is 0.
    pub fn of(thread: u16, threads: u16, queue: u16, depth: u16) -> Option<Self> {
        let before = u32::from(queue) * u32::from(depth) % u32::from(threads);
        let first = (u32::from(thread) + u32::from(threads) - before) % u32::from(threads);
        let first = u16::try_from(first).ok().filter(|&first| first < depth)?;
        Some(Self { first, of: threads })
    }

    /// The tags of the share, in a queue of this depth.
    pub(crate) fn tags(self, depth: u16) -> impl Iterator<Item = Tag> {
        (self.first..depth).step_by(self.of.into()).map(Tag::new)
    }

    /// The number of these tags.
    pub(crate) fn count(self, depth: u16) -> u16 {
        depth.saturating_sub(self.first).div_ceil(self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tag_is_dealt_to_one_thread_and_all_have_alike() {
        for (threads, queues, depth) in [(1, 2, 4), (2, 1, 5), (3, 2, 4), (4, 3, 1), (7, 2, 2)] {
            let mut owners = vec![0_u16; usize::from(queues * depth)];
            let mut loads = Vec::new();
            for thread in 0..threads {
                let mut load = 0;
                for queue in 0..queues {
                    let Some(share) = Share::of(thread, threads, queue, depth) else { continue };
                    assert_eq!(share.tags(depth).count(), usize::from(share.count(depth)));
                    for tag in share.tags(depth) {
                        owners[usize::from(queue * depth) + tag.index()] += 1;
                        load += 1;
                    }
                }
                loads.push(load);
            }
            assert!(owners.iter().all(|&count| count == 1), "{threads} threads: {owners:?}");
            let (least, most) = (loads.iter().min(), loads.iter().max());
            assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1), "{loads:?}");
        }
    }

    #[test]
    fn a_share_without_tags_is_none() {
        assert_eq!(Share::of(3, 4, 0, 3), None);
        assert_eq!(Share::of(0, 1, 5, 128), Some(Share::WHOLE));
    }
}
