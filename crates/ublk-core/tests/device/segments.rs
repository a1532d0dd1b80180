//! Steps of a target that begin and end inside of a request's segments, in each buffer mode.

use std::os::fd::RawFd;

use ublk_core::targets::{Durability, Errno, Geometry, Plan, Request, Step, StepKind, Target};

use super::*;

const PAGE: u32 = 4096;
/// The borders of the steps, in bytes of the request: before, at and behind the border of two pages.
const BORDERS: [u32; 7] = [0, 1, 511, PAGE - 1, PAGE + 1, 3 * PAGE - 7, 3 * PAGE];

/// A file whose requests become steps of uneven lengths.
struct Uneven {
    geometry: Geometry,
    files: [RawFd; 1],
    durability: Durability,
}

impl Uneven {
    fn new(disk: &SimDisk) -> Self {
        let geometry = Geometry::new(SIZE as u64);
        Self { geometry, files: [disk.fd()], durability: Durability::of(1) }
    }
}

impl Target for Uneven {
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
        BORDERS.len()
    }

    fn plan(&self, request: &Request, plan: &mut Plan<'_>) -> Result<(), Errno> {
        let kind = match request.op {
            Op::Read => StepKind::Read,
            Op::Write => StepKind::Write { dsync: false },
            _ => return Err(Errno(libc::EOPNOTSUPP)),
        };
        let ends = BORDERS[1..].iter().copied().chain([u32::MAX]);
        for (at, end) in BORDERS.into_iter().zip(ends) {
            let length = end.min(request.length).saturating_sub(at);
            if length > 0 {
                let offset = request.offset + u64::from(at);
                plan.push(Step { kind, at, length, offset, ..Step::EMPTY });
            }
        }
        Ok(())
    }
}

#[test]
fn steps_inside_of_segments_carry_data_both_ways_also_where_transfers_are_short() {
    let _alone = alone();
    use BufferMode::{Auto, Copy, GetData, Register, UserCopy};
    use ExchangeMode::{Batch, PerIo};
    let both = [PerIo, Batch].into_iter();
    let ways = both.flat_map(|one| [Auto, Register, UserCopy, Copy].map(|mode| (one, mode)));
    for (exchange, mode) in ways.chain([(PerIo, GetData)]) {
        let sim = Sim::new(SimConfig::blocking(3));
        let disk = sim.file(SIZE);
        let (exchange, buffers) = (Some(exchange), vec![mode]);
        let options = DeviceOptions { exchange, buffers, ..options() };
        let device = Device::create(&sim, Uneven::new(&disk), options).unwrap();
        let id = device.info().id;
        sim.set_faults(Faults { short: 300, delay: 300, ..Faults::default() });
        let client = sim.client(id).unwrap();
        for turn in 0..16_u32 {
            let length = 512_u32 << (turn % 8);
            let offset = u64::from(turn) * u64::from(length);
            // No page is as long as the pattern: a byte that goes to another page is seen.
            let data: Vec<u8> =
                (0..251).cycle().skip(turn as usize).take(length as usize).collect();
            let write = ClientOp::Write { offset, data: data.clone(), fua: false };
            assert_eq!(client.run(&write).result, Ok(()));
            let at = usize::try_from(offset).unwrap();
            let stored = disk.contents()[at..at + data.len()] == data;
            assert!(stored, "{exchange:?} {mode:?}: a write of {length}");
            let done = client.run(&ClientOp::Read { offset, length });
            assert_eq!(done.result, Ok(()));
            assert!(done.data == data, "{exchange:?} {mode:?}: a read of {length}");
        }
        assert!(sim.injected().short > 0, "{mode:?}");
        drop(client);
        device.close().unwrap();
        assert_nothing_left(&sim, id);
    }
}
