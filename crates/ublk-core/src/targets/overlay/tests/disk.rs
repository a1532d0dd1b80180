//! A disk in a folder of its own, and its file behind a cache that a power cut empties.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::super::super::file::{Direct, FileOptions};
use super::super::super::native::Native;
use super::super::super::{Boot, Queues, Target, file};
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
    bytes_of(stamp, BLOCK)
}

/// So many bytes that hold this stamp.
pub(super) fn bytes_of(stamp: u64, length: usize) -> Vec<u8> {
    stamp.to_le_bytes().repeat(length / 8)
}

/// The stamp of a block, or of a part of one; all of it must hold the same.
pub(super) fn stamp_of(block: &[u8]) -> u64 {
    let mut stamp = [0; 8];
    stamp.copy_from_slice(&block[..8]);
    let stamp = u64::from_le_bytes(stamp);
    assert!(block == bytes_of(stamp, block.len()), "a block of more than one write");
    stamp
}

/// A folder with a base and a layer, gone with this.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    blocks: u64,
    logical_block: u32,
}

impl Folder {
    pub(super) fn new(blocks: u64) -> Self {
        Self::of(blocks, 4096)
    }

    /// A base for a disk with logical blocks of so many bytes.
    pub(super) fn of(blocks: u64, logical_block: u32) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/dev/shm/ublk-overlay-{}-{number}", std::process::id()));
        fs::create_dir_all(path.join("history")).unwrap();
        let base: Vec<u8> = (0..blocks).flat_map(|block| block_of(of_base(block))).collect();
        fs::write(path.join("base"), base).unwrap();
        Self { path, blocks, logical_block }
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
        let birth =
            Birth { segment_shift, ..Birth::new(self.blocks, self.logical_block, modified) };
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
    file: File,
    /// Bytes that a power cut keeps or loses together.
    unit: usize,
    /// The place of the file among the target's.
    place: u16,
    durable: Vec<u8>,
    /// What was written to each unit since the last sync, in order.
    written: BTreeMap<u64, Vec<Vec<u8>>>,
    /// Units that a failed sync has lost, and that were not written since.
    lost: BTreeSet<u64>,
    /// Files that snapshots and merges have added.
    pub(super) added: Arc<Added>,
}

/// Files that were added to a running disk, by their places.
#[derive(Default)]
pub(super) struct Added {
    files: Mutex<BTreeMap<u16, File>>,
    /// The place of the last one.
    latest: AtomicU16,
}

impl Queues for Cache {
    fn add_file(&self, place: u16, file: BorrowedFd<'_>) -> Result<()> {
        assert_ne!(place, self.place, "another file at the place of the live layer");
        self.added.add_file(place, file)
    }

    fn write_back(&self) -> Result<()> {
        Ok(())
    }
}

impl Queues for Added {
    fn add_file(&self, place: u16, file: BorrowedFd<'_>) -> Result<()> {
        // An open file of its own, as reactors have: without the server's lock.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let again = File::options().read(true).write(true).open(path).unwrap();
        self.files.lock().unwrap().insert(place, again);
        self.latest.store(place, Ordering::Relaxed);
        Ok(())
    }

    fn write_back(&self) -> Result<()> {
        Ok(())
    }
}

impl Cache {
    /// All that the file holds is durable.
    pub(super) fn new(path: &Path) -> Self {
        Self::of(path, BLOCK)
    }

    /// As [`new`](Self::new), on a disk that keeps or loses this many bytes together.
    pub(super) fn of(path: &Path, unit: usize) -> Self {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let durable = fs::read(path).unwrap();
        Self {
            file,
            unit,
            place: 0,
            durable,
            written: BTreeMap::new(),
            lost: BTreeSet::new(),
            added: Arc::default(),
        }
    }

    /// The disk has gone on in the file that was added last. Everything is durable.
    pub(super) fn go_on(&mut self) {
        let place = self.added.latest.load(Ordering::Relaxed);
        let file = self.added.files.lock().unwrap()[&place].try_clone().unwrap();
        (self.place, self.file) = (place, file);
        self.sync();
    }

    /// Another server has opened the disk, whose live layer is this file.
    pub(super) fn opened(&mut self) {
        self.place = 0;
        self.added.files.lock().unwrap().clear();
    }

    /// Whether the file at this place is the live layer's.
    pub(super) fn is_live(&self, place: u16) -> bool {
        place == self.place
    }

    /// Reads from any file of the target.
    pub(super) fn read(&self, files: &[RawFd], place: u16, offset: u64, bytes: &mut [u8]) {
        match self.added.files.lock().unwrap().get(&place) {
            Some(file) => file.read_exact_at(bytes, offset).unwrap(),
            None => read(files[usize::from(place)], offset, bytes),
        }
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let unit = self.unit as u64;
        assert!(offset.is_multiple_of(unit) && bytes.len().is_multiple_of(self.unit));
        let end = self.file.metadata().unwrap().len();
        assert!(offset + bytes.len() as u64 <= end, "a write behind the end of the file");
        self.file.write_all_at(bytes, offset).unwrap();
        for (block, bytes) in (offset / unit..).zip(bytes.chunks(self.unit)) {
            self.written.entry(block).or_default().push(bytes.to_vec());
            self.lost.remove(&block);
        }
    }

    pub(super) fn punch(&mut self, offset: u64, length: u64) {
        self.write(offset, &vec![0; usize::try_from(length).unwrap()]);
    }

    pub(super) fn allocate(&mut self, end: u64) {
        if self.file.metadata().unwrap().len() < end {
            self.file.set_len(end).unwrap();
        }
    }

    pub(super) fn sync(&mut self) {
        let length = usize::try_from(self.file.metadata().unwrap().len()).unwrap();
        self.durable.resize(length, 0);
        let before = self.durable.clone();
        self.file.read_exact_at(&mut self.durable, 0).unwrap();
        for &block in &self.lost {
            let at = usize::try_from(block).unwrap() * self.unit;
            self.durable[at..at + self.unit].copy_from_slice(&before[at..at + self.unit]);
        }
        self.written.clear();
    }

    /// A sync has failed: the file shows what was written, and the disk does not get it from later syncs.
    pub(super) fn lose(&mut self) {
        self.lost.extend(std::mem::take(&mut self.written).into_keys());
    }

    /// Of each unit remains what is durable, or anything that was written since; `draw` answers a number
    /// below its argument.
    pub(super) fn cut_power(&mut self, mut draw: impl FnMut(u64) -> u64) {
        let kept = draw(4);
        self.lost.clear();
        for (block, versions) in std::mem::take(&mut self.written) {
            if draw(4) < kept {
                let version = &versions[usize::try_from(draw(versions.len() as u64)).unwrap()];
                let at = usize::try_from(block).unwrap() * self.unit;
                self.durable.resize(self.durable.len().max(at + self.unit), 0);
                self.durable[at..at + self.unit].copy_from_slice(version);
            }
        }
        self.file.set_len(self.durable.len() as u64).unwrap();
        self.file.write_all_at(&self.durable, 0).unwrap();
    }
}

/// Reads from a file of the target.
fn read(fd: RawFd, offset: u64, bytes: &mut [u8]) {
    let file = File::open(format!("/proc/self/fd/{fd}")).unwrap();
    file.read_exact_at(bytes, offset).unwrap();
}
