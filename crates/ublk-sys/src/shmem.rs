//! Memory shared by clients and server: [`UBLK_F_SHMEM_ZC`](crate::UBLK_F_SHMEM_ZC). Since 7.1.

constants! {
    /// The memory is mapped read-only (a write-sealed memfd, say); only writes of the client match.
    pub const UBLK_SHMEM_BUF_READ_ONLY: u32 = 1 << 0;

    /// [`ublksrv_io_desc::addr`](crate::ublksrv_io_desc::addr): mask of the byte offset.
    pub const UBLK_SHMEM_ZC_OFF_MASK: u64 = 0xffff_ffff;
    /// [`ublksrv_io_desc::addr`](crate::ublksrv_io_desc::addr): lowest bit of the buffer's index.
    pub const UBLK_SHMEM_ZC_IDX_OFF: u32 = 32;
    /// [`ublksrv_io_desc::addr`](crate::ublksrv_io_desc::addr): mask of the buffer's index, after
    /// the shift.
    pub const UBLK_SHMEM_ZC_IDX_MASK: u64 = 0xffff;
}

/// Memory to register with [`UBLK_U_CMD_REG_BUF`](crate::UBLK_U_CMD_REG_BUF).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub struct ublk_shmem_buf_reg {
    /// Address in the caller's memory, at a page boundary.
    pub addr: u64,
    /// Bytes: whole pages, at most 4 GiB.
    pub len: u64,
    /// [`UBLK_SHMEM_BUF_READ_ONLY`] or 0.
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}

layout!(ublk_shmem_buf_reg, size 24, padding 0, { addr: 0, len: 8, flags: 16, reserved: 20 });

/// The driver's `addr` for byte `offset` of the shared buffer `index`.
#[inline]
pub const fn ublk_shmem_zc_addr(index: u16, offset: u32) -> u64 {
    (index as u64) << UBLK_SHMEM_ZC_IDX_OFF | offset as u64
}

/// The index of the shared buffer in the driver's `addr`.
#[inline]
#[allow(clippy::cast_possible_truncation)] // Masked to the 16 bits of the index.
pub const fn ublk_shmem_zc_index(addr: u64) -> u16 {
    (addr >> UBLK_SHMEM_ZC_IDX_OFF & UBLK_SHMEM_ZC_IDX_MASK) as u16
}

/// The byte offset in the driver's `addr`.
#[inline]
#[allow(clippy::cast_possible_truncation)] // Masked to the 32 bits of the offset.
pub const fn ublk_shmem_zc_offset(addr: u64) -> u32 {
    (addr & UBLK_SHMEM_ZC_OFF_MASK) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_shared_memory_survives_the_way_through_addr() {
        let addr = ublk_shmem_zc_addr(0xbeef, 0xdead_f00d);
        assert_eq!(addr, 0x0000_beef_dead_f00d);
        assert_eq!(ublk_shmem_zc_index(addr), 0xbeef);
        assert_eq!(ublk_shmem_zc_offset(addr), 0xdead_f00d);
    }
}
