//! Frozen layers as bases of disks in other folders.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::super::native::Native;
use super::super::super::{Boot, Errno, Op, Plan, Step, Target};
use super::super::make::{Birth, Unnamed};
use super::super::{
    Fixed, Overlay, OverlayOptions, Progress, check, check_no_base, commit, commit_into_base,
    create, export, flatten, folders, fork, rebase,
};
use super::chain::{Chain, DISK, stamps};
use super::disk::{Cache, Folder, block_of};
use super::machine::run;
use crate::error::{Code, Result};
use crate::targets::testing::request;

impl Chain {
    fn options(&self) -> OverlayOptions {
        self.folder.options(&Boot::of_machine().unwrap())
    }

    /// The disk of a frozen layer, as a base.
    fn fixed(&self, layer: &Path) -> Result<Native> {
        let fixed = Fixed::open(self.folder.base(), layer, &self.options())?;
        Ok(Native::Fixed(Box::new(fixed)))
    }

    /// A disk in another folder on the frozen layer `below`.
    fn elsewhere(&self, below: &Path) -> PathBuf {
        let path = self.folder.empty_history("history-elsewhere").join("guest");
        create(&self.fixed(below).unwrap(), &path, None).unwrap();
        path
    }

    fn read_guest(&self, guest: &Path, below: &Path) -> Result<Vec<u64>> {
        let overlay = Overlay::open(self.fixed(below)?, guest, &self.options())?;
        let mut cache = Cache::new(guest);
        Ok(stamps(&run(&overlay, &mut cache, Op::Read, (0, DISK), Vec::new()).unwrap()))
    }
}

#[test]
fn a_disk_on_a_frozen_layer_in_another_folder_has_the_contents_and_writes_of_its_own() {
    for seed in 0..6 {
        let chain = Chain::new(seed, 4);
        let below = &chain.layers[2];
        let guest = chain.elsewhere(below);
        let mut model = chain.models[2].clone();
        assert_eq!(chain.read_guest(&guest, below).unwrap(), model);
        {
            let overlay =
                Overlay::open(chain.fixed(below).unwrap(), &guest, &chain.options()).unwrap();
            assert!(overlay.layout().unwrap().contains("frozen("));
            let mut cache = Cache::new(&guest);
            run(&overlay, &mut cache, Op::Write, (5, 2), block_of(99).repeat(2)).unwrap();
            run(&overlay, &mut cache, Op::Discard, (9, 3), Vec::new()).unwrap();
        }
        model[5..7].fill(99);
        model[9..12].fill(0);
        assert_eq!(chain.read_guest(&guest, below).unwrap(), model);
        // The disk below, and the others on the same layers, are as they were.
        assert_eq!(chain.export(below), chain.models[2]);
        assert_eq!(chain.read(chain.live()), chain.model());
        let out = chain.folder.path.join("out");
        export(&chain.fixed(below).unwrap(), &guest, &out, true, &Progress::default()).unwrap();
        assert_eq!(stamps(&fs::read(&out).unwrap()), model);
        // Away from the layers.
        let raw = chain.folder.path.join("raw");
        fs::write(&raw, [0].repeat(super::disk::BLOCK).repeat(usize::try_from(DISK).unwrap()))
            .unwrap();
        let how = crate::targets::file::FileOptions { read_only: true, ..Default::default() };
        let raw = || Native::File(crate::targets::file::File::open(&raw, &how).unwrap());
        rebase(&guest, Some(&chain.fixed(below).unwrap()), &raw(), &Progress::default()).unwrap();
        let overlay = Overlay::open(raw(), &guest, &chain.options()).unwrap();
        assert_eq!(stamps(&super::machine::read_all(&overlay)), model);
    }
}

#[test]
fn a_frozen_disk_takes_no_writes_and_a_live_one_is_no_base() {
    let chain = Chain::new(2, 3);
    let fixed = chain.fixed(&chain.layers[1]).unwrap();
    assert!(fixed.geometry().read_only && fixed.geometry().discard.is_none());
    assert!(!fixed.takes_rounds());
    let mut steps = vec![Step::EMPTY; fixed.max_steps()];
    for op in [Op::Write, Op::Discard, Op::WriteZeroes] {
        let planned = fixed.plan(&request(op, 0, 4096), &mut Plan::new(&mut steps));
        assert_eq!(planned, Err(Errno(libc::EROFS)));
    }
    // Others read the same layers.
    let again = chain.fixed(&chain.layers[1]).unwrap();
    drop((fixed, again));
    let error = chain.fixed(chain.live()).unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
    assert!(error.hint.unwrap().contains("ublk overlay fork"));
    let live = chain.serve(chain.live()).unwrap();
    assert_eq!(chain.fixed(chain.live()).unwrap_err().code, Code::Busy);
    let on_live = create(&Native::Overlay(Box::new(live)), &chain.folder.path.join("other"), None);
    assert!(on_live.unwrap_err().message.contains("a live layer"));
}

#[test]
fn a_merge_below_a_disk_in_another_folder_keeps_the_base_what_it_is() {
    let chain = Chain::new(3, 4);
    let below = &chain.layers[2];
    let guest = chain.elsewhere(below);
    let served = chain.fixed(below).unwrap();
    let error = flatten(below, true, &Progress::default()).unwrap_err();
    assert_eq!(error.code, Code::Busy, "{error}");
    drop(served);
    flatten(below, true, &Progress::default()).unwrap();
    assert_eq!(chain.read_guest(&guest, below).unwrap(), chain.models[2]);
    check(below, None, true, &Progress::default()).unwrap();
    assert_eq!(chain.read_guest(&guest, below).unwrap(), chain.models[2]);
    // The live layer's parent has a guest.
    let error = commit(chain.live(), &Progress::default()).unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
    assert!(error.message.contains("history-elsewhere/guest"), "{error}");
    let merged = flatten(chain.live(), true, &Progress::default()).unwrap();
    assert_eq!((merged.kept, merged.removed), (vec![below.clone()], vec![]));
    assert_eq!(chain.read_guest(&guest, below).unwrap(), chain.models[2]);
    fs::remove_file(&guest).unwrap();
    fork(below, &[chain.folder.path.join("again")], None).unwrap();
    let merged = flatten(&chain.folder.path.join("again"), true, &Progress::default()).unwrap();
    assert_eq!(merged.removed, std::slice::from_ref(below), "nothing stands on it any more");
}

#[test]
fn a_base_is_guarded_from_every_folder_that_it_names() {
    let chain = Chain::new(5, 2);
    let base = chain.folder.path.join("base");
    let guest = chain.elsewhere(&chain.layers[0]);
    fs::remove_file(chain.live()).unwrap();
    fs::remove_file(&chain.layers[0]).unwrap();
    // The base's time is older than the layer's, so the guest does not show at the base itself.
    check_no_base(&base).unwrap();
    fs::remove_file(&guest).unwrap();
    let elsewhere = chain.folder.path.join("history-elsewhere").join("on-base");
    create(&chain.folder.base(), &elsewhere, None).unwrap();
    let names = elsewhere.display().to_string();
    let error = check_no_base(&base).unwrap_err();
    assert!(error.message.contains(&names), "{error}");
    let layer = chain.folder.path.join("layer");
    create(&chain.folder.base(), &layer, None).unwrap();
    let error = commit_into_base(&base, &layer, &Progress::default()).unwrap_err();
    assert!(error.message.contains(&names), "{error}");
    fs::remove_file(elsewhere).unwrap();
    commit_into_base(&base, &layer, &Progress::default()).unwrap();
}

#[test]
fn a_base_names_a_folder_before_there_is_a_layer_in_it() {
    let folder = Folder::new(4);
    let elsewhere = folder.empty_history("elsewhere");
    let layer = elsewhere.join("layer");
    let made = Unnamed::make(&layer, &Birth::new(4, 4096, 0)).unwrap();
    // The layer gets no name, as after a kill.
    fs::write(&layer, "other").unwrap();
    assert_eq!(folders::name(made, &folder.base()).unwrap_err().code, Code::BadBackend);
    assert_eq!(folders::noted(&folder.path.join("base")), [folder.path.clone(), elsewhere]);
}

#[test]
fn folders_that_are_gone_make_room_for_others_on_a_base_with_too_many_notes() {
    let folder = Folder::new(4);
    let make = |name: &str| folder.empty_history(name);
    let there: Vec<_> = (0..10).map(|number| make(&format!("there-{number}"))).collect();
    let gone: Vec<_> = (0..990).map(|number| make(&format!("gone-{number}"))).collect();
    let base = folder.base();
    for one in there.iter().chain(&gone) {
        folders::note(&base, &one.join("layer"));
    }
    let noted = || folders::noted(&folder.path.join("base"));
    assert_eq!(noted().len(), 1001, "the base's folder, and all others");
    for one in &gone {
        fs::remove_dir(one).unwrap();
    }
    let last = make("last");
    create(&base, &last.join("layer"), None).unwrap();
    let mut found = noted();
    found.sort();
    let mut expected = [vec![folder.path.clone(), last], there].concat();
    expected.sort();
    assert_eq!(found, expected);
    let error = check_no_base(&folder.path.join("base")).unwrap_err();
    assert!(error.message.contains("last/layer"), "{error}");
    // Folders that come back are not noted any more.
    gone.iter().for_each(|one| fs::create_dir(one).unwrap());
    assert_eq!(noted().len(), expected.len());
}
