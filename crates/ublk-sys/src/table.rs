//! What this crate defines, as data: for `tests/header.rs`, not for users.

use crate::*;

/// The layout of a struct.
#[derive(Debug)]
pub struct Layout {
    /// The kernel's name, without `struct`.
    pub name: &'static str,
    /// In bytes.
    pub size: usize,
    /// Every field, in order.
    pub fields: &'static [Field],
    /// Names that a C union gives to a field besides ours: (other name, our name).
    pub aliases: &'static [(&'static str, &'static str)],
}

/// One field of a [`Layout`].
#[derive(Debug)]
pub struct Field {
    /// The kernel's name.
    pub name: &'static str,
    /// In bytes from the start of the struct.
    pub offset: usize,
    /// In bytes.
    pub size: usize,
}

impl Layout {
    /// Bytes of the struct that belong to no listed field.
    pub const fn padding(&self) -> usize {
        let mut rest = self.size;
        let mut i = 0;
        while i < self.fields.len() {
            rest -= self.fields[i].size;
            i += 1;
        }
        rest
    }
}

/// A struct whose layout is stated.
pub trait Described {
    /// The stated layout.
    const LAYOUT: Layout;
}

/// The size of a field, by a function that picks it.
pub(crate) const fn field_size<S, F>(_pick: fn(&S) -> &F) -> usize {
    size_of::<F>()
}

/// Every constant, by module.
pub const CONSTANTS: &[&[(&str, i64)]] = &[
    auto_buf_reg::CONSTANTS,
    batch::CONSTANTS,
    control::CONSTANTS,
    features::CONSTANTS,
    integrity::CONSTANTS,
    io::CONSTANTS,
    io_buf::CONSTANTS,
    io_desc::CONSTANTS,
    params::CONSTANTS,
    shmem::CONSTANTS,
    uring_cmd::CONSTANTS,
    zoned::CONSTANTS,
];

/// Every struct.
pub const STRUCTS: &[Layout] = &[
    blk_zone::LAYOUT,
    ublk_auto_buf_reg::LAYOUT,
    ublk_batch_io::LAYOUT,
    ublk_elem_header::LAYOUT,
    ublk_param_basic::LAYOUT,
    ublk_param_devt::LAYOUT,
    ublk_param_discard::LAYOUT,
    ublk_param_dma_align::LAYOUT,
    ublk_param_integrity::LAYOUT,
    ublk_param_segment::LAYOUT,
    ublk_param_zoned::LAYOUT,
    ublk_params::LAYOUT,
    ublk_shmem_buf_reg::LAYOUT,
    ublksrv_ctrl_cmd::LAYOUT,
    ublksrv_ctrl_dev_info::LAYOUT,
    ublksrv_io_cmd::LAYOUT,
    ublksrv_io_desc::LAYOUT,
];
