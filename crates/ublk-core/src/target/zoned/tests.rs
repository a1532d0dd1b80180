use super::super::testing::{plan, request};
use super::*;

const MIB: u64 = 1 << 20;

fn zoned() -> Zoned {
    let options =
        ZonedOptions { zone_size: MIB, conventional: 1, max_active: 2, ..ZonedOptions::default() };
    Zoned::in_memory(8 * MIB + 4096, &options).unwrap()
}

fn steps(target: &Zoned, op: Op, offset: u64, length: u32) -> Vec<(StepKind, u16, u32, u64)> {
    let steps = plan(target, &request(op, offset, length)).unwrap();
    steps.iter().map(|step| (step.kind, step.file, step.length, step.offset)).collect()
}

#[test]
fn it_is_a_device_of_whole_zones() {
    let target = zoned();
    assert_eq!(target.geometry.size, 8 * MIB);
    assert_eq!(target.geometry.chunk, MIB);
    assert_eq!(target.geometry.validate(), Ok(()));
    assert_eq!(target.max_steps(), 2);
}

#[test]
fn an_append_is_a_write_at_the_pointer() {
    let target = zoned();
    let write = StepKind::Write { dsync: false };
    let append = Op::Zone(ZoneOp::Append);
    assert_eq!(steps(&target, Op::Write, MIB, 4096), [(write, DATA, 4096, MIB)]);
    assert_eq!(steps(&target, append, MIB, 8192), [(write, DATA, 8192, MIB + 4096)]);
    assert_eq!(steps(&target, append, MIB, 512), [(write, DATA, 512, MIB + 12288)]);
    let behind = plan(&target, &request(Op::Write, MIB, 4096));
    assert_eq!(behind, Err(Errno(libc::EIO)));
}

#[test]
fn a_report_is_a_read_of_the_state() {
    let report = steps(&zoned(), Op::Zone(ZoneOp::Report), 3 * MIB, 5 * 64);
    assert_eq!(report, [(StepKind::Read, STATE, 5 * 64, 4096 + 3 * 64)]);
}

#[test]
fn what_is_reset_is_given_back_and_written_again() {
    let target = zoned();
    steps(&target, Op::Write, 2 * MIB, 4096);
    let hole = |offset, length| (StepKind::PunchHole, DATA, length, offset);
    assert_eq!(steps(&target, Op::Zone(ZoneOp::Reset), 2 * MIB, 0), [hole(2 * MIB, 1 << 20)]);
    steps(&target, Op::Write, 2 * MIB, 4096);
    assert_eq!(steps(&target, Op::Zone(ZoneOp::ResetAll), 0, 0), [hole(MIB, 7 << 20)]);
    steps(&target, Op::Write, 2 * MIB, 4096);
}

#[test]
fn the_data_is_durable_before_its_zone() {
    let steps = plan(&zoned(), &request(Op::Flush, 0, 0)).unwrap();
    let order: Vec<_> = steps.iter().map(|step| (step.kind, step.file, step.stage)).collect();
    assert_eq!(order, [(StepKind::Sync, DATA, 0), (StepKind::Sync, STATE, 1)]);
}

#[test]
fn a_write_that_failed_leaves_the_pointer_where_it_was() {
    let target = zoned();
    let write = request(Op::Write, MIB, 4096);
    let mut room = [Step::EMPTY; 2];
    plan(&target, &write).unwrap();
    let again = target.retry(&write, Errno(libc::ENOSPC), 0, &mut Plan::new(&mut room));
    assert_eq!(again, Err(Errno(libc::ENOSPC)));
    plan(&target, &write).unwrap();
}

#[test]
fn zones_whose_space_cannot_be_given_back_are_empty_nevertheless() {
    let reset = request(Op::Zone(ZoneOp::Reset), MIB, 0);
    let mut room = [Step::EMPTY; 2];
    let mut plan = Plan::new(&mut room);
    assert_eq!(zoned().retry(&reset, Errno(libc::EOPNOTSUPP), 0, &mut plan), Ok(()));
    assert!(plan.is_empty());
}

#[test]
fn zones_that_cannot_be_are_refused() {
    let good = ZonedOptions { zone_size: MIB, ..ZonedOptions::default() };
    assert!(Zoned::in_memory(8 * MIB, &good).is_ok());
    for bad in [
        ZonedOptions { zone_size: 0, ..good.clone() },
        ZonedOptions { zone_size: 3 * MIB, ..good.clone() },
        ZonedOptions { zone_size: 16 * MIB, ..good.clone() },
        ZonedOptions { zone_capacity: Some(2 * MIB), ..good.clone() },
        ZonedOptions { zone_capacity: Some(0), ..good.clone() },
        ZonedOptions { conventional: 8, ..good.clone() },
        ZonedOptions { max_open: 9, ..good.clone() },
        ZonedOptions { max_open: 3, max_active: 2, ..good.clone() },
    ] {
        let error = Zoned::in_memory(8 * MIB, &bad).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument, "{bad:?}");
    }
}
