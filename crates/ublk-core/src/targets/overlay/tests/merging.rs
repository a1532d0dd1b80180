//! Flatten and commit, killed anywhere; export.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::super::offline::kill;
use super::super::{Progress, commit, export, flatten, info};
use super::chain::{Chain, DISK};
use super::disk::BLOCK;
use crate::error::Code;

fn quietly() -> Progress {
    Progress::default()
}

#[test]
fn an_export_has_the_whole_disk_and_holes_for_zeros() {
    for seed in 0..6 {
        let chain = Chain::new(seed, 3);
        for (layer, model) in chain.layers.iter().zip(&chain.models) {
            assert_eq!(chain.export(layer), *model, "seed {seed}, {}", layer.display());
        }
        let out = chain.folder.path.join("out");
        let progress = quietly();
        let made = export(&chain.folder.base(), chain.live(), &out, false, &progress).unwrap();
        let data = chain.model().iter().filter(|&&stamp| stamp != 0).count() * BLOCK;
        assert_eq!((made.size, made.written), (DISK * BLOCK as u64, data as u64));
        assert_eq!(fs::metadata(&out).unwrap().blocks() * 512, data as u64, "seed {seed}");
        assert_eq!(progress.get(), (made.size, made.size));
        assert_eq!(chain.read(chain.live()), chain.model(), "the disk stays as it was");
    }
}

#[test]
fn an_export_replaces_a_file_only_if_asked_to_and_never_a_part_of_the_disk() {
    let chain = Chain::new(1, 2);
    let out = chain.folder.path.join("out");
    fs::write(&out, "precious").unwrap();
    let export_to = |out: &Path, replaces| {
        export(&chain.folder.base(), chain.live(), out, replaces, &quietly()).map_err(|error| {
            assert!(error.hint.is_some(), "{error}");
            (error.code, error.message)
        })
    };
    let (code, message) = export_to(&out, false).unwrap_err();
    assert_eq!(code, Code::BadBackend);
    assert!(message.contains("it exists"), "{message}");
    for part in [chain.live(), &chain.layers[0], &chain.folder.path.join("base")] {
        let (code, message) = export_to(part, true).unwrap_err();
        assert_eq!(code, Code::InvalidArgument);
        assert!(message.contains("of the disk"), "{message}");
    }
    let pipe = chain.folder.path.join("pipe");
    let name = std::ffi::CString::new(pipe.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: a string with its NUL.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let (code, message) = export_to(&pipe, true).unwrap_err();
    assert_eq!(code, Code::InvalidArgument);
    assert!(message.contains("no regular file"), "{message}");
    let lock = File::open(&out).unwrap();
    lock.lock().unwrap();
    assert_eq!(export_to(&out, true).unwrap_err().0, Code::Busy);
    lock.unlock().unwrap();
    assert_eq!(fs::read(&out).unwrap(), b"precious");
    export_to(&out, true).unwrap();
    assert_eq!(fs::metadata(&out).unwrap().len(), DISK * BLOCK as u64);
}

#[test]
fn an_export_that_is_killed_or_cancelled_leaves_the_file_as_it_was() {
    let chain = Chain::new(2, 2);
    let out = chain.folder.path.join("out");
    let progress = quietly();
    progress.cancel();
    let error = export(&chain.folder.base(), chain.live(), &out, false, &progress).unwrap_err();
    assert_eq!(error.errno, Some(libc::ECANCELED));
    assert!(!chain.files().contains(&"out".to_owned()));
    for points in 0.. {
        fs::write(&out, "precious").unwrap();
        let verb = || export(&chain.folder.base(), chain.live(), &out, true, &quietly());
        let (result, ended) = kill::after(points, verb);
        let old = fs::read(&out).unwrap() == b"precious";
        assert!(old || fs::metadata(&out).unwrap().len() == DISK * BLOCK as u64);
        if ended {
            assert!(result.is_ok() && !old && points > 2);
            break;
        }
    }
    assert_eq!(chain.files(), ["base", "layer", "layer-1", "out"]);
}

#[test]
fn a_flattened_disk_has_its_contents_in_one_layer() {
    for seed in 0..6 {
        let chain = Chain::new(seed, 4);
        let progress = quietly();
        let merged = flatten(chain.live(), false, &progress).unwrap();
        let below: Vec<_> = chain.layers[..3].iter().rev().cloned().collect();
        assert_eq!((merged.kept, merged.removed), (below.clone(), vec![]));
        let (done, all) = progress.get();
        assert!(done == all && all > 0);
        let layers = info(chain.live()).unwrap();
        assert_eq!((layers.len(), layers[0].frozen), (1, false));
        assert_eq!(chain.read(chain.live()), chain.model(), "seed {seed}");
        for (layer, model) in below.iter().zip(chain.models[..3].iter().rev()) {
            assert_eq!(chain.export(layer), *model, "the layers below stay as they were");
        }
    }
}

#[test]
fn a_flattened_frozen_layer_still_carries_its_children() {
    let chain = Chain::new(3, 3);
    flatten(&chain.layers[1], false, &quietly()).unwrap();
    assert_eq!(info(chain.live()).unwrap().len(), 2);
    assert_eq!(chain.read(chain.live()), chain.model());
    let server = chain.serve(chain.live()).unwrap();
    let error = flatten(&chain.layers[1], false, &quietly()).unwrap_err();
    assert_eq!(error.code, Code::Busy, "a server has a layer above");
    drop(server);
}

#[test]
fn pruning_removes_what_no_other_layer_stands_on() {
    let mut chain = Chain::new(4, 4);
    let other = chain.folder.path.join("other");
    let live = chain.layers.pop().unwrap();
    super::super::fork(chain.live(), std::slice::from_ref(&other), None).unwrap();
    chain.layers.push(live);
    let merged = flatten(chain.live(), true, &quietly()).unwrap();
    assert!(merged.removed.is_empty());
    assert_eq!(chain.read(&other), chain.models[2]);
    let merged = flatten(&other, true, &quietly()).unwrap();
    assert_eq!((merged.kept.len(), merged.removed.len()), (0, 3));
    assert_eq!(chain.files(), ["base", "layer-3", "other"]);
    assert_eq!(chain.read(chain.live()), chain.model());
    assert_eq!(chain.read(&other), chain.models[2]);
}

#[test]
fn a_commit_makes_one_layer_of_two() {
    for seed in 0..6 {
        let chain = Chain::new(seed, 3);
        commit(chain.live(), &quietly()).unwrap();
        assert_eq!(chain.files(), ["base", "layer", "layer-2"]);
        assert_eq!(chain.read(chain.live()), chain.model(), "seed {seed}");
        commit(chain.live(), &quietly()).unwrap();
        assert_eq!(chain.files(), ["base", "layer-2"]);
        assert_eq!(chain.read(chain.live()), chain.model(), "seed {seed}");
        let error = commit(chain.live(), &quietly()).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument);
        assert!(error.message.contains("stands on its base"), "{error}");
    }
}

#[test]
fn a_commit_into_a_layer_with_other_children_is_refused_and_names_these() {
    let chain = Chain::new(5, 2);
    let other = chain.folder.path.join("other");
    super::super::fork(&chain.layers[0], std::slice::from_ref(&other), None).unwrap();
    let error = commit(chain.live(), &quietly()).unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
    assert!(error.message.contains(&other.display().to_string()), "{error}");
    assert!(!error.message.contains("layer-1,"), "{error}");
    assert_eq!(info(chain.live()).unwrap().len(), 2);
}

#[test]
fn a_merge_that_is_killed_anywhere_leaves_the_disk_as_it_is() {
    for seed in 0..2 {
        for flattens in [true, false] {
            for points in 0.. {
                let chain = Chain::new(seed, 3);
                let (result, ended) = kill::after(points, || match flattens {
                    true => flatten(chain.live(), true, &quietly()),
                    false => commit(chain.live(), &quietly()),
                });
                assert_eq!(chain.read(chain.live()), chain.model(), "seed {seed}, {points}");
                if ended {
                    result.unwrap();
                    assert!(points > 3);
                    break;
                }
                // Whatever the kill has left, a second merge ends well and leaves no draft.
                flatten(chain.live(), true, &quietly()).unwrap();
                assert_eq!(chain.read(chain.live()), chain.model(), "seed {seed}, {points}");
                assert!(!chain.files().iter().any(|name| name.contains("draft")));
            }
        }
    }
}

#[test]
fn a_merge_that_is_cancelled_changes_nothing() {
    let chain = Chain::new(6, 3);
    let progress = quietly();
    progress.cancel();
    let error = flatten(chain.live(), true, &progress).unwrap_err();
    assert_eq!(error.errno, Some(libc::ECANCELED));
    assert_eq!(info(chain.live()).unwrap().len(), 3);
    assert_eq!(chain.read(chain.live()), chain.model());
}

#[test]
fn a_layer_that_was_not_closed_is_not_merged() {
    let chain = Chain::new(7, 2);
    let boot = super::super::super::Boot::simulated(9);
    let options = chain.folder.options(&boot);
    let killed = super::super::Overlay::open(chain.folder.base(), chain.live(), &options).unwrap();
    boot.end();
    drop(killed);
    for merge in [flatten(chain.live(), true, &quietly()), commit(chain.live(), &quietly())] {
        let error = merge.unwrap_err();
        assert!(error.message.contains("was not closed"), "{error}");
    }
}
