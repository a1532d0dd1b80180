//! Definitions that can be listed: `tests/header.rs` compares the lists with the kernel's header.

/// Defines constants and, as `CONSTANTS`, the table of their names and values.
macro_rules! constants {
    ($($(#[$meta:meta])* pub const $name:ident: $type:ty = $value:expr;)*) => {
        $($(#[$meta])* pub const $name: $type = $value;)*

        pub(crate) const CONSTANTS: &[(&str, i64)] = &[$((stringify!($name), $name as i64)),*];
    };
}

/// States the layout of a struct: its size, the implicit padding within that size, and the offset
/// of every field. Compilation fails where a statement is wrong or a field is missing.
///
/// `also` lists the other names a C union has for a field.
macro_rules! layout {
    (
        $name:ident, size $size:literal, padding $padding:literal,
        { $($field:ident: $offset:literal),* $(,)? }
        $(also { $($alias:ident: $of:ident),* $(,)? })?
    ) => {
        impl crate::table::Described for $name {
            const LAYOUT: crate::table::Layout = crate::table::Layout {
                name: stringify!($name),
                size: size_of::<$name>(),
                fields: &[$(crate::table::Field {
                    name: stringify!($field),
                    offset: core::mem::offset_of!($name, $field),
                    size: crate::table::field_size(|s: &$name| &s.$field),
                }),*],
                aliases: &[$($((stringify!($alias), stringify!($of))),*)?],
            };
        }

        const _: () = {
            let layout = <$name as crate::table::Described>::LAYOUT;
            assert!(layout.size == $size);
            assert!(layout.padding() == $padding);
            $(assert!(core::mem::offset_of!($name, $field) == $offset);)*
        };
    };
}

/// Gives structs without padding a `to_bytes`.
macro_rules! to_bytes {
    ($($name:ident),*) => {
        $(impl $name {
            /// The bytes of the struct as the kernel reads them, in the byte order of the machine.
            #[inline]
            pub const fn to_bytes(self) -> [u8; size_of::<Self>()] {
                const {
                    assert!(<$name as crate::table::Described>::LAYOUT.padding() == 0);
                }
                // SAFETY: the struct holds integers only and, as asserted above, no padding, so
                // each of its bytes is initialised; the sizes are equal by the return type.
                unsafe { core::mem::transmute(self) }
            }
        })*
    };
}
