//! Changes as a stream: sent, received, cut, damaged, and received by a server that is killed.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::super::offline::kill;
use super::super::{Progress, info, receive, send};
use super::chain::{Chain, stamps};
use crate::error::{Code, Result};

/// Sends the changes of a layer to a file.
fn sent(chain: &Chain, layer: &Path, from: Option<&Path>, name: &str) -> PathBuf {
    let path = chain.folder.path.join(name);
    let out = File::create(&path).unwrap();
    send(layer, from, out.as_fd(), &Progress::default()).unwrap();
    path
}

/// A second folder, with the same base.
struct Backup<'a> {
    chain: &'a Chain,
    folder: PathBuf,
}

impl<'a> Backup<'a> {
    fn new(chain: &'a Chain, name: &str) -> Self {
        Self { chain, folder: chain.folder.empty_history(&format!("history-{name}")) }
    }

    fn receive(&self, stream: &Path, name: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        let input = File::open(stream).unwrap();
        let base = self.chain.folder.base();
        receive(input.as_fd(), &path, Some(&base), &Progress::default()).map(|()| path)
    }

    fn files(&self) -> usize {
        fs::read_dir(&self.folder).unwrap().count()
    }
}

#[test]
fn changes_since_the_base_and_since_layers_make_the_same_disks_elsewhere() {
    for seed in 0..6 {
        let chain = Chain::new(seed, 3);
        let [low, middle, high] = &chain.layers[..] else { unreachable!() };
        let backup = Backup::new(&chain, "backup");
        let first = sent(&chain, low, None, "first");
        let second = sent(&chain, middle, Some(low), "second");
        let third = sent(&chain, high, Some(middle), "third");
        let early = backup.receive(&third, "early").unwrap_err();
        assert_eq!(early.code, Code::NoBackend, "{early}");
        for (stream, (layer, model)) in
            [first, second, third].iter().zip(chain.layers.iter().zip(&chain.models))
        {
            let name = layer.file_name().unwrap().to_str().unwrap();
            let path = backup.receive(stream, name).unwrap();
            assert_eq!(chain.export(&path), *model, "seed {seed}, {name}");
            let (ours, theirs) = (&info(layer).unwrap()[0], &info(&path).unwrap()[0]);
            assert_eq!(theirs.frozen, ours.frozen);
            assert_eq!(theirs.layer == ours.layer, ours.frozen, "two live layers differ");
        }
        assert_eq!(chain.read(&backup.folder.join("layer-2")), chain.model(), "seed {seed}");
        let whole = sent(&chain, high, None, "whole");
        let flat = backup.receive(&whole, "flat").unwrap();
        assert_eq!((info(&flat).unwrap().len(), chain.read(&flat)), (1, chain.model().to_vec()));
    }
}

#[test]
fn a_stream_that_is_cut_or_damaged_anywhere_makes_no_layer() {
    let chain = Chain::new(1, 2);
    let backup = Backup::new(&chain, "backup");
    let stream = sent(&chain, chain.live(), None, "stream");
    let whole = fs::read(&stream).unwrap();
    let places = (0..4200).step_by(41).chain((0..whole.len()).step_by(1999));
    for at in places.chain([whole.len() - 1]) {
        fs::write(&stream, &whole[..at]).unwrap();
        let error = backup.receive(&stream, "layer").unwrap_err();
        assert_eq!((error.code, backup.files()), (Code::BadBackend, 0), "{at}: {error}");
        let mut flipped = whole.clone();
        flipped[at] ^= 4;
        fs::write(&stream, &flipped).unwrap();
        let error = backup.receive(&stream, "layer").unwrap_err();
        assert_eq!((error.code, backup.files()), (Code::BadBackend, 0), "{at}: {error}");
    }
    fs::write(&stream, [&whole[..], b"more"].concat()).unwrap();
    assert_eq!(backup.receive(&stream, "layer").unwrap_err().code, Code::BadBackend);
    fs::write(&stream, &whole).unwrap();
    assert_eq!(stamps(&fs::read(chain.folder.path.join("base")).unwrap()).len(), 64);
    let layer = backup.receive(&stream, "layer").unwrap();
    assert_eq!(chain.read(&layer), chain.model());
    let error = backup.receive(&stream, "layer").unwrap_err();
    assert!(error.message.contains("it exists"), "{error}");
}

#[test]
fn changes_of_another_base_or_generation_are_refused() {
    let chain = Chain::new(2, 2);
    let other = Chain::new(3, 2);
    let backup = Backup::new(&other, "backup");
    let stream = sent(&chain, &chain.layers[0], None, "stream");
    let error = backup.receive(&stream, "layer").unwrap_err();
    assert!(error.message.contains("a base of another size or time"), "{error}");
    let later = sent(&chain, chain.live(), Some(&chain.layers[0]), "later");
    // A live layer of the same UUID is not the layer since which the changes are.
    let live = backup.folder.join("layer");
    fs::copy(&other.layers[1], &live).unwrap();
    let error = backup.receive(&later, "later").unwrap_err();
    assert_eq!(error.code, Code::NoBackend, "{error}");
    let input = File::open(&stream).unwrap();
    let error = receive(input.as_fd(), &backup.folder.join("x"), None, &Progress::default());
    assert_eq!(error.unwrap_err().code, Code::InvalidArgument);
    assert_eq!(backup.files(), 1);
}

#[test]
fn a_killed_or_cancelled_receiver_leaves_nothing() {
    let chain = Chain::new(4, 1);
    let backup = Backup::new(&chain, "backup");
    let stream = sent(&chain, chain.live(), None, "stream");
    let progress = Progress::default();
    progress.cancel();
    let input = File::open(&stream).unwrap();
    let path = backup.folder.join("layer");
    let cancelled = receive(input.as_fd(), &path, Some(&chain.folder.base()), &progress);
    assert_eq!(cancelled.unwrap_err().errno, Some(libc::ECANCELED));
    for points in 0.. {
        let (result, ended) = kill::after(points, || backup.receive(&stream, "layer"));
        if ended {
            assert_eq!(chain.read(&result.unwrap()), chain.model());
            assert!(points > 3);
            break;
        }
        assert_eq!(backup.files(), 0, "{points}");
    }
}
