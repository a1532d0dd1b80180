//! Runs the rounds of requests step by step, in an order that a caller chooses.

use super::super::super::testing::request;
use super::super::super::{
    Ended, Errno, Next, Op, Place, Plan, Request, Step, StepKind, Target, Ticket,
};
use super::super::Overlay;
use super::disk::{BLOCK, Cache};

/// A request under way, and its bytes.
pub(super) struct Running {
    pub(super) request: Request,
    pub(super) bytes: Vec<u8>,
    steps: Vec<Step>,
    ticket: u64,
    last: bool,
    round: u16,
    result: Result<(), Errno>,
}

/// What became of a request by a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Now {
    Runs,
    Parked,
    Ended(Result<(), Errno>),
}

impl Running {
    /// Plans a request of whole blocks; `bytes` are those of a write.
    pub(super) fn begin(
        overlay: &Overlay,
        op: Op,
        (block, count): (u64, u64),
        bytes: Vec<u8>,
    ) -> Result<Self, Errno> {
        let unit = BLOCK as u64;
        Self::begin_bytes(overlay, op, (block * unit, count * unit), bytes)
    }

    /// As [`begin`](Self::begin), for so many bytes from an offset on.
    pub(super) fn begin_bytes(
        overlay: &Overlay,
        op: Op,
        (offset, length): (u64, u64),
        bytes: Vec<u8>,
    ) -> Result<Self, Errno> {
        let length = u32::try_from(length).unwrap();
        let request = request(op, offset, length);
        let mut steps = vec![Step::EMPTY; overlay.max_steps()];
        let mut plan = Plan::new(&mut steps);
        overlay.plan(&request, &mut plan)?;
        let (count, ticket) = (plan.len(), plan.ticket().expect("every request asks"));
        let Ticket { number: ticket, last } = ticket;
        assert!(plan.steps().is_sorted_by_key(|step| step.stage));
        steps.truncate(count);
        let bytes = if op == Op::Read { vec![0xee; length as usize] } else { bytes };
        Ok(Self { request, bytes, steps, ticket, last, round: 0, result: Ok(()) })
    }

    /// The steps of the round that have not run.
    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Runs a step of the first stage that is left, which `choose` chooses of so many, or ends the round.
    /// `fails` may say that the step fails.
    pub(super) fn advance(
        &mut self,
        overlay: &Overlay,
        cache: &mut Cache,
        choose: impl FnOnce(usize) -> usize,
        fails: impl FnOnce(&Step) -> Option<Errno>,
    ) -> Now {
        if let Some(first) = self.steps.first() {
            let stage = first.stage;
            let ready = self.steps.iter().take_while(|step| step.stage == stage).count();
            let step = self.steps.remove(choose(ready));
            match fails(&step) {
                Some(errno) => {
                    self.result = Err(errno);
                    // What runs beside it ends; later stages do not begin.
                    self.steps.retain(|step| step.stage == stage);
                }
                None => self.run(overlay, cache, &step),
            }
            return Now::Runs;
        }
        let ended = Ended { result: self.result, ticket: self.ticket, round: self.round };
        let mut steps = vec![Step::EMPTY; overlay.max_steps()];
        let mut plan = Plan::new(&mut steps);
        let next = overlay.next(&self.request, ended, &mut plan);
        assert!(!self.last || self.result.is_err() || next == Next::Done, "after the last round");
        match next {
            Next::Done => Now::Ended(Ok(())),
            Next::Fail(errno) => Now::Ended(Err(errno)),
            Next::Park(_) => Now::Parked,
            Next::Round => {
                assert!(plan.steps().is_sorted_by_key(|step| step.stage));
                let ticket = Ticket { number: self.ticket, last: false };
                assert_eq!(plan.ticket(), Some(ticket), "every round asks");
                self.steps = plan.steps().to_vec();
                (self.round, self.result) = (self.round + 1, Ok(()));
                Now::Runs
            }
        }
    }

    /// Gives the request up, once its steps have ended.
    pub(super) fn give_up(mut self, overlay: &Overlay, cache: &mut Cache) {
        for step in std::mem::take(&mut self.steps) {
            self.run(overlay, cache, &step);
        }
        overlay.failed(&self.request, self.ticket);
    }

    fn run(&mut self, overlay: &Overlay, cache: &mut Cache, step: &Step) {
        let own = cache.is_live(step.file);
        let range = step.at as usize..step.at as usize + step.length as usize;
        match (step.kind, step.place) {
            (StepKind::Read, Place::Request) => {
                cache.read(overlay.files(), step.file, step.offset, &mut self.bytes[range]);
            }
            (StepKind::Read, Place::Own) => {
                let memory = overlay.memory().unwrap();
                assert!(range.end <= memory.size());
                let mut bytes = vec![0; range.len()];
                cache.read(overlay.files(), step.file, step.offset, &mut bytes);
                // SAFETY: inside the region, just checked, and nobody else uses these bytes now.
                unsafe {
                    let to = memory.base().add(range.start);
                    to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
                }
            }
            (StepKind::Zeros, Place::Request) => self.bytes[range].fill(0),
            (StepKind::Write { dsync: false }, Place::Request) if own => {
                cache.write(step.offset, &self.bytes[range]);
            }
            (StepKind::Write { dsync: false }, Place::Own) if own => {
                let memory = overlay.memory().unwrap();
                assert!(range.end <= memory.size());
                let mut bytes = vec![0; range.len()];
                // SAFETY: inside the region, just checked, and nobody writes to it now.
                unsafe {
                    let from = memory.base().add(range.start);
                    bytes.as_mut_ptr().copy_from_nonoverlapping(from, bytes.len());
                }
                cache.write(step.offset, &bytes);
            }
            (StepKind::Sync, _) if own => cache.sync(),
            (StepKind::PunchHole, _) if own => cache.punch(step.offset, step.length.into()),
            (StepKind::Allocate, _) if own => {
                cache.allocate(step.offset + u64::from(step.length));
            }
            other => panic!("a step that overlays do not have: {other:?} of file {}", step.file),
        }
    }
}

/// Runs a request alone to its end.
pub(super) fn run(
    overlay: &Overlay,
    cache: &mut Cache,
    op: Op,
    range: (u64, u64),
    bytes: Vec<u8>,
) -> Result<Vec<u8>, Errno> {
    let mut running = Running::begin(overlay, op, range, bytes)?;
    loop {
        match running.advance(overlay, cache, |_| 0, |_| None) {
            Now::Runs => {}
            Now::Parked => panic!("nothing to wait for"),
            Now::Ended(result) => return result.map(|()| running.bytes),
        }
    }
}

/// All bytes of the disk.
pub(super) fn read_all(overlay: &Overlay) -> Vec<u8> {
    let mut cache = Cache::new(&overlay.path);
    let blocks = overlay.geometry().size / BLOCK as u64;
    // As long as requests of devices are.
    let parts = (0..blocks).step_by(256).map(|block| (block, 256.min(blocks - block)));
    parts.flat_map(|part| run(overlay, &mut cache, Op::Read, part, Vec::new()).unwrap()).collect()
}
