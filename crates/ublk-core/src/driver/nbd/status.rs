//! Finds the extents of a `BLOCK_STATUS`.

use std::io;

use crate::allocation::{Allocation, FindAllocation};

/// The most extents of a reply.
const MOST: usize = 1024;
/// The most ranges that a reply is made from: a request may be for the whole disk, and the client asks again for the
/// rest.
const MOST_RANGES: usize = 1 << 16;

/// Finds the extents of `length` bytes at `offset`: at most [`MOST`], or the first with `one`, from at most
/// [`MOST_RANGES`] answers of `find_one`.
///
/// # Errors
/// The errors of `find_one`.
pub(super) fn find(
    find_one: &FindAllocation,
    offset: u64,
    length: u64,
    one: bool,
) -> io::Result<Vec<Allocation>> {
    let mut extents: Vec<Allocation> = Vec::new();
    let end = offset + length;
    let mut at = offset;
    for _ in 0..MOST_RANGES {
        if at == end {
            break;
        }
        let found = find_one(at, end - at)?;
        let length = found.length.clamp(1, end - at);
        let same = |last: &&mut Allocation| Allocation { length: last.length, ..found } == **last;
        let full = extents.len() == if one { 1 } else { MOST };
        match extents.last_mut().filter(same) {
            Some(last) => last.length += length,
            None if full => break,
            None => extents.push(Allocation { length, ..found }),
        }
        at += length;
    }
    Ok(extents)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ranges of 512 bytes, data and hole in turn, after data of `data` bytes in two ranges.
    fn turns(data: u64) -> impl Fn(u64, u64) -> io::Result<Allocation> {
        move |offset, length| {
            let hole = offset >= data && (offset / 512) % 2 == 1;
            let left = if offset < data { data / 2 } else { 512 };
            Ok(Allocation { length: left.min(length), hole, zero: hole, changed: false })
        }
    }

    #[test]
    fn ranges_of_one_state_are_one_extent() {
        let found = find(&turns(4096), 0, 8192, false).unwrap();
        let lengths: Vec<_> = found.iter().map(|extent| (extent.length, extent.hole)).collect();
        assert_eq!(lengths[..3], [(4608, false), (512, true), (512, false)]);
        assert_eq!(found.iter().map(|extent| extent.length).sum::<u64>(), 8192);
    }

    #[test]
    fn a_reply_is_made_from_a_bounded_number_of_ranges() {
        let data = |_, length: u64| Ok(Allocation::data(length.min(4096)));
        let found = find(&data, 0, 1 << 50, false).unwrap();
        assert_eq!(found, [Allocation::data(4096 * MOST_RANGES as u64)]);
    }

    #[test]
    fn a_reply_has_a_bounded_number_of_extents_or_one() {
        let turns = turns(0);
        assert_eq!(find(&turns, 0, 1 << 30, false).unwrap().len(), MOST);
        assert_eq!(find(&turns, 0, 1 << 30, true).unwrap().len(), 1);
    }
}
