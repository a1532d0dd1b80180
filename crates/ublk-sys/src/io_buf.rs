//! Positions in `/dev/ublkcN`: the descriptors for `mmap`, the data for `pread` and `pwrite`.

use crate::UBLK_MAX_QUEUE_DEPTH;

constants! {
    /// Where the descriptors of queue 0 begin, for `mmap`: see [`cmd_buf_offset`].
    pub const UBLKSRV_CMD_BUF_OFFSET: u64 = 0;
    /// Where request data begins, for `pread` and `pwrite`: see [`user_copy_offset`]. Since 6.5.
    pub const UBLKSRV_IO_BUF_OFFSET: u64 = 0x8000_0000;

    /// Lowest bit of the offset into a request's data.
    pub const UBLK_IO_BUF_OFF: u32 = 0;
    /// Bits of the offset into a request's data: at most 32 MiB.
    pub const UBLK_IO_BUF_BITS: u32 = 25;
    /// Mask of that offset.
    pub const UBLK_IO_BUF_BITS_MASK: u64 = (1 << UBLK_IO_BUF_BITS) - 1;

    /// Lowest bit of the tag.
    pub const UBLK_TAG_OFF: u32 = UBLK_IO_BUF_BITS;
    /// Bits of the tag.
    pub const UBLK_TAG_BITS: u32 = 16;
    /// Mask of the tag, before it is shifted.
    pub const UBLK_TAG_BITS_MASK: u64 = (1 << UBLK_TAG_BITS) - 1;

    /// Lowest bit of the queue.
    pub const UBLK_QID_OFF: u32 = UBLK_TAG_OFF + UBLK_TAG_BITS;
    /// Bits of the queue.
    pub const UBLK_QID_BITS: u32 = 12;
    /// Mask of the queue, before it is shifted.
    pub const UBLK_QID_BITS_MASK: u64 = (1 << UBLK_QID_BITS) - 1;

    /// Largest number of queues of a device.
    pub const UBLK_MAX_NR_QUEUES: u16 = 1 << UBLK_QID_BITS;

    /// Bits that address all data of all requests of a device.
    pub const UBLKSRV_IO_BUF_TOTAL_BITS: u32 = UBLK_QID_OFF + UBLK_QID_BITS;
    /// Bytes from the first to the last of them.
    pub const UBLKSRV_IO_BUF_TOTAL_SIZE: u64 = 1 << UBLKSRV_IO_BUF_TOTAL_BITS;

    /// The bit of [`UBLKSRV_IO_INTEGRITY_FLAG`]. Since 7.0.
    pub const UBLK_INTEGRITY_FLAG_OFF: u32 = 62;
    /// Or'ed into a [`user_copy_offset`]: integrity data instead of the data. Since 7.0.
    pub const UBLKSRV_IO_INTEGRITY_FLAG: u64 = 1 << UBLK_INTEGRITY_FLAG_OFF;
}

/// Where `pread` and `pwrite` on `/dev/ublkcN` find byte `offset` of the request `tag` of queue
/// `q_id`. Since 6.5, with [`UBLK_F_USER_COPY`](crate::UBLK_F_USER_COPY).
///
/// `q_id` below [`UBLK_MAX_NR_QUEUES`] and `offset` below 32 MiB; higher bits are dropped.
#[inline]
pub const fn user_copy_offset(q_id: u16, tag: u16, offset: u32) -> u64 {
    UBLKSRV_IO_BUF_OFFSET
        + ((q_id as u64 & UBLK_QID_BITS_MASK) << UBLK_QID_OFF
            | (tag as u64) << UBLK_TAG_OFF
            | offset as u64 & UBLK_IO_BUF_BITS_MASK)
}

/// Length in bytes of the mapping of one queue's descriptors; `mmap` takes no other. It is
/// read-only (`EPERM` otherwise). `page_size` must be a power of two.
#[inline]
pub const fn cmd_buf_len(queue_depth: u16, io_desc_size: u16, page_size: usize) -> usize {
    (queue_depth as usize * io_desc_size as usize).next_multiple_of(page_size)
}

/// Offset for `mmap` of the descriptors of queue `q_id`. Queues lie apart as if each had
/// [`UBLK_MAX_QUEUE_DEPTH`] tags, whatever the depth is.
#[inline]
pub const fn cmd_buf_offset(q_id: u16, io_desc_size: u16, page_size: usize) -> u64 {
    let stride = cmd_buf_len(UBLK_MAX_QUEUE_DEPTH, io_desc_size, page_size);
    UBLKSRV_CMD_BUF_OFFSET + q_id as u64 * stride as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_copy_offsets_carry_queue_tag_and_offset_back_to_the_driver() {
        let position = user_copy_offset(4095, 65535, (32 << 20) - 1) - UBLKSRV_IO_BUF_OFFSET;
        assert_eq!(position >> UBLK_QID_OFF & UBLK_QID_BITS_MASK, 4095);
        assert_eq!(position >> UBLK_TAG_OFF & UBLK_TAG_BITS_MASK, 65535);
        assert_eq!(position & UBLK_IO_BUF_BITS_MASK, (32 << 20) - 1);
        assert_eq!(user_copy_offset(0, 1, 512), 0x8000_0000 + (1 << 25) + 512);
    }

    #[test]
    fn queues_are_mapped_at_strides_of_the_greatest_depth() {
        assert_eq!(cmd_buf_len(128, 24, 4096), 4096);
        assert_eq!(cmd_buf_offset(2, 24, 4096), 2 * 4096 * 24);
        assert_eq!(cmd_buf_offset(1, 24, 65536), 2 * 65536);
    }
}
