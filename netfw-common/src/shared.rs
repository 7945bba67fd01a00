//! Structs that live in maps, and the proof that they hold no padding.

/// A struct that the kernel and user space read byte by byte.
///
/// Implemented only by the macro `shared!`, which refuses at compile time any struct whose fields
/// don't fill it: padding bytes are garbage in a map key (the look-up misses) and leak memory in a value.
/// All fields are plain integers, so every bit pattern is a valid value.
pub trait Shared: Copy + 'static + sealed::Sealed {
    /// Names and offsets of the fields, in the order in which they are listed; none for what has none.
    const FIELDS: &'static [(&'static str, usize)] = &[];
}

#[doc(hidden)]
pub mod sealed {
    pub trait Sealed {}

    /// Size of the field that an accessor selects.
    pub const fn field_size<T, F>(_: fn(&T) -> &F) -> usize {
        size_of::<F>()
    }
}

/// Marks structs as [`Shared`] after checking that their fields leave no gap.
macro_rules! shared {
    ($($type:ty { $($field:ident),+ $(,)? })+) => {$(
        const _: () = {
            let fields = 0 $(+ $crate::shared::sealed::field_size(|value: &$type| &value.$field))+;
            assert!(size_of::<$type>() == fields, "padding in a struct shared with the kernel");
        };
        impl $crate::shared::sealed::Sealed for $type {}
        impl $crate::shared::Shared for $type {
            const FIELDS: &'static [(&'static str, usize)] =
                &[$((stringify!($field), core::mem::offset_of!($type, $field))),+];
        }
    )+};
}
pub(crate) use shared;

impl sealed::Sealed for u32 {}
impl Shared for u32 {}
impl sealed::Sealed for u64 {}
impl Shared for u64 {}
impl<const N: usize> sealed::Sealed for [u32; N] {}
impl<const N: usize> Shared for [u32; N] {}
impl<const N: usize> sealed::Sealed for [u8; N] {}
impl<const N: usize> Shared for [u8; N] {}
