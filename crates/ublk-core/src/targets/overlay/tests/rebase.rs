//! Another base below a disk, killed anywhere.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::super::Boot;
use super::super::super::file::{Direct, File, FileOptions};
use super::super::super::native::Native;
use super::super::offline::kill;
use super::super::{Overlay, Progress, Rebased, check, export, fork, info, rebase, tree};
use super::chain::{Chain, DISK, stamps};
use super::disk::{BLOCK, block_of, of_base};
use crate::error::{Code, Result};

/// A base of these stamps, of another time than the base of the chain.
fn make_base(chain: &Chain, name: &str, stamps: &[u64]) -> PathBuf {
    let path = chain.folder.path.join(name);
    fs::write(&path, stamps.iter().copied().flat_map(block_of).collect::<Vec<_>>()).unwrap();
    let time = std::time::SystemTime::now() + std::time::Duration::from_secs(100);
    fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    path
}

fn open(base: &Path) -> Native {
    let how = FileOptions { direct: Direct::No, read_only: true, ..FileOptions::default() };
    Native::File(File::open(base, &how).unwrap())
}

/// The base of a chain with some blocks changed, and some zeros.
fn changed(seed: u64) -> Vec<u64> {
    let change = |block: u64| match (block * 7 + seed) % 5 {
        0 => 0,
        1 => 2 << 60 | block,
        _ => of_base(block),
    };
    (0..DISK).map(change).collect()
}

fn to_new(chain: &Chain, base: &Path) -> Result<Rebased> {
    let old = chain.folder.base();
    rebase(chain.live(), Some(&old), &open(base), &Progress::default())
}

fn exported(chain: &Chain, layer: &Path, base: &Path) -> Result<Vec<u64>> {
    let out = chain.folder.path.join("exported");
    export(&open(base), layer, &out, true, &Progress::default())?;
    Ok(stamps(&fs::read(out).unwrap()))
}

#[test]
fn a_disk_reads_the_same_on_another_base_and_stores_only_what_differs() {
    let (mut zeros, mut same) = (0, 0);
    for seed in 0..6 {
        let chain = Chain::new(seed, 1 + usize::try_from(seed % 3).unwrap());
        let stamps = changed(seed);
        let base = make_base(&chain, "new", &stamps);
        let stored = || info(chain.live()).unwrap()[0].stored;
        let before = stored();
        let lower: Vec<_> = chain.layers[..chain.layers.len() - 1]
            .iter()
            .map(|layer| fs::read(layer).unwrap())
            .collect();
        let progress = Progress::default();
        let old = chain.folder.base();
        let done = rebase(chain.live(), Some(&old), &open(&base), &progress).unwrap();
        assert_eq!(done.zeros, 0, "the old base has no zeros");
        assert_eq!(stored(), before + done.copied);
        let (counted, total) = progress.get();
        assert!(counted == total && done.copied <= total, "{done:?} of {total}");
        same += total - done.copied;
        assert_eq!(exported(&chain, chain.live(), &base).unwrap(), chain.model());
        assert!(
            check(chain.live(), Some(&open(&base)), false, &progress).unwrap().problems.is_empty()
        );
        assert!(!check(chain.live(), Some(&old), false, &progress).unwrap().problems.is_empty());
        assert_eq!(
            exported(&chain, chain.live(), &chain.folder.path.join("base")).unwrap_err().code,
            Code::BadBackend
        );
        // And it is served, written to and forked.
        let options = chain.folder.options(&Boot::of_machine().unwrap());
        let served = Overlay::open(open(&base), chain.live(), &options).unwrap();
        assert_eq!(super::chain::stamps(&super::machine::read_all(&served)), chain.model());
        drop(served);
        let child = chain.folder.path.join("child");
        fork(chain.live(), std::slice::from_ref(&child), Some(&chain.folder.path.join("history")))
            .unwrap();
        assert_eq!(exported(&chain, &child, &base).unwrap(), chain.model());
        // Layers below are as they were, for other disks.
        for (layer, bytes) in chain.layers.iter().zip(lower) {
            assert!(fs::read(layer).unwrap() == bytes);
        }
        // From a base of zeros, of which the next base has none.
        let empty = make_base(&chain, "empty", &vec![0; usize::try_from(DISK).unwrap()]);
        rebase(&child, None, &open(&empty), &progress).unwrap();
        let model = exported(&chain, &child, &empty).unwrap();
        let done = rebase(&child, Some(&open(&empty)), &open(&base), &progress).unwrap();
        assert_eq!(exported(&chain, &child, &base).unwrap(), model);
        assert_eq!(done.copied, 0);
        zeros += done.zeros;
    }
    assert!(zeros > 0 && same > 0, "no seed has zeros to keep, and blocks that are the same");
}

#[test]
fn a_rebase_that_is_killed_leaves_the_disk_on_the_old_base_or_the_new_one() {
    for seed in 0..3 {
        for points in 0.. {
            let chain = Chain::new(seed, 2);
            let base = make_base(&chain, "new", &changed(seed));
            let (result, ended) = kill::after(points, || to_new(&chain, &base));
            assert_eq!(result.is_ok(), ended, "{result:?}");
            let on_new = exported(&chain, chain.live(), &base);
            let on_old = exported(&chain, chain.live(), &chain.folder.path.join("base"));
            match (ended, on_old, on_new) {
                (false, Ok(found), Err(_)) | (true, Err(_), Ok(found)) => {
                    assert_eq!(found, chain.model(), "seed {seed}, {points} points");
                }
                other => panic!("seed {seed}, {points} points: {other:?}"),
            }
            if ended {
                assert!(points > 2, "a kill before each step");
                break;
            }
            // The next one does all of it.
            to_new(&chain, &base).unwrap();
            assert_eq!(exported(&chain, chain.live(), &base).unwrap(), chain.model());
        }
    }
}

#[test]
fn a_rebase_that_is_cancelled_leaves_nothing() {
    for seed in 0..6 {
        let chain = Chain::new(seed, 2);
        // No block is the same, so that the layer grows.
        let base = make_base(&chain, "new", &[7].repeat(usize::try_from(DISK).unwrap()));
        let before = fs::metadata(chain.live()).unwrap().len();
        let progress = Progress::default();
        progress.cancel();
        let old = chain.folder.base();
        let error = rebase(chain.live(), Some(&old), &open(&base), &progress).unwrap_err();
        assert_eq!(error.errno, Some(libc::ECANCELED));
        assert_eq!(fs::metadata(chain.live()).unwrap().len(), before, "seed {seed}");
        assert_eq!(chain.read(chain.live()), chain.model());
    }
}

#[test]
fn a_base_that_was_copied_gets_its_name_alone() {
    let chain = Chain::new(5, 2);
    let all: Vec<_> = (0..DISK).map(of_base).collect();
    let base = make_base(&chain, "copy", &all);
    assert!(exported(&chain, chain.live(), &base).is_err());
    let before = fs::read(chain.live()).unwrap();
    let done = rebase(chain.live(), None, &open(&base), &Progress::default()).unwrap();
    assert_eq!(done, Rebased::default());
    assert!(fs::read(chain.live()).unwrap()[2 * BLOCK..] == before[2 * BLOCK..]);
    assert_eq!(exported(&chain, chain.live(), &base).unwrap(), chain.model());
    // A layer above another one counts, too, and the base is guarded.
    let error = super::super::check_no_base(&base).unwrap_err();
    assert!(error.message.contains(&chain.live().display().to_string()), "{error}");
    tree(&chain.folder.path).unwrap();
}

#[test]
fn a_rebase_is_refused_where_it_would_change_or_lose_something() {
    let chain = Chain::new(6, 2);
    let base = make_base(&chain, "new", &changed(6));
    let short = make_base(&chain, "short", &changed(6)[1..]);
    let old = chain.folder.base();
    let refused = |layer: &Path, from: Option<&Native>, to: &Path| {
        let error = rebase(layer, from, &open(to), &Progress::default()).unwrap_err();
        assert!(error.hint.is_some(), "{error}");
        (error.code, error.message)
    };
    let (code, message) = refused(&chain.layers[0], Some(&old), &base);
    assert_eq!(code, Code::InvalidArgument);
    assert!(message.contains("is frozen"), "{message}");
    let (code, message) = refused(chain.live(), Some(&old), &short);
    assert_eq!(code, Code::BadBackend);
    assert!(message.contains("the new base has 258048 bytes"), "{message}");
    let (code, message) = refused(chain.live(), Some(&open(&base)), &base);
    assert_eq!(code, Code::BadBackend);
    assert!(message.contains("was modified since"), "{message}");
    let served = chain.serve(chain.live()).unwrap();
    assert_eq!(refused(chain.live(), Some(&old), &base).0, Code::Busy);
    // Killed.
    let boot = Boot::simulated(1);
    drop(served);
    let options = chain.folder.options(&boot);
    let killed = Overlay::open(chain.folder.base(), chain.live(), &options).unwrap();
    boot.end();
    drop(killed);
    let (code, message) = refused(chain.live(), Some(&old), &base);
    assert_eq!(code, Code::BadBackend);
    assert!(message.contains("was not closed"), "{message}");
}
