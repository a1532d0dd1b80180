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
            (StepKind::FetchMetadata, 0, METADATA, 64, 128),
            (StepKind::WriteMetadata { dsync: true }, 1, METADATA, 64, 128),
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
            (StepKind::ReadMetadata, 0, METADATA, 64, 128),
            (StepKind::StoreMetadata, 1, METADATA, 64, 128),
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
    let options = IntegrityOptions { format: FORMAT, path: None };
    let open = || Integrity::open(&data, &FileOptions::default(), &options);
    let first = open().unwrap();
    assert_eq!(fs::read(&metadata).unwrap(), vec![0xff; 16384]);
    assert_eq!(open().unwrap_err().code, Code::Busy);
    drop(first);
    fs::write(&metadata, vec![7; 16384]).unwrap();
    drop(open().unwrap());
    assert_eq!(fs::read(&metadata).unwrap(), vec![7; 16384]);
    fs::write(&metadata, vec![7; 16383]).unwrap();
    assert_eq!(open().unwrap_err().code, Code::BadBackend);
    fs::remove_dir_all(&folder).unwrap();
}
