//! The outcome of a step that has failed, or has met the end of the file.
//!
//! A plain file may be shorter than the device, since a user may truncate the file: bytes beyond
//! the end of the file read as zeros, like a hole, and a write there makes the file longer. The
//! kernel's loop driver does the same.
//!
//! After a failed sync, all later syncs of the file fail: see
//! [`Durability`](crate::targets::Durability).
//!
//! A block device is as long as the served device, or longer. A step meets the end of a block
//! device when the disk has been pulled (the kernel sets the capacity to 0) or has shrunk: the
//! bytes are lost, and requests for these bytes fail with `EIO`. The kernel itself answers reads
//! with 0 bytes, writes with `ENOSPC`, which a client takes for a full thin pool, and `fallocate`
//! with success for the rest of the range.

use std::io;

use super::Engine;
use super::verdict::Verdict;
use crate::driver::Ring;
use crate::pass::Pass;
use crate::targets::Target;
use crate::token::Token;

impl<T: Target> Engine<T> {
    /// Takes a verdict other than plain success or a plain continuation.
    #[cold]
    pub(super) fn step_met_an_end<R: Ring>(
        &mut self,
        pass: &mut Pass<'_, R>,
        token: Token,
        verdict: Verdict,
    ) -> io::Result<()> {
        let index = token.tag.index() * self.max_steps + usize::from(token.step);
        match self.at_the_end(pass, index, verdict) {
            Err(errno) => {
                let progress = &mut self.progress[index];
                (progress.errno, progress.ended) = (errno, true);
                let flight = &mut self.flights[token.tag.index()];
                flight.errno = if flight.errno == 0 { errno } else { flight.errno };
                Ok(())
            }
            Ok(()) if verdict == Verdict::Ended => {
                let progress = &mut self.progress[index];
                (progress.zeroing, progress.from) = (true, progress.done);
                self.continue_step(pass, token)
            }
            Ok(()) => {
                self.progress[index].ended = true;
                Ok(())
            }
        }
    }

    /// Ok: the step succeeds, or continues with zeros; otherwise the errno of the failure.
    fn at_the_end<R: Ring>(
        &self,
        pass: &Pass<'_, R>,
        index: usize,
        verdict: Verdict,
    ) -> Result<(), i32> {
        let (step, progress) = (&self.steps[index], &self.progress[index]);
        let (begin, end) =
            (step.offset + u64::from(progress.from), step.offset + u64::from(step.length));
        // A file added while the device is served is a plain file.
        let file = self.target.files().get(usize::from(step.file));
        let capacity = || file.and_then(|&file| pass.ring.capacity(file));
        match verdict {
            Verdict::Ended if capacity().is_some() => Err(libc::EIO),
            Verdict::CompleteInside if capacity().is_some_and(|capacity| end > capacity) => {
                Err(libc::EIO)
            }
            Verdict::CompleteDurably if self.target.durability().is_lost(step.file) => {
                Err(libc::EIO)
            }
            Verdict::Failed(errno) => {
                if step.kind.syncs() && has_begun(errno) {
                    self.target.durability().lose(step.file);
                }
                // Inside the device, `ENOSPC` means a full thin pool.
                let ended = errno == libc::ENOSPC && capacity().is_some_and(|size| begin >= size);
                Err(if ended { libc::EIO } else { errno })
            }
            _ => Ok(()),
        }
    }
}

/// Whether a step with this error may have synced: the kernel has found the buffer, and begun the
/// step.
fn has_begun(errno: i32) -> bool {
    !matches!(errno, libc::EFAULT | libc::ECANCELED)
}
