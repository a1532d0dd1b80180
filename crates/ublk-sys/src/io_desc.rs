//! Requests: the descriptors that the driver writes into the memory a server maps.

constants! {
    /// Read. Since 6.0, as all operations up to WRITE_ZEROES.
    pub const UBLK_IO_OP_READ: u8 = 0;
    /// Write.
    pub const UBLK_IO_OP_WRITE: u8 = 1;
    /// Make everything written and acknowledged before durable. Comes only with
    /// [`UBLK_ATTR_VOLATILE_CACHE`](crate::UBLK_ATTR_VOLATILE_CACHE); has no range.
    pub const UBLK_IO_OP_FLUSH: u8 = 2;
    /// The range's content is no longer needed.
    pub const UBLK_IO_OP_DISCARD: u8 = 3;
    /// Never sent: the block layer gave the operation up.
    pub const UBLK_IO_OP_WRITE_SAME: u8 = 4;
    /// Zero the range; with [`UBLK_IO_F_NOUNMAP`] without giving its space back.
    pub const UBLK_IO_OP_WRITE_ZEROES: u8 = 5;
    /// Open the zone at `start_sector` explicitly. Since 6.6, as all zone operations.
    pub const UBLK_IO_OP_ZONE_OPEN: u8 = 10;
    /// Close the zone.
    pub const UBLK_IO_OP_ZONE_CLOSE: u8 = 11;
    /// Make the zone full.
    pub const UBLK_IO_OP_ZONE_FINISH: u8 = 12;
    /// Write at the zone's write pointer and tell where: see
    /// [`with_zone_append_lba`](crate::ublksrv_io_cmd::with_zone_append_lba).
    pub const UBLK_IO_OP_ZONE_APPEND: u8 = 13;
    /// Empty all zones.
    pub const UBLK_IO_OP_ZONE_RESET_ALL: u8 = 14;
    /// Empty the zone.
    pub const UBLK_IO_OP_ZONE_RESET: u8 = 15;
    /// Describe zones, from the one that begins at `start_sector`, at most
    /// [`nr_zones`](ublksrv_io_desc::nr_zones), as an array of [`blk_zone`](crate::blk_zone) in the
    /// request's buffer. A zeroed last entry ends a shorter report.
    pub const UBLK_IO_OP_REPORT_ZONES: u8 = 18;

    /// Do not retry after an error of the device. Hints about retries may be ignored.
    ///
    /// All `UBLK_IO_F_*` are bits of the **whole** `op_flags`: test
    /// `op_flags & UBLK_IO_F_FUA != 0`. C's `ublksrv_get_flags` shifts `op_flags` right by 8, so
    /// none of them matches its result; several servers lost FUA that way.
    pub const UBLK_IO_F_FAILFAST_DEV: u32 = 1 << 8;
    /// Do not retry after an error of the transport.
    pub const UBLK_IO_F_FAILFAST_TRANSPORT: u32 = 1 << 9;
    /// Do not retry after an error of the driver.
    pub const UBLK_IO_F_FAILFAST_DRIVER: u32 = 1 << 10;
    /// File system metadata: a hint.
    pub const UBLK_IO_F_META: u32 = 1 << 11;
    /// This write must be durable when it is committed. Comes only with
    /// [`UBLK_ATTR_FUA`](crate::UBLK_ATTR_FUA).
    pub const UBLK_IO_F_FUA: u32 = 1 << 13;
    /// WRITE_ZEROES must keep the range allocated.
    pub const UBLK_IO_F_NOUNMAP: u32 = 1 << 15;
    /// Swap: a hint.
    pub const UBLK_IO_F_SWAP: u32 = 1 << 16;
    /// Automatic registration failed and
    /// [`UBLK_AUTO_BUF_REG_FALLBACK`](crate::UBLK_AUTO_BUF_REG_FALLBACK) was given: the server
    /// must register the buffer itself. Since 6.16.
    pub const UBLK_IO_F_NEED_REG_BUF: u32 = 1 << 17;
    /// The request has integrity data. Since 7.0.
    pub const UBLK_IO_F_INTEGRITY: u32 = 1 << 18;
    /// The data lies in registered shared memory; [`addr`](ublksrv_io_desc::addr) says where
    /// ([`ublk_shmem_zc_index`](crate::ublk_shmem_zc_index)). Since 7.1.
    pub const UBLK_IO_F_SHMEM_ZC: u32 = 1 << 19;
}

/// One request, in the slot of its tag.
///
/// The driver rewrites the slot as soon as the tag's commit is submitted: copy it out first.
/// Slots are [`io_desc_size`](crate::ublksrv_ctrl_dev_info::io_desc_size) bytes apart, which can be
/// more than this struct.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub struct ublksrv_io_desc {
    /// The operation in the low 8 bits ([`op`]), `UBLK_IO_F_*` in the bits above, unshifted.
    pub op_flags: u32,
    /// Length in sectors; for zone reports the number of zones, which C calls `nr_zones`
    /// ([`nr_zones`](Self::nr_zones)).
    pub nr_sectors: u32,
    /// Where it begins, in sectors.
    pub start_sector: u64,
    /// Copy mode: address of the tag's buffer, as given with the fetch. With
    /// [`UBLK_IO_F_SHMEM_ZC`]: place in shared memory. Else 0.
    pub addr: u64,
}

layout!(ublksrv_io_desc, size 24, padding 0, {
    op_flags: 0, nr_sectors: 4, start_sector: 8, addr: 16,
} also { nr_zones: nr_sectors });

impl ublksrv_io_desc {
    /// Most zones wanted: C's name for [`nr_sectors`](Self::nr_sectors) in a
    /// [`UBLK_IO_OP_REPORT_ZONES`].
    #[inline]
    pub const fn nr_zones(&self) -> u32 {
        self.nr_sectors
    }
}

/// The operation, one of `UBLK_IO_OP_*`: the low 8 bits of `op_flags`.
///
/// There is no counterpart for the flags: `UBLK_IO_F_*` are tested on `op_flags` itself.
#[inline]
pub const fn op(op_flags: u32) -> u8 {
    op_flags.to_le_bytes()[0]
}

/// The header's `ublksrv_get_op`: [`op`] of a descriptor.
#[inline]
pub const fn ublksrv_get_op(iod: &ublksrv_io_desc) -> u8 {
    op(iod.op_flags)
}

/// The header's `ublksrv_get_flags`: `op_flags >> 8`.
///
/// Here for completeness. No `UBLK_IO_F_*` can be tested on its result, because those are bits of
/// `op_flags` before the shift.
#[deprecated(note = "UBLK_IO_F_* never match its result: test them on op_flags")]
#[inline]
pub const fn ublksrv_get_flags(iod: &ublksrv_io_desc) -> u32 {
    iod.op_flags >> 8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the driver writes for a FUA write: REQ_OP_WRITE is 1, and it maps REQ_FUA to bit 13.
    const FUA_WRITE: u32 = 0x0000_2001;
    /// WRITE_ZEROES with NOUNMAP: operation 5, bit 15.
    const ZERO_KEEPING_SPACE: u32 = 0x0000_8005;

    #[test]
    fn flags_are_found_in_unshifted_op_flags() {
        assert_eq!(op(FUA_WRITE), UBLK_IO_OP_WRITE);
        assert_ne!(FUA_WRITE & UBLK_IO_F_FUA, 0);
        assert_eq!(FUA_WRITE & UBLK_IO_F_NOUNMAP, 0);

        assert_eq!(op(ZERO_KEEPING_SPACE), UBLK_IO_OP_WRITE_ZEROES);
        assert_ne!(ZERO_KEEPING_SPACE & UBLK_IO_F_NOUNMAP, 0);
        assert_eq!(ZERO_KEEPING_SPACE & UBLK_IO_F_FUA, 0);
    }

    #[test]
    #[allow(deprecated)] // The point is what the header's helper does.
    fn flags_are_not_found_in_the_result_of_the_header_s_helper() {
        let write = ublksrv_io_desc { op_flags: FUA_WRITE, ..Default::default() };
        assert_eq!(ublksrv_get_op(&write), UBLK_IO_OP_WRITE);
        assert_eq!(ublksrv_get_flags(&write) & UBLK_IO_F_FUA, 0);
    }

    #[test]
    fn no_flag_reaches_into_the_operation() {
        for (name, value) in CONSTANTS.iter().filter(|(name, _)| name.starts_with("UBLK_IO_F_")) {
            assert_eq!(value & 0xff, 0, "{name}");
        }
    }
}
