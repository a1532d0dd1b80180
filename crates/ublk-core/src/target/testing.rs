//! What tests of targets share.

use super::file::File;
use super::native::Native;
use super::{Errno, Geometry, Op, Plan, Request, RequestFlags, Step, Target};

/// A file of `size` bytes that is never opened.
pub(super) fn file(fd: i32, size: u64) -> Native {
    Native::File(File::borrowed(fd, Geometry::new(size)))
}

pub(super) fn request(op: Op, offset: u64, length: u32) -> Request {
    Request { op, flags: RequestFlags::default(), offset, length }
}

pub(super) fn plan(target: &impl Target, request: &Request) -> Result<Vec<Step>, Errno> {
    let mut steps = vec![Step::EMPTY; target.max_steps()];
    let mut plan = Plan::new(&mut steps);
    target.plan(request, &mut plan)?;
    assert!(plan.steps().is_sorted_by_key(|step| step.stage), "stages must not decrease");
    Ok(plan.steps().to_vec())
}

/// The pieces of the request's range, in its order: file, offset there, place in the buffer, length.
pub(super) fn pieces(target: &impl Target, op: Op, offset: u64, length: u32) -> Vec<Piece> {
    let steps = plan(target, &request(op, offset, length)).unwrap();
    steps.iter().map(|step| (step.file, step.offset, step.at, step.length)).collect()
}

pub(super) type Piece = (u16, u64, u32, u32);
