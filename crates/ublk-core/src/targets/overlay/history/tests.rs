use std::path::PathBuf;

use ublk_overlay::extent::Place;

use super::*;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = PathBuf::from(format!("/dev/shm/ublk-history-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn owner() -> Owner {
    Owner { layer: Uuid::from_u128(7), file: (1, 2), boot: [3; 16] }
}

fn extents(numbers: std::ops::Range<u64>) -> Vec<Extent> {
    let extent = |number| Extent::new(2 * number, 1, Place::At { layer: 0, block: 100 + number });
    numbers.map(extent).collect()
}

fn append(
    history: &mut History,
    numbers: std::ops::Range<u64>,
) -> std::result::Result<(), Refused> {
    history.append(extents(numbers).into_iter())
}

/// The unflushed extents for the next server.
fn left(folder: &Folder) -> Option<(History, Vec<Extent>)> {
    History::resume(&folder.0, &owner(), 5).unwrap()
}

#[test]
fn the_next_server_finds_what_was_added_since_the_last_flush_in_order() {
    let folder = Folder::new("order");
    assert!(left(&folder).is_none());
    let mut history = History::new(&folder.0, &owner(), 5).unwrap();
    let mut number = 0;
    for _ in 0..40 {
        append(&mut history, number..number + 3).unwrap();
        number += 3;
        let mark = history.mark();
        append(&mut history, number..number + 2).unwrap();
        number += 2;
        history.durable(mark);
    }
    assert_eq!(History::resume(&folder.0, &owner(), 5).unwrap_err().code, Code::Busy);
    drop(history);
    let (mut history, found) = left(&folder).unwrap();
    let all = extents(0..number);
    assert!(found.len() >= 2 && all.ends_with(&found), "{found:?}");
    append(&mut history, number..number + 4).unwrap();
    drop(history);
    let (_, found) = left(&folder).unwrap();
    assert!(found.len() >= 6 && extents(0..number + 4).ends_with(&found), "{found:?}");
}

#[test]
fn a_history_that_is_full_takes_nothing_until_a_flush() {
    let folder = Folder::new("full");
    let mut history = History::new(&folder.0, &owner(), 5).unwrap();
    let most = MOST_REGIONS as u64 * REGION;
    let mut number = 0;
    while number < most {
        append(&mut history, number..number + 8).unwrap();
        number += 8;
    }
    assert_eq!(append(&mut history, number..number + 1), Err(Refused::Full));
    let mark = history.mark();
    history.durable(mark);
    append(&mut history, number..number + 8).unwrap();
    drop(history);
    let (_, found) = left(&folder).unwrap();
    assert!(extents(0..number + 8).ends_with(&found) && found.len() >= 8);
}

#[test]
fn a_history_that_cannot_grow_has_room_after_a_flush_wherever_it_is_full() {
    for first in 0..REGION {
        let folder = Folder::new("sealed");
        let mut history = History::new(&folder.0, &owner(), 5).unwrap();
        history.file = sealed(&history.file);
        (0..first).for_each(|number| append(&mut history, number..number + 1).unwrap());
        let mut number = first;
        while append(&mut history, number..number + 8).is_ok() {
            number += 8;
        }
        let mark = history.mark();
        history.durable(mark);
        assert_eq!(append(&mut history, number..number + 8), Ok(()), "after {number} records");
    }
}

/// A file of the same contents that cannot grow.
fn sealed(file: &File) -> File {
    // SAFETY: a string with its NUL; the descriptor is new.
    let fd = unsafe { libc::memfd_create(c"history".as_ptr(), libc::MFD_ALLOW_SEALING) };
    assert!(fd >= 0);
    // SAFETY: the descriptor is ours alone.
    let sealed = unsafe { <File as std::os::fd::FromRawFd>::from_raw_fd(fd) };
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    sealed.write_all_at(&bytes, 0).unwrap();
    // SAFETY: seals a file of ours.
    assert_eq!(unsafe { libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_GROW) }, 0);
    sealed
}

impl History {
    /// From now on no record can be written.
    pub(in super::super) fn break_file(&mut self) {
        self.file = File::open(&self.path).unwrap();
    }
}

#[test]
fn a_history_of_another_boot_layer_or_number_is_none() {
    let folder = Folder::new("foreign");
    let mut history = History::new(&folder.0, &owner(), 5).unwrap();
    append(&mut history, 0..3).unwrap();
    history.expect(6).unwrap();
    let left = |owner: &Owner, number| {
        // A folder of its own, where the lock is free.
        let copy = Folder::new("copy");
        fs::copy(owner.path(&folder.0), owner.path(&copy.0)).unwrap();
        History::resume(&copy.0, owner, number).unwrap().map(|(_, extents)| extents)
    };
    assert_eq!(left(&owner(), 5), Some(extents(0..3)));
    assert_eq!(left(&owner(), 6), Some(extents(0..3)), "killed while the superblock was written");
    assert_eq!(left(&owner(), 7), None);
    assert_eq!(left(&Owner { boot: [4; 16], ..owner() }, 5), None);
    history.settle().unwrap();
    assert_eq!(left(&owner(), 5), None);
    assert_eq!(left(&owner(), 6), Some(extents(0..3)));
}

#[test]
fn a_new_history_takes_the_place_of_an_old_one() {
    let folder = Folder::new("new");
    append(&mut History::new(&folder.0, &owner(), 4).unwrap(), 0..3).unwrap();
    drop(History::new(&folder.0, &owner(), 5).unwrap());
    assert_eq!(left(&folder).unwrap().1, []);
}

#[test]
fn a_file_that_is_no_history_stays_as_it_is() {
    let folder = Folder::new("else");
    let path = owner().path(&folder.0);
    let zeros = vec![0; 1 << 20];
    for other in [&b"a letter"[..], &[0, 0, 0, 1], &zeros] {
        fs::write(&path, other).unwrap();
        let refused = History::new(&folder.0, &owner(), 5).unwrap_err();
        assert_eq!(refused.code, Code::BadBackend);
        assert_eq!(fs::read(&path).unwrap(), other);
    }
    for begun in [0, HEADER + 16 * RECORD] {
        fs::write(&path, &zeros[..begun]).unwrap();
        drop(History::new(&folder.0, &owner(), 5).unwrap());
    }
}

#[test]
fn a_file_that_is_cut_under_its_server_kills_nobody_and_is_noticed() {
    let folder = Folder::new("cut");
    let mut history = History::new(&folder.0, &owner(), 5).unwrap();
    append(&mut history, 0..3).unwrap();
    fs::write(owner().path(&folder.0), b"").unwrap();
    append(&mut history, 3..5).unwrap();
    drop(history);
    assert!(left(&folder).is_none());
}
