//! Opening disks, forking them, and what is refused.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime};

use super::super::super::native::Native;
use super::super::super::null::Null;
use super::super::super::{Boot, Op};
use super::super::{Change, Overlay, OverlayOptions, create, diff, fork, info};
use super::disk::{Cache, Folder, block_of, of_base, stamp_of};
use super::machine::run;
use crate::error::Code;

const DISK: u64 = 64;

fn boot() -> Boot {
    Boot::of_machine().unwrap()
}

fn refused(folder: &Folder) -> (Code, String) {
    let error = folder.open(&boot()).unwrap_err();
    assert!(error.hint.is_some(), "{error}");
    (error.code, error.message)
}

fn write(overlay: &Overlay, cache: &mut Cache, block: u64, stamp: u64) {
    run(overlay, cache, Op::Write, (block, 1), block_of(stamp)).unwrap();
}

fn read(overlay: &Overlay, cache: &mut Cache, block: u64) -> u64 {
    stamp_of(&run(overlay, cache, Op::Read, (block, 1), Vec::new()).unwrap())
}

#[test]
fn a_layer_is_made_only_where_that_is_asked_for_and_nothing_is_there() {
    let folder = Folder::new(DISK);
    let (code, message) = refused(&folder);
    assert_eq!(code, Code::NoBackend, "{message}");
    let options = OverlayOptions { create: true, ..folder.options(&boot()) };
    let open = || Overlay::open(folder.base(), &folder.layer(), &options);
    let mut cache;
    {
        let overlay = open().unwrap();
        cache = Cache::new(&folder.layer());
        write(&overlay, &mut cache, 3, 77);
    }
    assert_eq!(folder.histories(), 0, "a server that ends in good order leaves none");
    let again = open().unwrap();
    assert_eq!(read(&again, &mut cache, 3), 77, "what is there is opened");
    assert_eq!(refused(&folder).0, Code::Busy);
    drop(again);
    fs::write(folder.layer(), vec![7; 1 << 20]).unwrap();
    let error = open().unwrap_err();
    assert_eq!(error.code, Code::BadBackend);
    assert_eq!(fs::read(folder.layer()).unwrap(), vec![7; 1 << 20], "left as it is");
}

#[test]
fn a_base_that_is_not_what_it_was_is_refused() {
    let folder = Folder::new(DISK);
    create(&folder.base(), &folder.layer(), None).unwrap();
    drop(folder.open(&boot()).unwrap());
    let other =
        Overlay::open(Native::Null(Null::new(1 << 20)), &folder.layer(), &folder.options(&boot()));
    assert!(other.unwrap_err().message.contains("of a base of 262144 bytes"));
    let base = File::options().write(true).open(folder.path.join("base")).unwrap();
    base.set_modified(SystemTime::now() - Duration::from_secs(9)).unwrap();
    let (code, message) = refused(&folder);
    assert_eq!(code, Code::BadBackend);
    assert!(message.contains("was modified"), "{message}");
}

#[test]
fn what_cannot_be_a_base_is_refused() {
    let folder = Folder::new(DISK);
    let open = |base| Overlay::open(base, &folder.layer(), &folder.options(&boot())).unwrap_err();
    assert_eq!(open(Native::Null(Null::new(4096 + 512))).code, Code::InvalidArgument);
    create(&folder.base(), &folder.layer(), None).unwrap();
    let below = Native::Overlay(Box::new(folder.open(&boot()).unwrap()));
    assert_eq!(open(below).code, Code::InvalidArgument);
}

#[test]
fn a_damaged_layer_is_refused_and_leaves_no_history() {
    let folder = Folder::new(DISK);
    create(&folder.base(), &folder.layer(), None).unwrap();
    let file = File::options().write(true).open(folder.layer()).unwrap();
    file.write_all_at(&[0; 8192], 0).unwrap();
    assert_eq!(refused(&folder).0, Code::BadBackend);
    file.set_len(100).unwrap();
    assert_eq!(refused(&folder).0, Code::BadBackend);
    assert_eq!(folder.histories(), 0);
}

#[test]
fn a_history_that_is_not_in_memory_is_refused() {
    let folder = Folder::new(DISK);
    create(&folder.base(), &folder.layer(), None).unwrap();
    let options = OverlayOptions {
        history: Some(env!("CARGO_MANIFEST_DIR").into()),
        ..folder.options(&boot())
    };
    let error = Overlay::open(folder.base(), &folder.layer(), &options).unwrap_err();
    assert_eq!(error.code, Code::Unsupported);
    assert!(error.hint.unwrap().contains("history"));
}

/// A disk whose server was killed after a write that was answered and not flushed.
fn killed() -> (Folder, Cache) {
    let folder = Folder::new(DISK);
    create(&folder.base(), &folder.layer(), None).unwrap();
    let mut cache = Cache::new(&folder.layer());
    write_and_kill(&folder, &mut cache, 3, 30);
    (folder, cache)
}

fn write_and_kill(folder: &Folder, cache: &mut Cache, block: u64, stamp: u64) {
    let killed = boot();
    let overlay = folder.open(&killed).unwrap();
    write(&overlay, cache, block, stamp);
    killed.end();
}

#[test]
fn a_disk_whose_killed_servers_history_is_elsewhere_is_refused_and_left_as_it_is() {
    let (folder, mut cache) = killed();
    let before = fs::read(folder.layer()).unwrap();
    let elsewhere = folder.empty_history("elsewhere");
    let error = folder.open_with(&boot(), &elsewhere, false).unwrap_err();
    assert_eq!(error.code, Code::BadBackend);
    assert!(error.hint.unwrap().contains("the folder that the last server had"));
    let child = folder.path.join("child");
    let error = fork(&folder.layer(), std::slice::from_ref(&child), Some(&elsewhere)).unwrap_err();
    assert_eq!(error.code, Code::BadBackend);
    assert!(!child.exists());
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    assert!(fs::read(folder.layer()).unwrap() == before);
    assert!(!info(&folder.layer()).unwrap()[0].closed);
    assert_eq!(read(&folder.open(&boot()).unwrap(), &mut cache, 3), 30);
    assert!(info(&folder.layer()).unwrap()[0].closed);
    folder.open_with(&boot(), &elsewhere, false).unwrap();
}

#[test]
fn a_disk_whose_killed_servers_history_is_lost_is_opened_after_a_reboot_or_when_a_user_says_so() {
    for reboots in [true, false] {
        let (folder, mut cache) = killed();
        fs::remove_dir_all(folder.path.join("history")).unwrap();
        let emptied = folder.empty_history("history");
        assert_eq!(refused(&folder).0, Code::BadBackend);
        let next = if reboots { Boot::simulated(77) } else { boot() };
        let opened = folder.open_with(&next, &emptied, !reboots).unwrap();
        assert_eq!(read(&opened, &mut cache, 3), of_base(3));
    }
}

#[test]
fn losing_unflushed_writes_loses_none_that_are_found() {
    let (folder, mut cache) = killed();
    let opened = folder.open_with(&boot(), &folder.path.join("history"), true).unwrap();
    assert_eq!(read(&opened, &mut cache, 3), 30);
}

#[test]
fn a_copy_of_a_layer_is_opened_if_the_layer_was_closed() {
    let (folder, mut cache) = killed();
    let copy = folder.path.join("copy");
    let open = || Overlay::open(folder.base(), &copy, &folder.options(&boot()));
    fs::copy(folder.layer(), &copy).unwrap();
    assert_eq!(open().unwrap_err().code, Code::BadBackend);
    drop(folder.open(&boot()).unwrap());
    fs::copy(folder.layer(), &copy).unwrap();
    let _beside = folder.open(&boot()).unwrap();
    assert_eq!(read(&open().unwrap(), &mut cache, 3), 30);
}

#[test]
fn a_file_put_back_as_an_earlier_kill_left_it_is_refused() {
    let (folder, mut cache) = killed();
    let before = fs::read(folder.layer()).unwrap();
    write_and_kill(&folder, &mut cache, 4, 40);
    fs::write(folder.layer(), before).unwrap();
    let (code, message) = refused(&folder);
    assert_eq!(code, Code::BadBackend);
    assert!(message.contains("was not closed"), "the history is of later contents: {message}");
}

#[test]
fn children_of_a_fork_begin_as_their_parent_was_and_see_nothing_of_each_other() {
    let folder = Folder::new(DISK);
    create(&folder.base(), &folder.layer(), None).unwrap();
    let children = ["a", "b"].map(|name| folder.path.join(name));
    let history = folder.path.join("history");
    {
        let killed = boot();
        let overlay = folder.open(&killed).unwrap();
        let mut cache = Cache::new(&folder.layer());
        write(&overlay, &mut cache, 3, 30);
        write(&overlay, &mut cache, 4, 40);
        // Killed: what was not flushed is in the history alone.
        killed.end();
    }
    assert_eq!(folder.histories(), 1);
    fork(&folder.layer(), &children, Some(&history)).unwrap();
    assert_eq!(folder.histories(), 0);
    let open = |path| Overlay::open(folder.base(), path, &folder.options(&boot())).unwrap();
    {
        let [a, b] = [open(&children[0]), open(&children[1])];
        let [mut in_a, mut in_b] = [0, 1].map(|at| Cache::new(&children[at]));
        write(&a, &mut in_a, 4, 41);
        write(&b, &mut in_b, 5, 52);
        let see =
            |overlay, cache: &mut Cache| [3, 4, 5, 6].map(|block| read(overlay, cache, block));
        assert_eq!(see(&a, &mut in_a), [30, 41, of_base(5), of_base(6)]);
        assert_eq!(see(&b, &mut in_b), [30, 40, 52, of_base(6)]);
    }
    let chain = info(&children[0]).unwrap();
    let facts: Vec<_> = chain.iter().map(|one| (one.frozen, one.stored, one.extents)).collect();
    assert_eq!(facts, [(false, 4096, 1), (true, 8192, 1)]);
    let (code, message) = refused(&folder);
    assert_eq!(code, Code::BadBackend);
    assert!(message.contains("is frozen"), "{message}");
    // A frozen layer is forked again without being written to.
    let before = fs::read(folder.layer()).unwrap();
    fork(&folder.layer(), &[folder.path.join("c")], Some(&history)).unwrap();
    assert!(fs::read(folder.layer()).unwrap() == before);
    let cache = &mut Cache::new(&folder.path.join("c"));
    assert_eq!(read(&open(&folder.path.join("c")), cache, 4), 40);
}

#[test]
fn a_fork_that_cannot_be_leaves_the_disk_as_it_was() {
    let folder = Folder::new(DISK);
    create(&folder.base(), &folder.layer(), None).unwrap();
    let fork = |children: &[_]| fork(&folder.layer(), children, Some(&folder.path.join("history")));
    let (free, taken) = (folder.path.join("free"), folder.path.join("base"));
    assert_eq!(fork(&[free.clone(), taken]).unwrap_err().code, Code::BadBackend);
    let elsewhere = folder.path.join("history/child");
    assert_eq!(fork(&[elsewhere]).unwrap_err().code, Code::InvalidArgument);
    assert!(!free.exists());
    let served = folder.open(&boot()).unwrap();
    assert_eq!(fork(std::slice::from_ref(&free)).unwrap_err().code, Code::Busy);
    drop(served);
    assert!(!info(&folder.layer()).unwrap()[0].frozen);
}

#[test]
fn a_parent_that_is_missing_or_another_is_refused() {
    let folder = Folder::new(DISK);
    create(&folder.base(), &folder.layer(), None).unwrap();
    let child = folder.path.join("child");
    fork(&folder.layer(), std::slice::from_ref(&child), Some(&folder.path.join("history")))
        .unwrap();
    let open = || Overlay::open(folder.base(), &child, &folder.options(&boot())).unwrap_err();
    fs::remove_file(folder.layer()).unwrap();
    assert_eq!(open().code, Code::NoBackend);
    create(&folder.base(), &folder.layer(), None).unwrap();
    let error = open();
    assert_eq!(error.code, Code::BadBackend);
    assert!(error.message.contains("is layer"), "{error}");
}

#[test]
fn the_changes_of_a_disk_are_told_once_its_server_has_closed_it() {
    let (folder, _cache) = killed();
    let refused = diff(&folder.layer(), None).unwrap_err();
    assert_eq!(refused.code, Code::BadBackend);
    assert!(refused.message.contains("may lack answered writes"), "{refused}");
    let served = folder.open(&boot()).unwrap();
    assert_eq!(diff(&folder.layer(), None).unwrap_err().code, Code::Busy);
    drop(served);
    let changes = diff(&folder.layer(), None).unwrap();
    assert_eq!(changes, [Change { offset: 3 * 4096, length: 4096, zeros: false }]);
}
