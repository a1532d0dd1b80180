//! Tree, check, and guarded bases.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};

use ublk_overlay::superblock::PAGE;

use super::super::super::Op;
use super::super::{Progress, check, check_no_base, create, flatten, tree};
use super::chain::Chain;
use super::disk::{Cache, block_of};
use super::machine::run;
use crate::error::Code;

#[test]
fn the_tree_says_who_stands_on_whom_and_who_serves_it() {
    let chain = Chain::new(1, 3);
    let base = chain.folder.path.join("base");
    let server = chain.serve(chain.live()).unwrap();
    let found = tree(&chain.folder.path).unwrap();
    let told: Vec<_> = found
        .iter()
        .map(|one| (one.path.clone(), one.below.clone(), one.on_layer, one.frozen, one.closed))
        .collect();
    let [low, middle, high] = [0, 1, 2].map(|number| chain.layers[number].clone());
    assert_eq!(
        told,
        [
            (low.clone(), Some(base.clone()), false, true, true),
            (middle.clone(), Some(low.clone()), true, true, true),
            (high, Some(middle), true, false, false),
        ]
    );
    let servers: Vec<_> = found.iter().map(|one| one.server).collect();
    assert_eq!(servers, [None, None, Some(std::process::id())]);
    drop(server);
    fs::remove_file(&low).unwrap();
    fs::remove_file(&base).unwrap();
    let found = tree(&chain.folder.path).unwrap();
    assert_eq!((found.len(), &found[0].below, found[1].server), (2, &None, None));
    assert_eq!(tree(&low).unwrap_err().code, Code::NoBackend);
}

#[test]
fn a_base_with_layers_is_not_served_for_writing_and_the_layers_are_named() {
    let chain = Chain::new(2, 2);
    let base = chain.folder.path.join("base");
    let error = check_no_base(&base).unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
    let (low, high) = (&chain.layers[0], &chain.layers[1]);
    assert!(error.message.ends_with(&low.display().to_string()), "{error}");
    check_no_base(high).unwrap();
    check_no_base(&chain.folder.path.join("nothing")).unwrap();
    flatten(high, true, &Progress::default()).unwrap();
    let error = check_no_base(&base).unwrap_err();
    assert!(error.message.ends_with(&high.display().to_string()), "{error}");
    File::options().write(true).open(&base).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    check_no_base(&base).unwrap();
}

fn problems(chain: &Chain) -> Vec<String> {
    let base = chain.folder.base();
    let found = check(chain.live(), Some(&base), false, &Progress::default()).unwrap();
    found.problems.into_iter().map(|(_, what)| what).collect()
}

#[test]
fn a_sound_disk_has_no_problems() {
    for seed in 0..6 {
        let chain = Chain::new(seed, 3);
        assert_eq!(problems(&chain), [""; 0], "seed {seed}");
    }
}

#[test]
fn what_is_wrong_is_told() {
    let tell = |damage: &dyn Fn(&Chain), expected: &str| {
        let chain = Chain::new(3, 2);
        damage(&chain);
        let found = problems(&chain);
        assert!(found.iter().any(|what| what.contains(expected)), "{expected}: {found:?}");
    };
    let write = |chain: &Chain, layer: usize, block: u64, bytes: &[u8]| {
        let file = File::options().write(true).open(&chain.layers[layer]).unwrap();
        file.write_all_at(bytes, block * PAGE as u64).unwrap();
    };
    tell(&|chain| write(chain, 1, 0, &[7; PAGE]), "one of the two superblocks is damaged");
    tell(&|chain| (0..2).for_each(|block| write(chain, 1, block, &[7; PAGE])), "no superblock");
    tell(&|chain| fs::remove_file(&chain.layers[0]).unwrap(), "there is no");
    tell(&|chain| fs::copy(&chain.layers[1], &chain.layers[0]).map(drop).unwrap(), "is layer");
    tell(
        &|chain| {
            let file = File::options().write(true).open(chain.live()).unwrap();
            file.set_len(8 * PAGE as u64).unwrap();
        },
        "the log leaves the file",
    );
    tell(
        &|chain| {
            let base = File::options().write(true).open(chain.folder.path.join("base")).unwrap();
            base.set_modified(std::time::UNIX_EPOCH).unwrap();
        },
        "was modified since",
    );
    let chain = Chain::new(3, 1);
    let server = chain.serve(chain.live()).unwrap();
    let error = check(chain.live(), None, false, &Progress::default()).unwrap_err();
    assert_eq!(error.code, Code::Busy);
    drop(server);
}

#[test]
fn a_repair_gives_unused_space_back_and_changes_no_block() {
    for seed in 0..4 {
        let chain = Chain::new(seed, 1);
        let file = File::options().write(true).open(chain.live()).unwrap();
        // As a server that was killed before it wrote to what it had allocated.
        let end = file.metadata().unwrap().len();
        file.write_all_at(&vec![7; 2 << 20], end).unwrap();
        drop(file);
        let found = check(chain.live(), None, false, &Progress::default()).unwrap();
        assert!(found.unused >= 1 << 20, "{found:?}");
        let before = fs::metadata(chain.live()).unwrap().blocks();
        let found = check(chain.live(), None, true, &Progress::default()).unwrap();
        let after = fs::metadata(chain.live()).unwrap().blocks();
        assert_eq!((found.unused, found.reclaimed), (0, (before - after) * 512));
        assert!(found.reclaimed >= 1 << 20);
        assert_eq!(chain.read(chain.live()), chain.model(), "seed {seed}");
        // The server writes to what was given back.
        let overlay = chain.serve(chain.live()).unwrap();
        let mut cache = Cache::new(chain.live());
        run(&overlay, &mut cache, Op::Write, (0, 64), block_of(5).repeat(64)).unwrap();
        drop(overlay);
        assert_eq!(chain.read(chain.live()), [5; 64]);
        assert_eq!(problems(&chain), [""; 0]);
    }
}

#[test]
fn layers_of_another_base_do_not_guard_a_base() {
    let chain = Chain::new(4, 1);
    let image = chain.folder.path.join("image");
    fs::write(&image, vec![0; 64 * PAGE]).unwrap();
    check_no_base(&image).unwrap();
    create(&chain.folder.base(), &chain.folder.path.join("other"), None).unwrap();
    let error = check_no_base(&chain.folder.path.join("base")).unwrap_err();
    assert!(error.message.contains("layer, ") && error.message.contains("other"), "{error}");
}
