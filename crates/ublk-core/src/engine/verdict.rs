//! What the result of a step means.
//!
//! The kernel takes a short positive result for the whole request (trap 1), so a step is only
//! ever complete or failed; what is in between goes on where it stopped.

use super::flight::Progress;
use crate::targets::{Step, StepKind};

/// How often a step may be interrupted before that counts as an error.
const MAX_INTERRUPTIONS: u8 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Complete,
    /// Complete, if the file reaches as far as the step.
    CompleteInside,
    /// Complete, if the file has lost nothing of what was written to it.
    CompleteDurably,
    /// A read has met the end of its file.
    Ended,
    /// Go on as `Progress` says now.
    Continue,
    /// With this positive errno.
    Failed(i32),
}

/// `block` is what offsets into the backend must be multiples of, should it be open for direct
/// I/O: a continuation starts there, and does up to a block again.
#[inline]
pub(super) fn judge(step: &Step, progress: &mut Progress, result: i32, block: u32) -> Verdict {
    let Ok(result) = u32::try_from(result) else {
        return interrupted_or_failed(step.kind, progress, -result);
    };
    let is_short = progress.from + result < step.length;
    match step.kind {
        _ if is_short && step.is_whole() => continue_whole(progress, result),
        StepKind::Read | StepKind::Write { .. } | StepKind::Zeros if is_short => {
            continue_short(step, progress, result, block)
        }
        kind if kind.syncs() => Verdict::CompleteDurably,
        // Of a block device the kernel changes what there is of the range, and answers success.
        StepKind::PunchHole | StepKind::ZeroRange => Verdict::CompleteInside,
        _ => Verdict::Complete,
    }
}

#[cold]
fn interrupted_or_failed(kind: StepKind, progress: &mut Progress, errno: i32) -> Verdict {
    match errno {
        // The time that a wait asked for has passed.
        libc::ETIME if kind == StepKind::Wait => Verdict::Complete,
        // What interrupts a sync may hide what it would have reported.
        libc::EINTR | libc::EAGAIN
            if progress.interruptions < MAX_INTERRUPTIONS && kind != StepKind::Sync =>
        {
            progress.interruptions += 1;
            Verdict::Continue
        }
        errno => Verdict::Failed(errno),
    }
}

/// What is not the request's own bytes ends nowhere before its length.
#[cold]
fn continue_whole(progress: &mut Progress, result: u32) -> Verdict {
    progress.from += result;
    if result == 0 { Verdict::Failed(libc::EIO) } else { Verdict::Continue }
}

#[cold]
fn continue_short(step: &Step, progress: &mut Progress, result: u32, block: u32) -> Verdict {
    let reached = progress.from + result;
    if reached > progress.done {
        progress.done = reached;
        let any = progress.zeroing || step.kind == StepKind::Zeros;
        progress.from = if any { reached } else { reached & !(block - 1) };
        return Verdict::Continue;
    }
    // The same end as last time, or nothing at all: a read has met the end of the file.
    let ended = result == 0 || reached == progress.done;
    match step.kind {
        StepKind::Read if ended && !progress.zeroing => Verdict::Ended,
        // Less than last time: such a backend is asked again, but not for ever.
        StepKind::Read | StepKind::Write { .. } | StepKind::Zeros if !ended => {
            interrupted_or_failed(step.kind, progress, libc::EINTR)
        }
        _ => Verdict::Failed(libc::EIO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::Place;

    const READ: Step = Step { kind: StepKind::Read, length: 8192, offset: 4096, ..Step::EMPTY };

    fn run(step: &Step, results: &[i32]) -> (Verdict, Progress) {
        let mut progress = Progress::default();
        let mut verdict = Verdict::Complete;
        for &result in results {
            verdict = judge(step, &mut progress, result, 512);
        }
        (verdict, progress)
    }

    #[test]
    fn a_full_result_is_complete() {
        assert_eq!(run(&READ, &[8192]).0, Verdict::Complete);
    }

    #[test]
    fn a_short_result_goes_on_at_the_block_where_it_stopped() {
        let (verdict, progress) = run(&READ, &[5000]);
        assert_eq!(verdict, Verdict::Continue);
        assert_eq!((progress.from, progress.done), (4608, 5000));
        assert_eq!(run(&READ, &[5000, 8192 - 4608]).0, Verdict::Complete);
    }

    #[test]
    fn a_read_has_met_the_end_of_its_file_where_it_stops_a_second_time() {
        let (verdict, progress) = run(&READ, &[5000, 392]);
        assert_eq!((verdict, progress.done), (Verdict::Ended, 5000));
        assert_eq!(run(&READ, &[0]).0, Verdict::Ended);
    }

    #[test]
    fn a_range_is_zeroed_as_far_as_the_file_reaches() {
        for kind in [StepKind::PunchHole, StepKind::ZeroRange] {
            assert_eq!(run(&Step { kind, ..READ }, &[0]).0, Verdict::CompleteInside);
        }
    }

    #[test]
    fn a_read_that_does_less_than_before_has_not_met_the_end() {
        let (verdict, progress) = run(&READ, &[5000, 100]);
        assert_eq!(verdict, Verdict::Continue);
        assert!(!progress.zeroing);
        assert_eq!(run(&READ, &[5000, 100, 8192 - 4608]).0, Verdict::Complete);
        let mut erratic = vec![5000];
        erratic.extend([100; 65]);
        assert_eq!(run(&READ, &erratic).0, Verdict::Failed(libc::EINTR));
    }

    #[test]
    fn a_write_that_stores_nothing_fails() {
        let write = Step { kind: StepKind::Write { dsync: false }, ..READ };
        assert_eq!(run(&write, &[4096, 0]).0, Verdict::Failed(libc::EIO));
    }

    #[test]
    fn interruptions_are_bounded() {
        assert_eq!(run(&READ, &[-libc::EINTR]).0, Verdict::Continue);
        assert_eq!(run(&READ, &[-libc::EAGAIN; 65]).0, Verdict::Failed(libc::EAGAIN));
    }

    #[test]
    fn metadata_goes_on_where_it_stopped_and_never_ends_early() {
        let metadata = Step { place: Place::Metadata, length: 64, ..READ };
        let (verdict, progress) = run(&metadata, &[40]);
        assert_eq!((verdict, progress.from), (Verdict::Continue, 40));
        assert_eq!(run(&metadata, &[40, 24]).0, Verdict::Complete);
        assert_eq!(run(&metadata, &[40, 0]).0, Verdict::Failed(libc::EIO));
    }

    #[test]
    fn a_wait_ends_when_its_time_is_up() {
        let wait = Step { kind: StepKind::Wait, ..READ };
        assert_eq!(run(&wait, &[-libc::ETIME]).0, Verdict::Complete);
        assert_eq!(run(&wait, &[-libc::ECANCELED]).0, Verdict::Failed(libc::ECANCELED));
        assert_eq!(run(&READ, &[-libc::ETIME]).0, Verdict::Failed(libc::ETIME));
    }

    #[test]
    fn a_source_of_zeros_that_has_none_fails() {
        let mut progress = Progress { zeroing: true, ..Progress::default() };
        assert_eq!(judge(&READ, &mut progress, 0, 512), Verdict::Failed(libc::EIO));
    }
}
