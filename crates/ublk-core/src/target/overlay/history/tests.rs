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

#[test]
fn the_next_server_finds_what_was_added_since_the_last_flush_in_order() {
    let folder = Folder::new("order");
    let (mut history, left) = History::open(&folder.0, &owner(), 5).unwrap();
    assert_eq!(left, []);
    let mut number = 0;
    for _ in 0..40 {
        append(&mut history, number..number + 3).unwrap();
        number += 3;
        let mark = history.mark();
        append(&mut history, number..number + 2).unwrap();
        number += 2;
        history.durable(mark);
    }
    assert_eq!(History::open(&folder.0, &owner(), 5).unwrap_err().code, Code::Busy);
    drop(history);
    let (mut history, left) = History::open(&folder.0, &owner(), 5).unwrap();
    let all = extents(0..number);
    assert!(left.len() >= 2 && all.ends_with(&left), "{left:?}");
    append(&mut history, number..number + 4).unwrap();
    drop(history);
    let (_, left) = History::open(&folder.0, &owner(), 5).unwrap();
    assert!(left.len() >= 6 && extents(0..number + 4).ends_with(&left), "{left:?}");
}

#[test]
fn a_history_that_is_full_takes_nothing_until_a_flush() {
    let folder = Folder::new("full");
    let (mut history, _) = History::open(&folder.0, &owner(), 5).unwrap();
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
    let (_, left) = History::open(&folder.0, &owner(), 5).unwrap();
    assert!(extents(0..number + 8).ends_with(&left) && left.len() >= 8);
}

#[test]
fn a_history_of_another_boot_layer_or_superblock_is_none() {
    let folder = Folder::new("foreign");
    let (mut history, _) = History::open(&folder.0, &owner(), 5).unwrap();
    append(&mut history, 0..3).unwrap();
    history.expect(6).unwrap();
    drop(history);
    let left = |owner: &Owner, generation| {
        // A copy, since what is not its own is overwritten.
        let copy = Folder::new("copy");
        fs::copy(folder.0.join(owner.name()), copy.0.join(owner.name())).unwrap();
        History::open(&copy.0, owner, generation).unwrap().1
    };
    assert_eq!(left(&owner(), 5), extents(0..3));
    assert_eq!(left(&owner(), 6), extents(0..3), "killed while the superblock was written");
    assert_eq!(left(&owner(), 7), []);
    assert_eq!(left(&Owner { boot: [4; 16], ..owner() }, 5), []);
}

#[test]
fn a_file_that_is_cut_under_its_server_kills_nobody() {
    let folder = Folder::new("cut");
    let (mut history, _) = History::open(&folder.0, &owner(), 5).unwrap();
    append(&mut history, 0..3).unwrap();
    fs::write(folder.0.join(owner().name()), b"").unwrap();
    append(&mut history, 3..5).unwrap();
    drop(history);
    assert_eq!(History::open(&folder.0, &owner(), 5).unwrap().1, []);
}
