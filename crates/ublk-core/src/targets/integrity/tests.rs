use std::os::unix::fs::FileExt;

use super::super::testing::{plan, request, rounds};
use super::super::{Place, RequestFlags, Step, StepKind};
use super::journal::Record;
use super::*;

const FORMAT: IntegrityFormat = IntegrityFormat {
    interval: 512,
    metadata_size: 8,
    checksum: Checksum::Crc16,
    pi_offset: 0,
    tag_size: 0,
    reference_tags: true,
    capable: false,
};

fn target() -> Integrity {
    Integrity::borrowed(File::borrowed(3, Geometry::new(1 << 20)), 4, FORMAT).unwrap()
}

fn with_metadata(op: Op, flags: u32) -> Request {
    let flags = RequestFlags(ublk_sys::UBLK_IO_F_INTEGRITY | flags);
    Request { flags, ..request(op, 8192, 4096) }
}

type Shape = (StepKind, Place, u8, u16, u32, u64);

fn shape(rounds: &[Vec<Step>]) -> Vec<Vec<Shape>> {
    let shape = |s: &Step| (s.kind, s.place, s.stage, s.file, s.length, s.offset);
    rounds.iter().map(|steps| steps.iter().map(shape).collect()).collect()
}

const WRITE: StepKind = StepKind::Write { dsync: false };

#[test]
fn a_write_is_durable_in_the_journal_before_it_changes_anything() {
    let target = target();
    let rounds = rounds(&target, &with_metadata(Op::Write, 0)).unwrap();
    let area = Area::new(FORMAT, 1 << 20);
    let (data, metadata, place) = (area.slot(0), area.slot_metadata(0), 4096 + 128);
    let header = area.header(0);
    let sync = |stage, file| (StepKind::Sync, Place::Request, stage, file, 0, 0);
    let record = |stage| (WRITE, Place::Own, stage, METADATA, 512, header);
    assert_eq!(
        shape(&rounds),
        [
            vec![],
            vec![
                (WRITE, Place::Request, 0, METADATA, 4096, data),
                (StepKind::FetchMetadata, Place::Metadata, 0, METADATA, 64, metadata),
                (WRITE, Place::Metadata, 1, METADATA, 64, metadata),
                sync(2, METADATA),
            ],
            vec![
                record(0),
                sync(1, METADATA),
                (WRITE, Place::Request, 2, DATA, 4096, 8192),
                (WRITE, Place::Metadata, 2, METADATA, 64, place),
                sync(3, DATA),
                sync(3, METADATA),
                record(4),
                sync(5, METADATA),
            ],
        ]
    );
    assert_eq!(rounds[2].len(), target.max_steps());
    assert_eq!((rounds[2][0].at, rounds[2][6].at), (Headers::at(0), Headers::zeros()));
}

#[test]
fn a_read_brings_its_metadata_along() {
    let rounds = rounds(&target(), &with_metadata(Op::Read, 0)).unwrap();
    assert_eq!(
        shape(&rounds),
        [
            vec![],
            vec![
                (StepKind::Read, Place::Request, 0, DATA, 4096, 8192),
                (StepKind::Read, Place::Metadata, 0, METADATA, 64, 4096 + 128),
                (StepKind::StoreMetadata, Place::Metadata, 1, METADATA, 64, 4096 + 128),
            ],
        ]
    );
}

#[test]
fn a_request_that_fails_makes_room_for_others_until_its_record_may_be_there() {
    const EIO: Errno = Errno(libc::EIO);
    let target = target();
    let write = with_metadata(Op::Write, 0);
    let mut room = [Step::EMPTY; 8];
    let [first, second, third] = [(); 3].map(|()| {
        let mut plan = Plan::new(&mut room);
        target.plan(&write, &mut plan).unwrap();
        plan.ticket().unwrap().number
    });
    let mut next = |ticket, round, result| {
        target.next(&write, Ended { result, ticket, round }, &mut Plan::new(&mut room))
    };
    assert_eq!(next(first, 0, Ok(())), Next::Round);
    assert!(matches!(next(second, 0, Ok(())), Next::Park(_)));
    assert_eq!(next(first, 1, Err(EIO)), Next::Fail(EIO));
    assert_eq!([next(second, 0, Ok(())), next(second, 1, Ok(()))], [Next::Round; 2]);
    assert_eq!(next(second, 2, Err(EIO)), Next::Fail(EIO));
    assert_eq!(next(third, 0, Ok(())), Next::Fail(EIO));
    assert_eq!(plan(&target, &write), Err(EIO), "until the journal is replayed");
}

#[test]
fn without_metadata_a_read_is_a_plain_one_and_a_write_waits_for_its_turn() {
    let data = |kind| (kind, Place::Request, 0, DATA, 4096, 8192);
    let read = rounds(&target(), &request(Op::Read, 8192, 4096)).unwrap();
    assert_eq!(shape(&read), [vec![data(StepKind::Read)]]);
    let flags = RequestFlags(ublk_sys::UBLK_IO_F_FUA);
    let write = Request { flags, ..request(Op::Write, 8192, 4096) };
    let write = rounds(&target(), &write).unwrap();
    assert_eq!(shape(&write), [vec![], vec![data(StepKind::Write { dsync: true })]]);
}

#[test]
fn a_flush_reaches_both_files() {
    let steps = plan(&target(), &request(Op::Flush, 0, 0)).unwrap();
    let files: Vec<_> = steps.iter().map(|step| (step.kind, step.file)).collect();
    assert_eq!(files, [(StepKind::Sync, DATA), (StepKind::Sync, METADATA)]);
}

/// A folder with data and its metadata, gone with this.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("ublk-metadata-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("disk"), vec![0; 1 << 20]).unwrap();
        Self(path)
    }

    fn metadata(&self) -> PathBuf {
        self.0.join("disk.metadata")
    }

    fn open_as(&self, format: IntegrityFormat, file: &FileOptions) -> Result<Integrity> {
        let options = IntegrityOptions { format, ..IntegrityOptions::default() };
        Integrity::open(&self.0.join("disk"), file, &options)
    }

    fn open(&self) -> Result<Integrity> {
        self.open_as(FORMAT, &FileOptions::default())
    }

    /// Puts bytes into a file.
    fn put(path: &Path, offset: u64, bytes: &[u8]) {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.write_all_at(bytes, offset).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

const READ_ONLY: FileOptions = FileOptions {
    direct: super::super::file::Direct::No,
    read_only: true,
    logical_block: None,
    size: None,
    unlocked: false,
    promised: None,
};

#[test]
fn metadata_is_made_of_ones_and_then_kept() {
    let folder = Folder::new("made");
    let first = folder.open().unwrap();
    let mut kept = fs::read(folder.metadata()).unwrap();
    assert_eq!(kept[4096..4096 + 16384], [0xff; 16384]);
    assert_eq!(kept.len() as u64, length_of_metadata(FORMAT, 1 << 20));
    assert!(kept[4096 + 16384..].iter().all(|&byte| byte == 0), "an empty journal");
    assert_eq!(folder.open().unwrap_err().code, Code::Busy);
    drop(first);
    kept[4096..4096 + 16384].fill(7);
    fs::write(folder.metadata(), &kept).unwrap();
    drop(folder.open().unwrap());
    let other = folder.open_as(IntegrityFormat { tag_size: 2, ..FORMAT }, &FileOptions::default());
    let smaller = FileOptions { size: Some(1 << 19), ..FileOptions::default() };
    for refused in [other, folder.open_as(FORMAT, &smaller)] {
        assert_eq!(refused.unwrap_err().code, Code::BadBackend);
    }
    let capable = IntegrityFormat { capable: true, ..FORMAT };
    folder.open_as(capable, &FileOptions::default()).unwrap();
    assert!(fs::read(folder.metadata()).unwrap() == kept);
    // As a release that knew of no header has left it.
    fs::write(folder.metadata(), vec![7; 16384]).unwrap();
    assert_eq!(folder.open().unwrap_err().code, Code::BadBackend);
}

#[test]
fn a_file_without_a_journal_is_given_one_and_keeps_its_metadata() {
    let folder = Folder::new("older");
    drop(folder.open().unwrap());
    let whole = fs::read(folder.metadata()).unwrap();
    let mut older = whole[..4096 + 16384].to_vec();
    older[16] = 1;
    older[4096..].fill(7);
    // Whole, and with a journal that was not finished.
    for length in [older.len(), whole.len()] {
        let mut found = older.clone();
        found.resize(length, 0);
        fs::write(folder.metadata(), &found).unwrap();
        drop(folder.open_as(FORMAT, &READ_ONLY).unwrap());
        assert!(fs::read(folder.metadata()).unwrap() == found, "nothing is written");
        drop(folder.open().unwrap());
        let mut expected = whole.clone();
        expected[4096..4096 + 16384].fill(7);
        assert!(fs::read(folder.metadata()).unwrap() == expected);
    }
    for (version, length) in [(1, older.len() - 8), (3, whole.len()), (2, older.len())] {
        let mut strange = whole.clone();
        strange[16] = version;
        strange.truncate(length);
        fs::write(folder.metadata(), &strange).unwrap();
        assert_eq!(folder.open().unwrap_err().code, Code::BadBackend);
        assert!(fs::read(folder.metadata()).unwrap() == strange);
    }
}

#[test]
fn what_was_left_half_done_is_done_before_anything_is_served() {
    let folder = Folder::new("replayed");
    drop(folder.open().unwrap());
    let area = Area::new(FORMAT, 1 << 20);
    let record = |slot: u16, record: Record| {
        Folder::put(&folder.metadata(), area.header(slot), &record.header());
    };
    Folder::put(&folder.metadata(), area.slot(2), &[5; 4096]);
    Folder::put(&folder.metadata(), area.slot_metadata(2), &[6; 64]);
    record(2, Record { offset: 8192, length: 4096 });
    // One that was not written as a whole.
    Folder::put(&folder.metadata(), area.header(3), b"ublk pair record");
    let before = fs::read(folder.metadata()).unwrap();
    let refused = folder.open_as(FORMAT, &READ_ONLY).unwrap_err();
    assert_eq!(refused.code, Code::BadBackend);
    assert!(fs::read(folder.metadata()).unwrap() == before);
    drop(folder.open().unwrap());
    let (data, metadata) =
        (fs::read(folder.0.join("disk")).unwrap(), fs::read(folder.metadata()).unwrap());
    let metadata = &metadata[4096..4096 + 16384];
    for sector in 0..2048 {
        let (data, metadata) = (data[sector * 512], metadata[sector * 8]);
        let expected = if (16..24).contains(&sector) { (5, 6) } else { (0, 0xff) };
        assert_eq!((data, metadata), expected, "sector {sector}");
    }
    drop(folder.open_as(FORMAT, &READ_ONLY).unwrap());
    record(0, Record { offset: 1 << 20, length: 512 });
    let before = fs::read(folder.metadata()).unwrap();
    assert_eq!(folder.open().unwrap_err().code, Code::BadBackend, "of no sector that there is");
    assert!(fs::read(folder.metadata()).unwrap() == before);
}
