//! From librbd's threads to a session.
//!
//! librbd calls [`ended`] for each operation that has ended, on a thread of librbd. [`ended`] tells the session the
//! slot and the result.

use std::ffi::c_void;
use std::io;
use std::sync::Arc;

use super::api::{Api, Completion};
use crate::remote::ends::Ends;

/// The end of an operation: the slot, and what librbd returns.
pub(super) type End = (u16, i64);

#[derive(Debug)]
pub(super) struct Line {
    api: &'static Api,
    ends: Ends<End>,
    cells: Box<[Cell]>,
}

/// What librbd's function receives.
#[derive(Debug)]
struct Cell {
    line: *const Line,
    slot: u16,
}

// SAFETY: a cell's pointer is used only as `ended` says; all else is safe to share.
unsafe impl Send for Line {}
// SAFETY: as above.
unsafe impl Sync for Line {}

impl Line {
    /// A line for operations in the slots from 0 up to `slots`.
    pub(super) fn new(api: &'static Api, slots: u16) -> io::Result<Arc<Self>> {
        let ends = Ends::new(slots.into())?;
        Ok(Arc::new_cyclic(|this| {
            let cell = |slot| Cell { line: this.as_ptr(), slot };
            Self { api, ends, cells: (0..slots).map(cell).collect() }
        }))
    }

    pub(super) fn ends(&self) -> &Ends<End> {
        &self.ends
    }

    /// Makes a completion for an operation in the slot. The line stays until the operation has ended.
    ///
    /// # Errors
    /// A negative errno.
    pub(super) fn expect(self: &Arc<Self>, slot: u16) -> Result<Completion, i32> {
        let argument = (&raw const self.cells[usize::from(slot)]).cast_mut().cast();
        let mut completion = std::ptr::null_mut();
        // SAFETY: `ended` makes of the argument what it is.
        let made = unsafe {
            (self.api.rbd_aio_create_completion)(argument, Some(ended), &raw mut completion)
        };
        if made < 0 {
            return Err(made);
        }
        // Given back by `ended`, or by `forget`.
        let _kept = Arc::into_raw(Arc::clone(self));
        Ok(completion)
    }

    /// Takes a completion back whose operation has not begun.
    ///
    /// # Safety
    /// The completion is one of [`expect`](Self::expect), and librbd has refused the operation.
    pub(super) unsafe fn forget(self: &Arc<Self>, completion: Completion) {
        // SAFETY: librbd knows nothing of the completion, so the function is not called; the count is that of
        // `expect`.
        unsafe {
            (self.api.rbd_aio_release)(completion);
            Arc::decrement_strong_count(Arc::as_ptr(self));
        }
    }
}

/// Called by librbd, once per operation.
///
/// # Safety
/// `argument` is a cell of a line, with a count of the line from [`Line::expect`].
unsafe extern "C" fn ended(completion: Completion, argument: *mut c_void) {
    // SAFETY: the cell lives as long as the line, of which `expect` has kept a count.
    let (line, slot) = unsafe {
        let cell = &*argument.cast::<Cell>();
        (Arc::from_raw(cell.line), cell.slot)
    };
    // SAFETY: the operation has ended, and nothing uses the completion after this.
    let result = unsafe {
        let result = (line.api.rbd_aio_get_return_value)(completion);
        (line.api.rbd_aio_release)(completion);
        result
    };
    line.ends.tell((slot, result as i64));
}
