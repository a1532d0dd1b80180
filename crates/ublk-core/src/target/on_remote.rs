//! Requests as steps on a remote, for targets that are a remote and nothing else.

use super::{Errno, Op, REMOTE, Request, Step, StepKind};

/// The step on the first remote that does all of `request`.
pub(super) fn remote_step(request: &Request) -> Result<Step, Errno> {
    let kind = match request.op {
        Op::Read => StepKind::Read,
        Op::Write => StepKind::Write { dsync: request.flags.fua() },
        Op::Flush => StepKind::Sync,
        Op::Discard => StepKind::Discard,
        Op::WriteZeroes if request.flags.no_unmap() => StepKind::ZeroRange,
        Op::WriteZeroes => StepKind::PunchHole,
        Op::Zone(_) => return Err(Errno(libc::EOPNOTSUPP)),
    };
    let (length, offset) = (request.length, request.offset);
    Ok(Step { kind, file: REMOTE, length, offset, ..Step::EMPTY })
}
