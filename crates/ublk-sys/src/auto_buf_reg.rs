//! Automatic registration of request buffers: see
//! [`UBLK_F_AUTO_BUF_REG`](crate::UBLK_F_AUTO_BUF_REG). Since 6.16.

constants! {
    /// When the slot cannot be used, deliver the request with
    /// [`UBLK_IO_F_NEED_REG_BUF`](crate::UBLK_IO_F_NEED_REG_BUF) instead of failing it behind the
    /// server's back. To register by hand then needs
    /// [`UBLK_F_SUPPORT_ZERO_COPY`](crate::UBLK_F_SUPPORT_ZERO_COPY) too.
    pub const UBLK_AUTO_BUF_REG_FALLBACK: u8 = 1 << 0;
    /// All flags of [`ublk_auto_buf_reg::flags`].
    pub const UBLK_AUTO_BUF_REG_F_MASK: u8 = UBLK_AUTO_BUF_REG_FALLBACK;
}

/// Where the buffer of the tag's next request goes; packed into `sqe->addr` of FETCH_REQ and
/// COMMIT_AND_FETCH_REQ with [`ublk_auto_buf_reg_to_sqe_addr`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub struct ublk_auto_buf_reg {
    /// Index in the buffer table of the ring that the command is issued on.
    pub index: u16,
    /// [`UBLK_AUTO_BUF_REG_FALLBACK`] or 0.
    pub flags: u8,
    /// Zero, else `EINVAL`.
    pub reserved0: u8,
    /// Zero, else `EINVAL`.
    pub reserved1: u32,
}

layout!(ublk_auto_buf_reg, size 8, padding 0, { index: 0, flags: 2, reserved0: 3, reserved1: 4 });

/// Unpacks `sqe->addr`.
#[inline]
#[allow(clippy::cast_possible_truncation)] // Takes the fields apart.
pub const fn ublk_sqe_addr_to_auto_buf_reg(sqe_addr: u64) -> ublk_auto_buf_reg {
    ublk_auto_buf_reg {
        index: sqe_addr as u16,
        flags: (sqe_addr >> 16) as u8,
        reserved0: (sqe_addr >> 24) as u8,
        reserved1: (sqe_addr >> 32) as u32,
    }
}

/// Packs a registration into `sqe->addr`.
#[inline]
pub const fn ublk_auto_buf_reg_to_sqe_addr(buf: &ublk_auto_buf_reg) -> u64 {
    buf.index as u64
        | (buf.flags as u64) << 16
        | (buf.reserved0 as u64) << 24
        | (buf.reserved1 as u64) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_survives_the_way_through_sqe_addr() {
        let reg = ublk_auto_buf_reg { index: 0xabcd, flags: 1, reserved0: 2, reserved1: 3 };
        let addr = ublk_auto_buf_reg_to_sqe_addr(&reg);
        assert_eq!(addr, 0x0000_0003_0201_abcd);
        assert_eq!(ublk_sqe_addr_to_auto_buf_reg(addr), reg);
    }
}
