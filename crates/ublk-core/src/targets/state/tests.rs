use super::*;

/// Three kilobytes of sevens behind the header.
struct Sevens;

const LENGTH: u64 = HEADER + 3072;

impl Format for Sevens {
    fn what(&self) -> &'static str {
        "sevens"
    }

    fn option(&self) -> &'static str {
        "place"
    }

    fn header(&self) -> Vec<u8> {
        b"sevens of a test\x01".to_vec()
    }

    fn length(&self) -> u64 {
        LENGTH
    }

    fn fresh(&self, _offset: u64, bytes: &mut [u8]) {
        bytes.fill(7);
    }

    fn check(&self, header: &Header, length: u64) -> std::result::Result<(), Unfit> {
        match header[MAGIC] {
            1 if length == LENGTH => Ok(()),
            other => Err((format!("is of version {other}, with {length} bytes"), "")),
        }
    }
}

/// A folder of a test, gone with this.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ublk-state-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("data"), vec![0; 8192]).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn open(&self, name: &str, create: bool) -> Result<File> {
        self.open_as(name, Wanted { create, read_only: false })
    }

    fn open_as(&self, name: &str, wanted: Wanted) -> Result<File> {
        let data = self.path("data");
        open(&self.path(name), &Sevens, Data { path: &data, size: 8192 }, wanted)
    }

    fn refuses(&self, name: &str, create: bool) -> Code {
        self.open(name, create).unwrap_err().code
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn whole() -> Vec<u8> {
    let mut bytes = Sevens.header();
    bytes.resize(usize::try_from(HEADER).unwrap(), 0);
    bytes.resize(usize::try_from(LENGTH).unwrap(), 7);
    bytes
}

#[test]
fn a_file_is_made_for_empty_data_and_then_kept() {
    let folder = Folder::new("made");
    let file = folder.open("state", false).unwrap();
    assert_eq!(fs::read(folder.path("state")).unwrap(), whole());
    file.write_all_at(&[9], HEADER).unwrap();
    drop(file);
    fs::write(folder.path("data"), [1]).unwrap();
    folder.open("state", true).unwrap();
    assert_eq!(fs::read(folder.path("state")).unwrap()[4096..4098], [9, 7]);
}

#[test]
fn a_missing_file_is_an_error_once_there_is_data() {
    let folder = Folder::new("missing");
    let mut data = vec![0; 8192];
    data[8191] = 1;
    fs::write(folder.path("data"), data).unwrap();
    assert_eq!(folder.refuses("state", false), Code::NoBackend);
    assert!(!folder.path("state").exists());
    fs::write(folder.path("empty"), []).unwrap();
    assert_eq!(folder.refuses("empty", false), Code::NoBackend);
    folder.open("state", true).unwrap();
    folder.open("empty", true).unwrap();
}

#[test]
fn whatever_else_a_file_holds_is_left_as_it_is() {
    let folder = Folder::new("foreign");
    let zeros_then = |zeros: usize, rest: &[u8]| [&vec![0; zeros][..], rest].concat();
    let mut older = whole();
    older[MAGIC] = 0;
    let half = |byte: u8| {
        let mut bytes = vec![0; 4096];
        bytes.resize(usize::try_from(LENGTH).unwrap(), byte);
        bytes
    };
    for contents in [
        b"somebody's data".to_vec(),
        // As an ext4 image begins.
        zeros_then(1080, &[0x53, 0xef]),
        zeros_then(10 << 20, &[]),
        zeros_then(4096, &[]),
        half(8),
        whole()[..5000].to_vec(),
        whole()[..20].to_vec(),
        older,
    ] {
        let path = folder.path("state");
        fs::write(&path, &contents).unwrap();
        for create in [false, true] {
            assert_eq!(folder.refuses("state", create), Code::BadBackend);
            assert!(fs::read(&path).unwrap() == contents, "{} bytes", contents.len());
        }
    }
}

#[test]
fn a_making_that_was_interrupted_is_done_again() {
    let folder = Folder::new("half");
    for written in [0, 1024, 3072] {
        let mut half = vec![0; usize::try_from(LENGTH).unwrap()];
        half[4096..4096 + written].fill(7);
        // Whole pages are written or not: what is in between is nobody's making.
        let ours = written != 1024;
        fs::write(folder.path("state"), &half).unwrap();
        assert_eq!(folder.open("state", false).is_ok(), ours);
        let left = fs::read(folder.path("state")).unwrap();
        assert_eq!(left, if ours { whole() } else { half });
    }
}

#[test]
fn the_data_is_no_place_for_it() {
    let folder = Folder::new("same");
    assert_eq!(folder.refuses("data", true), Code::InvalidArgument);
    fs::hard_link(folder.path("data"), folder.path("link")).unwrap();
    assert_eq!(folder.refuses("link", true), Code::InvalidArgument);
    assert_eq!(fs::read(folder.path("data")).unwrap(), [0; 8192]);
    fs::create_dir(folder.path("folder")).unwrap();
    assert_eq!(folder.refuses("folder", true), Code::BadBackend);
}

#[test]
fn two_targets_never_have_one_file() {
    let folder = Folder::new("locked");
    let first = folder.open("state", false).unwrap();
    assert_eq!(folder.refuses("state", false), Code::Busy);
    drop(first);
    let reads = Wanted { create: false, read_only: true };
    let readers =
        [folder.open_as("state", reads).unwrap(), folder.open_as("state", reads).unwrap()];
    assert_eq!(folder.refuses("state", false), Code::Busy);
    drop(readers);
    assert_eq!(folder.open_as("none", reads).unwrap_err().code, Code::NoBackend);
}

#[test]
fn what_cannot_be_made_leaves_nothing_behind() {
    let folder = Folder::new("nothing");
    let refused = folder.open("no/such/folder", true).unwrap_err();
    assert_eq!(refused.code, Code::NoBackend);
}

#[test]
fn memory_is_no_place_for_what_belongs_to_a_disk() {
    let shm = Path::new("/dev/shm");
    let folder = Folder::new("memory");
    if !emptiness::is_in_memory(shm) || emptiness::is_in_memory(&folder.0) {
        // Only where /dev/shm is a tmpfs and the temporary folder is not.
        return;
    }
    let path = shm.join(format!("ublk-state-{}", std::process::id()));
    let data = folder.path("data");
    let wanted = Wanted { create: true, read_only: false };
    let refused = open(&path, &Sevens, Data { path: &data, size: 8192 }, wanted).unwrap_err();
    assert_eq!(refused.code, Code::BadBackend);
    assert!(!path.exists());
}
