use super::super::testing::{plan, request, rounds};
use super::*;

const MIB: u64 = 1 << 20;

fn zoned() -> Zoned {
    let options =
        ZonedOptions { zone_size: MIB, conventional: 1, max_active: 2, ..ZonedOptions::default() };
    Zoned::in_memory(8 * MIB + 4096, &options).unwrap()
}

/// The steps of a request that is done at once.
fn steps(target: &Zoned, op: Op, offset: u64, length: u32) -> Vec<(StepKind, u16, u32, u64)> {
    let steps = rounds(target, &request(op, offset, length)).unwrap().concat();
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
fn a_report_is_a_read_of_the_reports() {
    let report = steps(&zoned(), Op::Zone(ZoneOp::Report), 3 * MIB, 5 * 64);
    assert_eq!(report, [(StepKind::Read, REPORTS, 5 * 64, 3 * 64)]);
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
    let folder = Folder::new("order", &vec![0; 4 << 20]);
    let target = folder.open(&ZonedOptions::default()).unwrap();
    let order = |op, offset| -> Vec<Vec<_>> {
        let rounds = rounds(&target, &request(op, offset, 0)).unwrap();
        let shape = |step: &Step| (step.stage, step.kind, step.place, step.file);
        rounds.iter().map(|steps| steps.iter().map(shape).collect()).collect()
    };
    let data = vec![(0, StepKind::Sync, Place::Request, DATA)];
    let nothing = order(Op::Flush, 0);
    assert!(nothing.len() == 1 && nothing[0] == data, "nothing was written");
    let write = StepKind::Write { dsync: false };
    let kept = vec![(0, write, Place::Own, STATE), (1, StepKind::Sync, Place::Request, STATE)];
    steps(&target, Op::Write, MIB, 4096);
    let flush = request(Op::Flush, 0, 0);
    let mut room = [Step::EMPTY; 2];
    let mut plan = Plan::new(&mut room);
    target.plan(&flush, &mut plan).unwrap();
    target.failed(&flush, plan.ticket().unwrap().number);
    assert_eq!(order(Op::Flush, 0), [data.clone(), kept.clone()], "the last one was not kept");
    assert_eq!(order(Op::Flush, 0), [data]);
    let hole = vec![(0, StepKind::PunchHole, Place::Request, DATA)];
    assert_eq!(order(Op::Zone(ZoneOp::Reset), MIB), [kept, hole]);
}

#[test]
fn a_write_that_failed_leaves_the_pointer_where_it_was() {
    let target = zoned();
    let write = request(Op::Write, MIB, 4096);
    let mut room = [Step::EMPTY; 2];
    let mut plan = Plan::new(&mut room);
    target.plan(&write, &mut plan).unwrap();
    let ticket = plan.ticket().unwrap().number;
    let ended = Ended { ticket, ..Ended::failed(Errno(libc::EIO)) };
    assert_eq!(target.next(&write, ended, &mut plan), Next::Fail(Errno(libc::EIO)));
    rounds(&target, &write).unwrap();
}

#[test]
fn zones_whose_space_cannot_be_given_back_are_empty_nevertheless() {
    let reset = request(Op::Zone(ZoneOp::Reset), MIB, 0);
    let mut room = [Step::EMPTY; 2];
    let mut plan = Plan::new(&mut room);
    let refused = Ended { round: 1, ..Ended::failed(Errno(libc::EOPNOTSUPP)) };
    assert_eq!(zoned().next(&reset, refused, &mut plan), Next::Done);
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

/// A folder with a file of data, gone with this.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str, data: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("ublk-zoned-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("disk"), data).unwrap();
        Self(path)
    }

    fn open(&self, options: &ZonedOptions) -> Result<Zoned> {
        let options = ZonedOptions { zone_size: MIB, ..options.clone() };
        Zoned::open(&self.0.join("disk"), &FileOptions::default(), &options)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn an_image_named_as_the_state_is_left_as_it_is() {
    let folder = Folder::new("image", &vec![0; 4 << 20]);
    let image = folder.0.join("image");
    // As ext4 begins: a kilobyte of zeros, and then its superblock.
    let mut bytes = vec![0; 1 << 20];
    bytes[1080..1082].copy_from_slice(&[0x53, 0xef]);
    std::fs::write(&image, &bytes).unwrap();
    let named = ZonedOptions { state: Some(image.clone()), ..ZonedOptions::default() };
    for create in [false, true] {
        let refused = folder.open(&ZonedOptions { create, ..named.clone() }).unwrap_err();
        assert_eq!(refused.code, Code::BadBackend);
        assert!(std::fs::read(&image).unwrap() == bytes);
    }
}

#[test]
fn zones_whose_state_is_lost_are_not_taken_for_empty() {
    let folder = Folder::new("lost", &vec![0; 4 << 20]);
    let zones = folder.open(&ZonedOptions::default()).unwrap();
    assert_eq!(folder.open(&ZonedOptions::default()).unwrap_err().code, Code::Busy);
    drop(zones);
    std::fs::write(folder.0.join("disk"), vec![1; 4 << 20]).unwrap();
    drop(folder.open(&ZonedOptions::default()).unwrap());
    std::fs::remove_file(folder.0.join("disk.zones")).unwrap();
    let refused = folder.open(&ZonedOptions::default()).unwrap_err();
    assert_eq!(refused.code, Code::NoBackend);
    drop(folder.open(&ZonedOptions { create: true, ..ZonedOptions::default() }).unwrap());
    folder.open(&ZonedOptions::default()).unwrap();
}
