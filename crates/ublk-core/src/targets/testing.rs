//! What tests of targets share.

use super::file::File;
use super::native::Native;
use super::{Ended, Errno, Geometry, Next, Op, Plan, Request, RequestFlags, Step, Target};

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

/// The rounds of a request whose steps all end well, and that never waits.
pub(super) fn rounds(target: &impl Target, request: &Request) -> Result<Vec<Vec<Step>>, Errno> {
    let mut steps = vec![Step::EMPTY; target.max_steps()];
    let mut plan = Plan::new(&mut steps);
    target.plan(request, &mut plan)?;
    let mut rounds = vec![plan.steps().to_vec()];
    let mut ticket = plan.ticket();
    while let Some(asked) = ticket {
        let round = u16::try_from(rounds.len() - 1).unwrap();
        let mut plan = Plan::new(&mut steps);
        let ended = Ended { result: Ok(()), ticket: asked.number, round };
        let next = target.next(request, ended, &mut plan);
        assert!(!asked.last || next == Next::Done, "after the last round");
        match next {
            Next::Round => {
                assert!(plan.steps().is_sorted_by_key(|step| step.stage));
                rounds.push(plan.steps().to_vec());
                ticket = plan.ticket();
            }
            Next::Done => ticket = None,
            Next::Fail(errno) => return Err(errno),
            Next::Park(_) => panic!("nobody is waited for"),
        }
    }
    Ok(rounds)
}

/// The pieces of the request's range, in its order: file, offset there, place in the buffer, length.
pub(super) fn pieces(target: &impl Target, op: Op, offset: u64, length: u32) -> Vec<Piece> {
    let steps = plan(target, &request(op, offset, length)).unwrap();
    steps.iter().map(|step| (step.file, step.offset, step.at, step.length)).collect()
}

pub(super) type Piece = (u16, u64, u32, u32);
