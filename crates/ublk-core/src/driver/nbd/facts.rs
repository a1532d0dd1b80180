//! Facts of the device by which requests of clients become requests of the device.

use ublk_nbd::wire::export;
use ublk_sys::{
    UBLK_ATTR_FUA, UBLK_ATTR_READ_ONLY, UBLK_ATTR_ROTATIONAL, UBLK_ATTR_VOLATILE_CACHE,
    UBLK_PARAM_TYPE_DISCARD, ublk_params,
};

/// Facts of an export. All sizes in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    /// The size of the disk.
    pub(super) size: u64,
    /// The unit of addressing.
    pub(super) block: u32,
    /// The preferred unit of requests.
    pub(super) preferred: u32,
    /// The longest request of the device; a client's longer request becomes several.
    pub(super) max_io: u32,
    /// No read and no write crosses a multiple of `chunk`; 0: no such rule.
    pub(super) chunk: u64,
    /// The longest discard; 0: the target does not discard.
    pub(super) max_discard: u64,
    /// The longest write of zeros; 0: zeros are written as data.
    pub(super) max_zeroes: u64,
    /// Completed writes may be in a cache.
    pub(super) cache: bool,
    /// Writes can be made durable one by one.
    pub(super) fua: bool,
    /// Writes are refused.
    pub(super) read_only: bool,
    /// The disk spins.
    pub(super) rotational: bool,
}

const SECTOR: u64 = 512;

impl Facts {
    pub(super) fn of(params: &ublk_params, max_io: u32) -> Self {
        let basic = &params.basic;
        let has = |attribute: u32| basic.attrs & attribute != 0;
        let discards = params.types & UBLK_PARAM_TYPE_DISCARD != 0;
        let most = |sectors: u32| if discards { u64::from(sectors) * SECTOR } else { 0 };
        Self {
            size: basic.dev_sectors * SECTOR,
            block: 1 << basic.logical_bs_shift,
            preferred: 1 << basic.io_min_shift.max(basic.physical_bs_shift).clamp(9, 20),
            max_io,
            chunk: u64::from(basic.chunk_sectors) * SECTOR,
            max_discard: most(params.discard.max_discard_sectors),
            max_zeroes: most(params.discard.max_write_zeroes_sectors),
            cache: has(UBLK_ATTR_VOLATILE_CACHE),
            fua: has(UBLK_ATTR_FUA),
            read_only: has(UBLK_ATTR_READ_ONLY),
            rotational: has(UBLK_ATTR_ROTATIONAL),
        }
    }

    /// The transmission flags of a client with replies in chunks.
    ///
    /// `CAN_MULTI_CONN` holds, because all requests reach one target, and a flush covers each earlier
    /// completed write of any connection and queue, as on a block device.
    pub(super) fn flags(&self) -> u16 {
        let writable = !self.read_only;
        let flags = [
            (true, export::HAS_FLAGS | export::SEND_FLUSH | export::SEND_FUA),
            (true, export::SEND_DF | export::SEND_CACHE | export::CAN_MULTI_CONN),
            (self.read_only, export::READ_ONLY),
            (self.rotational, export::ROTATIONAL),
            (writable && self.max_discard > 0, export::SEND_TRIM),
            (writable, export::SEND_WRITE_ZEROES),
            (writable && self.max_zeroes > 0, export::SEND_FAST_ZERO),
        ];
        flags.into_iter().filter(|(on, _)| *on).fold(0, |all, (_, flag)| all | flag)
    }

    /// The length of the first request of the device for a read or write at `offset`.
    pub(super) fn transfer(&self, offset: u64, left: u64) -> u64 {
        let most = left.min(self.max_io.into());
        // None without a chunk.
        let to_edge = offset.checked_rem(self.chunk).map_or(most, |inside| self.chunk - inside);
        most.min(to_edge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        let mut params = ublk_params { types: UBLK_PARAM_TYPE_DISCARD, ..Default::default() };
        params.basic.dev_sectors = 2048;
        params.basic.logical_bs_shift = 12;
        params.discard.max_discard_sectors = 16;
        Facts::of(&params, 1 << 16)
    }

    #[test]
    fn transfers_end_at_the_longest_request_and_at_chunks() {
        let plain = facts();
        assert_eq!(plain.transfer(0, 1 << 20), 1 << 16);
        assert_eq!(plain.transfer(4096, 8192), 8192);
        let chunked = Facts { chunk: 12288, ..plain };
        assert_eq!(chunked.transfer(0, 1 << 20), 12288);
        assert_eq!(chunked.transfer(8192, 1 << 20), 4096);
    }

    #[test]
    fn clients_hear_only_of_what_the_target_does() {
        let facts = facts();
        assert_eq!((facts.size, facts.block, facts.max_discard), (1 << 20, 4096, 8192));
        let told = |facts: Facts, flag| facts.flags() & flag != 0;
        assert!(told(facts, export::SEND_TRIM) && told(facts, export::SEND_WRITE_ZEROES));
        assert!(!told(facts, export::SEND_FAST_ZERO), "zeros would be written as data");
        let read_only = Facts { read_only: true, ..facts };
        assert!(told(read_only, export::READ_ONLY) && !told(read_only, export::SEND_TRIM));
        assert!(!told(read_only, export::SEND_WRITE_ZEROES));
    }
}
