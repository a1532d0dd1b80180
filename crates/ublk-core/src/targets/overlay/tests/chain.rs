//! A disk of several layers, made by servers in turn, and a model of the contents.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::super::{Boot, Op};
use super::super::{Overlay, Progress, export, fork};
use super::disk::{BLOCK, Cache, Folder, block_of, of_base, stamp_of};
use super::machine::run;

/// Blocks of the disk.
pub(super) const DISK: u64 = 64;
/// log2 of the blocks of a segment: data and log take several.
const SEGMENT_SHIFT: u32 = 3;

/// A disk and the contents after each layer.
pub(super) struct Chain {
    pub(super) folder: Folder,
    /// The lowest first; all but the last are frozen.
    pub(super) layers: Vec<PathBuf>,
    /// The contents of each layer's disk, a stamp for each block.
    pub(super) models: Vec<Vec<u64>>,
}

impl Chain {
    /// A disk of so many layers, with contents that the seed determines.
    pub(super) fn new(seed: u64, count: usize) -> Self {
        let folder = Folder::new(DISK);
        folder.make(SEGMENT_SHIFT);
        let mut this = Self { layers: vec![folder.layer()], folder, models: Vec::new() };
        let mut model: Vec<u64> = (0..DISK).map(of_base).collect();
        let mut seed = seed << 8;
        for number in 0..count {
            if number > 0 {
                let child = this.folder.path.join(format!("layer-{number}"));
                this.fork(&[&child]);
                this.layers.push(child);
            }
            for _ in 0..10 {
                seed += 1;
                this.change(&mut model, seed);
            }
            this.models.push(model.clone());
        }
        this
    }

    /// Forks the live layer.
    pub(super) fn fork(&self, children: &[&Path]) {
        let children: Vec<_> = children.iter().map(|&child| child.to_owned()).collect();
        fork(self.live(), &children, Some(&self.folder.path.join("history"))).unwrap();
    }

    pub(super) fn live(&self) -> &Path {
        self.layers.last().unwrap()
    }

    /// The contents of the live layer's disk.
    pub(super) fn model(&self) -> &[u64] {
        self.models.last().unwrap()
    }

    /// A write, or zeros, by a server of its own.
    fn change(&self, model: &mut [u64], seed: u64) {
        let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        let from = mixed % DISK;
        let count = (1 + (mixed >> 8) % 9).min(DISK - from);
        let stamp = if mixed >> 16 & 3 == 0 { 0 } else { seed };
        let bytes = block_of(stamp).repeat(usize::try_from(count).unwrap());
        let overlay = self.serve(self.live()).unwrap();
        let mut cache = Cache::new(self.live());
        let op = if stamp == 0 { Op::WriteZeroes } else { Op::Write };
        run(&overlay, &mut cache, op, (from, count), bytes).unwrap();
        let range = usize::try_from(from).unwrap()..usize::try_from(from + count).unwrap();
        model[range].fill(stamp);
    }

    /// Serves a live layer.
    pub(super) fn serve(&self, layer: &Path) -> crate::error::Result<Overlay> {
        let options = self.folder.options(&Boot::of_machine().unwrap());
        Overlay::open(self.folder.base(), layer, &options)
    }

    /// What a client of the live layer's disk reads.
    pub(super) fn read(&self, layer: &Path) -> Vec<u64> {
        let overlay = self.serve(layer).unwrap_or_else(|error| panic!("{error}: {:?}", error.hint));
        let mut cache = Cache::new(layer);
        let bytes = run(&overlay, &mut cache, Op::Read, (0, DISK), Vec::new()).unwrap();
        stamps(&bytes)
    }

    /// What an export of a layer's disk holds.
    pub(super) fn export(&self, layer: &Path) -> Vec<u64> {
        let out = self.folder.path.join("exported");
        export(&self.folder.base(), layer, &out, true, &Progress::default()).unwrap();
        stamps(&fs::read(out).unwrap())
    }

    /// The names of the files in the folder.
    pub(super) fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder.path).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| !name.starts_with("history")).collect();
        names.sort();
        names
    }
}

pub(super) fn stamps(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks(BLOCK).map(stamp_of).collect()
}
