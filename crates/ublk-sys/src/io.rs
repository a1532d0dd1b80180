//! I/O commands: `/dev/ublkcN`, `IORING_OP_URING_CMD`, [`ublksrv_io_cmd`] in the 16 bytes of
//! `sqe->cmd`. For the batch commands see [`ublk_batch_io`](crate::ublk_batch_io).

use crate::ioctl::iowr;

const fn io(number: u8) -> u32 {
    iowr::<ublksrv_io_cmd>(b'u', number)
}

constants! {
    /// Legacy number of [`UBLK_U_IO_FETCH_REQ`]. Since 6.0.
    pub const UBLK_IO_FETCH_REQ: u8 = 0x20;
    /// Legacy number of [`UBLK_U_IO_COMMIT_AND_FETCH_REQ`]. Since 6.0.
    pub const UBLK_IO_COMMIT_AND_FETCH_REQ: u8 = 0x21;
    /// Legacy number of [`UBLK_U_IO_NEED_GET_DATA`]. Since 6.0.
    pub const UBLK_IO_NEED_GET_DATA: u8 = 0x22;

    /// Arms a tag for the first time; completes when the tag has a request. All tags of all queues
    /// must be armed before START_DEV returns. Since 6.4 (legacy number 6.0).
    pub const UBLK_U_IO_FETCH_REQ: u32 = io(UBLK_IO_FETCH_REQ);
    /// Answers the tag's request with `result` and arms the tag again. A positive result below the
    /// length counts as full success in every mode but copy mode's reads. Since 6.4 (legacy
    /// number 6.0).
    pub const UBLK_U_IO_COMMIT_AND_FETCH_REQ: u32 = io(UBLK_IO_COMMIT_AND_FETCH_REQ);
    /// Gives the buffer for a write announced with [`UBLK_IO_RES_NEED_GET_DATA`]; completes when
    /// the data is in it. With [`UBLK_F_NEED_GET_DATA`](crate::UBLK_F_NEED_GET_DATA) only. Since
    /// 6.4 (legacy number 6.0).
    pub const UBLK_U_IO_NEED_GET_DATA: u32 = io(UBLK_IO_NEED_GET_DATA);
    /// Puts the request's pages into slot `addr` of the ring's buffer table. `EBUSY`: the slot is
    /// taken. `EINVAL`: beyond the table, or the request has no data. Since 6.15.
    pub const UBLK_U_IO_REGISTER_IO_BUF: u32 = io(0x23);
    /// Empties slot `addr` of the ring's buffer table. Any request's buffer in that slot: since
    /// 6.17 queue and tag are not looked at. Since 6.15.
    pub const UBLK_U_IO_UNREGISTER_IO_BUF: u32 = io(0x24);

    /// Completion of a fetch: the tag has a request.
    pub const UBLK_IO_RES_OK: i32 = 0;
    /// Completion of a fetch: the tag has a write whose data is still to be asked for.
    pub const UBLK_IO_RES_NEED_GET_DATA: i32 = 1;
    /// Completion of a fetch, `-ENODEV`: the device stops or is quiesced; do not fetch again.
    pub const UBLK_IO_RES_ABORT: i32 = -19;

    /// Largest number of tags of a queue.
    pub const UBLK_MAX_QUEUE_DEPTH: u16 = 4096;
}

/// The argument of the I/O commands for one tag, in `sqe->cmd`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub struct ublksrv_io_cmd {
    /// The queue.
    pub q_id: u16,
    /// The tag in that queue.
    pub tag: u16,
    /// Commit only: bytes done, or a negative errno. For zone reports: bytes of `blk_zone`s.
    pub result: i32,
    /// What it is depends on the command and the device:
    ///
    /// * FETCH, COMMIT_AND_FETCH, NEED_GET_DATA in copy mode: address of the tag's buffer.
    /// * The same with zero copy, user copy or [`UBLK_F_AUTO_BUF_REG`](crate::UBLK_F_AUTO_BUF_REG):
    ///   0 (automatic registration reads `sqe->addr` instead).
    /// * COMMIT_AND_FETCH of a zone append: the sector written to, which C calls
    ///   `zone_append_lba` ([`with_zone_append_lba`](Self::with_zone_append_lba)).
    /// * REGISTER_IO_BUF, UNREGISTER_IO_BUF: index in the ring's buffer table.
    pub addr: u64,
}

layout!(ublksrv_io_cmd, size 16, padding 0, { q_id: 0, tag: 2, result: 4, addr: 8 }
    also { zone_append_lba: addr });
to_bytes!(ublksrv_io_cmd);

impl ublksrv_io_cmd {
    /// The sector where a zone append landed: C's name for [`addr`](Self::addr) in the commit of a
    /// [`UBLK_IO_OP_ZONE_APPEND`](crate::UBLK_IO_OP_ZONE_APPEND).
    #[inline]
    pub const fn zone_append_lba(&self) -> u64 {
        self.addr
    }

    /// The command with the sector where a zone append landed.
    #[inline]
    #[must_use]
    pub const fn with_zone_append_lba(self, sector: u64) -> Self {
        Self { addr: sector, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_io_command_is_sixteen_bytes_in_the_order_of_the_header() {
        let cmd = ublksrv_io_cmd { q_id: 0x0102, tag: 0x0304, result: -5, addr: 0 };
        let bytes = cmd.with_zone_append_lba(0x55).to_bytes();
        assert_eq!(bytes[..2], 0x0102_u16.to_ne_bytes());
        assert_eq!(bytes[2..4], 0x0304_u16.to_ne_bytes());
        assert_eq!(bytes[4..8], (-5_i32).to_ne_bytes());
        assert_eq!(bytes[8..], 0x55_u64.to_ne_bytes());
    }
}
