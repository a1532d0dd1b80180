//! The userspace ABI of Linux's ublk driver: `linux/ublk_cmd.h` of Linux 7.3, with the few
//! definitions of other headers that it leans on.
//!
//! Everything keeps the kernel's name, so that the header, the driver and this crate can be read
//! side by side; nouns for people live in `ublk-core`. There is no code here that talks to a
//! kernel: structs, numbers, and the packing of one into the other.
//!
//! * Layouts are proved when the crate is compiled (`layout!` beside each struct), and compared
//!   with the kernel's own header by `tests/header.rs`.
//! * "Since" in the documentation is the first release in which mainline Linux has the item.
//!   It serves hints in error messages; what a kernel can do is asked with
//!   [`UBLK_U_CMD_GET_FEATURES`], never derived from its release.
//! * Sectors are 512 bytes, whatever the logical block size.
#![no_std]

#[macro_use]
mod macros;

mod auto_buf_reg;
mod batch;
mod control;
mod features;
mod integrity;
mod io;
mod io_buf;
mod io_desc;
mod ioctl;
mod params;
mod shmem;
#[doc(hidden)]
pub mod table;
mod uring_cmd;
mod zoned;

pub use auto_buf_reg::*;
pub use batch::*;
pub use control::*;
pub use features::*;
pub use integrity::*;
pub use io::*;
pub use io_buf::*;
pub use io_desc::*;
pub use params::*;
pub use shmem::*;
pub use uring_cmd::*;
pub use zoned::*;
