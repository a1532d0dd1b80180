//! `linux/ioctl.h`: how a command number carries its direction and the size of its argument.

// Generic architectures have 14 bits of size and 2 of direction; a few old ones 13 and 3.
#[cfg(not(any(
    target_arch = "powerpc",
    target_arch = "powerpc64",
    target_arch = "mips",
    target_arch = "mips64",
    target_arch = "sparc",
    target_arch = "sparc64",
)))]
mod arch {
    pub(super) const SIZE_BITS: u32 = 14;
    pub(super) const NONE: u32 = 0;
    pub(super) const WRITE: u32 = 1;
    pub(super) const READ: u32 = 2;
}
#[cfg(any(
    target_arch = "powerpc",
    target_arch = "powerpc64",
    target_arch = "mips",
    target_arch = "mips64",
    target_arch = "sparc",
    target_arch = "sparc64",
))]
mod arch {
    pub(super) const SIZE_BITS: u32 = 13;
    pub(super) const NONE: u32 = 1;
    pub(super) const READ: u32 = 2;
    pub(super) const WRITE: u32 = 4;
}

const TYPE_SHIFT: u32 = 8;
const SIZE_SHIFT: u32 = 16;
const DIRECTION_SHIFT: u32 = SIZE_SHIFT + arch::SIZE_BITS;

/// `_IO(kind, number)`: no argument.
pub(crate) const fn io(kind: u8, number: u8) -> u32 {
    encode(arch::NONE, kind, number, 0)
}

/// `_IOR(kind, number, T)`: the kernel answers in the argument.
pub(crate) const fn ior<T>(kind: u8, number: u8) -> u32 {
    encode(arch::READ, kind, number, size_of::<T>())
}

/// `_IOWR(kind, number, T)`: the kernel reads the argument, and may answer in it.
pub(crate) const fn iowr<T>(kind: u8, number: u8) -> u32 {
    encode(arch::READ | arch::WRITE, kind, number, size_of::<T>())
}

const fn encode(direction: u32, kind: u8, number: u8, size: usize) -> u32 {
    assert!(size < 1 << arch::SIZE_BITS);
    // The assertion above leaves nothing to truncate.
    #[allow(clippy::cast_possible_truncation)]
    let size = size as u32;
    direction << DIRECTION_SHIFT | size << SIZE_SHIFT | (kind as u32) << TYPE_SHIFT | number as u32
}
