//! A ring for whoever comes.

use std::io;

use io_uring::squeue::Entry;

use crate::driver::sim::Sim;
use crate::driver::sim::uring::ring::SimRing;
use crate::driver::{Errands, Ring};

#[derive(Debug)]
pub(crate) struct SimErrands(SimRing);

impl SimErrands {
    pub(crate) fn new(sim: Sim) -> Self {
        Self(SimRing::common(sim))
    }
}

impl Errands for SimErrands {
    unsafe fn run(&mut self, entry: &Entry) -> io::Result<i32> {
        if self.0.space() == 0 {
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
        // SAFETY: passed on to our caller.
        unsafe { self.0.push(entry) };
        self.0.submit()?;
        if self.0.ready() == 0 {
            self.0.submit_and_wait(1)?;
        }
        let completion = self.0.pop().ok_or_else(|| io::Error::from_raw_os_error(libc::EINTR))?;
        Ok(completion.result)
    }
}
