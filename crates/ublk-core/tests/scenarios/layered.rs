//! A target of many steps: stripes, each mirrored or not.

use std::os::fd::RawFd;

use ublk_core::targets::{
    Durability, Ended, Errno, Geometry, Next, Op, Plan, Request, Step, StepKind, Target,
};

/// The files are the stripes, then their mirrors.
#[derive(Debug)]
pub(crate) struct Layered {
    pub(crate) geometry: Geometry,
    pub(crate) files: Vec<RawFd>,
    pub(crate) durability: Durability,
    pub(crate) stripes: u16,
    pub(crate) chunk: u32,
    pub(crate) mirrored: bool,
    pub(crate) max_steps: usize,
}

impl Layered {
    /// Where a byte of the device lies: stripe, offset, and how many bytes follow it there.
    pub(crate) fn place(&self, offset: u64) -> (u16, u64, u32) {
        let (chunk, stripes) = (u64::from(self.chunk), u64::from(self.stripes));
        let (number, within) = (offset / chunk, offset % chunk);
        let stripe = u16::try_from(number % stripes).unwrap();
        (stripe, number / stripes * chunk + within, self.chunk - u32::try_from(within).unwrap())
    }

    fn cut(&self, request: &Request, kind: StepKind, mirror: bool, plan: &mut Plan<'_>) {
        let (mut offset, mut at) = (request.offset, 0);
        while at < request.length {
            let (stripe, place, room) = self.place(offset);
            let length = room.min(request.length - at);
            let file = if mirror { stripe + self.stripes } else { stripe };
            let stage = u8::from(mirror);
            plan.push(Step { kind, stage, file, at, length, offset: place, ..Step::EMPTY });
            at += length;
            offset += u64::from(length);
        }
    }

    fn both(&self, request: &Request, kind: StepKind, plan: &mut Plan<'_>) {
        self.cut(request, kind, false, plan);
        if self.mirrored {
            self.cut(request, kind, true, plan);
        }
    }
}

impl Target for Layered {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn files(&self) -> &[RawFd] {
        &self.files
    }

    fn durability(&self) -> &Durability {
        &self.durability
    }

    fn max_steps(&self) -> usize {
        self.max_steps
    }

    fn plan(&self, request: &Request, plan: &mut Plan<'_>) -> Result<(), Errno> {
        match request.op {
            Op::Read => self.cut(request, StepKind::Read, false, plan),
            Op::Write => self.both(request, StepKind::Write { dsync: request.flags.fua() }, plan),
            Op::Discard => self.both(request, StepKind::PunchHole, plan),
            Op::WriteZeroes => self.both(request, StepKind::ZeroRange, plan),
            Op::Zone(_) => return Err(Errno(libc::EOPNOTSUPP)),
            Op::Flush => {
                for file in 0..u16::try_from(self.files.len()).unwrap() {
                    plan.push(Step { kind: StepKind::Sync, file, ..Step::EMPTY });
                }
            }
        }
        Ok(())
    }

    fn next(&self, request: &Request, ended: Ended, plan: &mut Plan<'_>) -> Next {
        let Err(errno) = ended.result else { return Next::Done };
        match (request.op, ended.round) {
            (Op::Read, 0) if self.mirrored => self.cut(request, StepKind::Read, true, plan),
            (Op::WriteZeroes, 0) if errno == Errno(libc::EOPNOTSUPP) => {
                self.both(request, StepKind::PunchHole, plan);
            }
            _ => return Next::Fail(errno),
        }
        Next::Round
    }
}
