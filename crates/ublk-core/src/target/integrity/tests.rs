use super::super::RequestFlags;
use super::super::testing::{plan, request};
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
    Integrity::borrowed(File::borrowed(3, Geometry::new(1 << 20)), 4, FORMAT)
}

fn with_metadata(op: Op, flags: u32) -> Request {
    let flags = RequestFlags(ublk_sys::UBLK_IO_F_INTEGRITY | flags);
    Request { flags, ..request(op, 8192, 4096) }
}

fn shape(steps: &[Step]) -> Vec<(StepKind, u8, u16, u32, u64)> {
    steps.iter().map(|s| (s.kind, s.stage, s.file, s.length, s.offset)).collect()
}

#[test]
fn metadata_is_fetched_while_data_is_written_and_then_kept() {
    let steps = plan(&target(), &with_metadata(Op::Write, ublk_sys::UBLK_IO_F_FUA)).unwrap();
    assert_eq!(
        shape(&steps),
        [
            (StepKind::Write { dsync: true }, 0, DATA, 4096, 8192),
            (StepKind::FetchMetadata, 0, METADATA, 64, 4096 + 128),
            (StepKind::WriteMetadata { dsync: true }, 1, METADATA, 64, 4096 + 128),
        ]
    );
}

#[test]
fn a_read_brings_its_metadata_along() {
    let steps = plan(&target(), &with_metadata(Op::Read, 0)).unwrap();
    assert_eq!(
        shape(&steps),
        [
            (StepKind::Read, 0, DATA, 4096, 8192),
            (StepKind::ReadMetadata, 0, METADATA, 64, 4096 + 128),
            (StepKind::StoreMetadata, 1, METADATA, 64, 4096 + 128),
        ]
    );
}

#[test]
fn requests_without_metadata_are_those_of_a_plain_file() {
    let steps = plan(&target(), &request(Op::Read, 8192, 4096)).unwrap();
    assert_eq!(shape(&steps), [(StepKind::Read, 0, DATA, 4096, 8192)]);
}

#[test]
fn a_flush_reaches_both_files() {
    let steps = plan(&target(), &request(Op::Flush, 0, 0)).unwrap();
    let files: Vec<_> = steps.iter().map(|step| (step.kind, step.file)).collect();
    assert_eq!(files, [(StepKind::Sync, DATA), (StepKind::Sync, METADATA)]);
}

#[test]
fn metadata_is_made_of_ones_and_then_kept() {
    let folder = std::env::temp_dir().join(format!("ublk-metadata-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let (data, metadata) = (folder.join("disk"), folder.join("disk.metadata"));
    fs::write(&data, vec![0; 1 << 20]).unwrap();
    let options = IntegrityOptions { format: FORMAT, ..IntegrityOptions::default() };
    let open_as = |options: &IntegrityOptions, size| {
        Integrity::open(&data, &FileOptions { size, ..FileOptions::default() }, options)
    };
    let open = || open_as(&options, None);
    let first = open().unwrap();
    let mut kept = fs::read(&metadata).unwrap();
    assert_eq!(kept[4096..], vec![0xff; 16384]);
    assert_eq!(open().unwrap_err().code, Code::Busy);
    drop(first);
    kept[4096..].fill(7);
    fs::write(&metadata, &kept).unwrap();
    drop(open().unwrap());
    let other = IntegrityFormat { tag_size: 2, ..FORMAT };
    let other = IntegrityOptions { format: other, ..IntegrityOptions::default() };
    for refused in [open_as(&other, None), open_as(&options, Some(1 << 19))] {
        assert_eq!(refused.unwrap_err().code, Code::BadBackend);
    }
    let capable = IntegrityFormat { capable: true, ..FORMAT };
    open_as(&IntegrityOptions { format: capable, ..IntegrityOptions::default() }, None).unwrap();
    assert!(fs::read(&metadata).unwrap() == kept);
    // As a release that knew of no header has left it.
    fs::write(&metadata, vec![7; 16384]).unwrap();
    assert_eq!(open().unwrap_err().code, Code::BadBackend);
    fs::remove_dir_all(&folder).unwrap();
}
