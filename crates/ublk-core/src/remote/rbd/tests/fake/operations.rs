//! Operations on an image, and their completions.

use std::ffi::{c_char, c_int, c_void};
use std::slice;

use super::{Did, Pending, of};
use crate::remote::rbd::api::{self, Callback, Completion};

pub(super) unsafe extern "C" fn completion(
    argument: *mut c_void,
    callback: Option<Callback>,
    to: *mut Completion,
) -> c_int {
    let pending = Pending { callback: callback.unwrap(), argument, result: 0 };
    // SAFETY: a place of our caller.
    unsafe { *to = Box::into_raw(Box::new(pending)).cast() };
    0
}

pub(super) unsafe extern "C" fn value(completion: Completion) -> isize {
    // SAFETY: a completion not released yet.
    isize::try_from(unsafe { (*completion.cast::<Pending>()).result }).unwrap()
}

pub(super) unsafe extern "C" fn release(completion: Completion) {
    // SAFETY: a completion, for the last time.
    drop(unsafe { Box::from_raw(completion.cast::<Pending>()) });
}

fn range(offset: u64, length: usize) -> std::ops::Range<usize> {
    let begin = usize::try_from(offset).unwrap();
    begin..begin + length
}

pub(super) unsafe extern "C" fn read(
    image: api::Image,
    offset: u64,
    length: usize,
    to: *mut c_char,
    completion: Completion,
) -> c_int {
    // SAFETY: our handle, a buffer of our caller.
    let (fake, to) = unsafe { (of(image), slice::from_raw_parts_mut(to.cast::<u8>(), length)) };
    fake.carry_out(Did::Read, completion, |disk| {
        to.copy_from_slice(&disk[range(offset, length)]);
        i64::try_from(length).unwrap()
    })
}

pub(super) unsafe extern "C" fn write(
    image: api::Image,
    offset: u64,
    length: usize,
    from: *const c_char,
    completion: Completion,
) -> c_int {
    // SAFETY: our handle, a buffer of our caller.
    let (fake, from) = unsafe { (of(image), slice::from_raw_parts(from.cast::<u8>(), length)) };
    fake.carry_out(Did::Write, completion, |disk| {
        disk[range(offset, length)].copy_from_slice(from);
        0
    })
}

pub(super) unsafe extern "C" fn discard(
    image: api::Image,
    _offset: u64,
    _length: u64,
    completion: Completion,
) -> c_int {
    // SAFETY: our handle.
    unsafe { of(image) }.carry_out(Did::Discard, completion, |_| 0)
}

pub(super) unsafe extern "C" fn zeroes(
    image: api::Image,
    offset: u64,
    length: usize,
    completion: Completion,
    flags: c_int,
    _op_flags: c_int,
) -> c_int {
    // SAFETY: our handle.
    unsafe { of(image) }.carry_out(Did::Zeroes(flags), completion, |disk| {
        disk[range(offset, length)].fill(0);
        0
    })
}

pub(super) unsafe extern "C" fn flush(image: api::Image, completion: Completion) -> c_int {
    // SAFETY: our handle.
    unsafe { of(image) }.carry_out(Did::Flush, completion, |_| 0)
}
