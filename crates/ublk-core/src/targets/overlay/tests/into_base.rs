//! Commit of a layer into its base, killed anywhere.

use std::fs;

use super::super::offline::kill;
use super::super::{Progress, commit_into_base, create, fork, info};
use super::chain::{Chain, stamps};
use crate::error::{Code, Result};

fn commit_now(chain: &Chain) -> Result<()> {
    let base = chain.folder.path.join("base");
    commit_into_base(&base, chain.live(), &Progress::default())
}

fn base(chain: &Chain) -> Vec<u64> {
    stamps(&fs::read(chain.folder.path.join("base")).unwrap())
}

#[test]
fn the_base_gets_the_layers_blocks_and_the_layer_is_empty() {
    for seed in 0..6 {
        let chain = Chain::new(seed, 1);
        let before = info(chain.live()).unwrap();
        commit_now(&chain).unwrap();
        assert_eq!(base(&chain), chain.model(), "seed {seed}");
        let after = info(chain.live()).unwrap();
        assert_eq!((after[0].stored, after[0].zeros, after[0].extents), (0, 0, 0));
        assert_eq!(after[0].layer, before[0].layer);
        assert_eq!(chain.read(chain.live()), chain.model(), "seed {seed}");
        assert_eq!(chain.files(), ["base", "layer"]);
    }
}

#[test]
fn a_commit_that_is_killed_anywhere_leaves_the_disk_as_it_is_and_a_second_one_ends_it() {
    for seed in 0..2 {
        for points in 0.. {
            let chain = Chain::new(seed, 1);
            let (result, ended) = kill::after(points, || commit_now(&chain));
            assert_eq!(chain.read(chain.live()), chain.model(), "seed {seed}, {points}");
            if ended {
                result.unwrap();
                assert!(points > 5);
                break;
            }
            if info(chain.live()).unwrap()[0].stored > 0 && points > 0 {
                let child = chain.folder.path.join("child");
                let error = fork(chain.live(), &[child], None).unwrap_err();
                assert!(error.message.contains("was interrupted"), "{error}");
            }
            commit_now(&chain).unwrap();
            assert_eq!(base(&chain), chain.model(), "seed {seed}, {points}");
            assert_eq!(chain.read(chain.live()), chain.model(), "seed {seed}, {points}");
            assert_eq!(chain.files(), ["base", "layer"]);
        }
    }
}

#[test]
fn a_base_of_other_layers_is_not_written_to_and_these_are_named() {
    let chain = Chain::new(1, 1);
    let other = chain.folder.path.join("other");
    create(&chain.folder.base(), &other, None).unwrap();
    let before = base(&chain);
    let error = commit_now(&chain).unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
    assert!(error.message.contains(&other.display().to_string()), "{error}");
    assert_eq!(base(&chain), before);
    fs::remove_file(&other).unwrap();
    commit_now(&chain).unwrap();
}

#[test]
fn a_layer_on_the_old_base_is_refused_after_a_commit() {
    let chain = Chain::new(2, 1);
    let other = chain.folder.path.join("other");
    create(&chain.folder.base(), &other, None).unwrap();
    // Moved to a folder that the base does not name.
    let elsewhere = chain.folder.empty_history("history-elsewhere").join("other");
    fs::rename(other, &elsewhere).unwrap();
    commit_now(&chain).unwrap();
    let error = chain.serve(&elsewhere).unwrap_err();
    assert!(error.message.contains("was modified"), "{error}");
}

#[test]
fn a_layer_on_other_layers_a_served_base_and_another_base_are_refused() {
    let chain = Chain::new(3, 2);
    let error = commit_now(&chain).unwrap_err();
    assert!(error.message.contains("stands on other layers"), "{error}");
    let chain = Chain::new(3, 1);
    let server = chain.folder.base();
    assert_eq!(commit_now(&chain).unwrap_err().code, Code::Busy);
    drop(server);
    let path = chain.folder.path.join("base");
    fs::File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH)
        .unwrap();
    let error = commit_now(&chain).unwrap_err();
    assert!(error.message.contains("was modified"), "{error}");
}
