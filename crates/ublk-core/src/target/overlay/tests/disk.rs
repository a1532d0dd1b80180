//! A disk in a folder of its own, and its file behind a cache that a power cut empties.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::RawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::super::file::{Direct, FileOptions};
use super::super::super::native::Native;
use super::super::super::{Boot, Target, file};
use super::super::chain::modified;
use super::super::make::{Birth, Unnamed};
use super::super::{Overlay, OverlayOptions};
use crate::error::Result;

pub(super) const BLOCK: usize = 4096;

/// What a block of the base holds.
pub(super) fn of_base(block: u64) -> u64 {
    1 << 60 | block
}

/// A block that holds this stamp.
pub(super) fn block_of(stamp: u64) -> Vec<u8> {
    stamp.to_le_bytes().repeat(BLOCK / 8)
}

/// The stamp of a block; all of it must hold the same.
pub(super) fn stamp_of(block: &[u8]) -> u64 {
    let mut stamp = [0; 8];
    stamp.copy_from_slice(&block[..8]);
    let stamp = u64::from_le_bytes(stamp);
    assert!(block == block_of(stamp), "a block of more than one write");
    stamp
}

/// A folder with a base and a layer, gone with this.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    blocks: u64,
}

impl Folder {
    pub(super) fn new(blocks: u64) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/dev/shm/ublk-overlay-{}-{number}", std::process::id()));
        fs::create_dir_all(path.join("history")).unwrap();
        let base: Vec<u8> = (0..blocks).flat_map(|block| block_of(of_base(block))).collect();
        fs::write(path.join("base"), base).unwrap();
        Self { path, blocks }
    }

    pub(super) fn base(&self) -> Native {
        let how = FileOptions { direct: Direct::No, read_only: true, ..FileOptions::default() };
        Native::File(file::File::open(&self.path.join("base"), &how).unwrap())
    }

    pub(super) fn layer(&self) -> PathBuf {
        self.path.join("layer")
    }

    /// Makes the layer, with segments of so many blocks.
    pub(super) fn make(&self, segment_shift: u32) {
        let base = self.base();
        let modified = modified(base.files()[0]).unwrap().unwrap();
        let birth = Birth { segment_shift, ..Birth::new(self.blocks, None, modified) };
        Unnamed::make(&self.layer(), &birth).unwrap().name().unwrap();
    }

    pub(super) fn options(&self, boot: &Boot) -> OverlayOptions {
        OverlayOptions {
            history: Some(self.path.join("history")),
            direct: Direct::No,
            boot: Some(boot.clone()),
            ..OverlayOptions::default()
        }
    }

    pub(super) fn open(&self, boot: &Boot) -> Result<Overlay> {
        Overlay::open(self.base(), &self.layer(), &self.options(boot))
    }

    /// An empty folder for histories.
    pub(super) fn empty_history(&self, name: &str) -> PathBuf {
        let history = self.path.join(name);
        fs::create_dir_all(&history).unwrap();
        history
    }

    /// Opens the disk with this folder for the history.
    pub(super) fn open_with(&self, boot: &Boot, history: &Path, lose: bool) -> Result<Overlay> {
        let options = OverlayOptions {
            history: Some(history.into()),
            lose_unflushed: lose,
            ..self.options(boot)
        };
        Overlay::open(self.base(), &self.layer(), &options)
    }

    /// How many histories there are.
    pub(super) fn histories(&self) -> usize {
        fs::read_dir(self.path.join("history")).unwrap().count()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.path).unwrap();
    }
}

/// The live layer's file: what is in it is in the cache, and what of that is durable is kept here.
pub(super) struct Cache {
    path: PathBuf,
    durable: Vec<u8>,
    /// What was written to each block since the last sync, in order.
    written: BTreeMap<u64, Vec<Vec<u8>>>,
}

impl Cache {
    /// All that the file holds is durable.
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.into(), durable: fs::read(path).unwrap(), written: BTreeMap::new() }
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        assert!(offset.is_multiple_of(BLOCK as u64) && bytes.len().is_multiple_of(BLOCK));
        let file = File::options().write(true).open(&self.path).unwrap();
        let end = file.metadata().unwrap().len();
        assert!(offset + bytes.len() as u64 <= end, "a write behind the end of the file");
        file.write_all_at(bytes, offset).unwrap();
        for (block, bytes) in (offset / BLOCK as u64..).zip(bytes.chunks(BLOCK)) {
            self.written.entry(block).or_default().push(bytes.to_vec());
        }
    }

    pub(super) fn punch(&mut self, offset: u64, length: u64) {
        self.write(offset, &vec![0; usize::try_from(length).unwrap()]);
    }

    pub(super) fn allocate(&mut self, end: u64) {
        let file = File::options().write(true).open(&self.path).unwrap();
        if file.metadata().unwrap().len() < end {
            file.set_len(end).unwrap();
        }
    }

    pub(super) fn sync(&mut self) {
        self.durable = fs::read(&self.path).unwrap();
        self.written.clear();
    }

    /// Of each block remains what is durable, or anything that was written since; `draw` answers a number
    /// below its argument.
    pub(super) fn cut_power(&mut self, mut draw: impl FnMut(u64) -> u64) {
        let kept = draw(4);
        for (block, versions) in std::mem::take(&mut self.written) {
            if draw(4) < kept {
                let version = &versions[usize::try_from(draw(versions.len() as u64)).unwrap()];
                let at = usize::try_from(block).unwrap() * BLOCK;
                self.durable.resize(self.durable.len().max(at + BLOCK), 0);
                self.durable[at..at + BLOCK].copy_from_slice(version);
            }
        }
        fs::write(&self.path, &self.durable).unwrap();
    }
}

/// Reads from any other file of the target.
pub(super) fn read(fd: RawFd, offset: u64, bytes: &mut [u8]) {
    let file = File::open(format!("/proc/self/fd/{fd}")).unwrap();
    file.read_exact_at(bytes, offset).unwrap();
}
