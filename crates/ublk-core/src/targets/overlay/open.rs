//! Opening a disk: base, layers, and the unflushed writes of a killed server.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};

use ublk_overlay::extent::{BLOCK, Extent};
use ublk_overlay::head::Head;
use ublk_overlay::index::Index;
use ublk_overlay::superblock::{InUse, PAGE, Superblock, blocks_of};

use uuid::Uuid;

use super::super::file::{Direct, File, FileOptions, Promised};
use super::super::native::Native;
use super::super::{Boot, DiscardLimits, Durability, Geometry, SegmentLimits, Target};
use super::chain::{Layer, failed, modified, unfit};
use super::flights::Flights;
use super::history::{History, Owner, default_folder};
use super::layers::{Layers, Open};
use super::make::{Birth, Unnamed, without_fallocate};
use super::settle::{self, random};
use super::unused::{Allocated, Draining};
use super::{Gate, Live, Overlay, ROUND, SPARE, fills, flush, folders, sectors};
use crate::error::{Code, Error, Result};
use crate::memory::Region;

/// How a disk is opened.
#[derive(Clone, Debug, Default)]
pub struct OverlayOptions {
    /// Make a missing layer, empty.
    pub create: bool,
    /// The logical block of the disk, in bytes, which the layer must have; absent: that of the layer.
    pub logical_block: Option<u32>,
    /// The logical block that the base was asked to have, for a layer to be made; absent: the default of
    /// [`create`](super::create).
    pub logical_block_of_base: Option<u32>,
    /// The folder, on a tmpfs, of the history, with the unflushed writes; absent: `/run/ublk` for root, where
    /// `/run` is in memory, and `/dev/shm` elsewhere. The next server must have the same.
    pub history: Option<PathBuf>,
    /// Open a layer whose history is not found, too: the answered and unflushed writes of the killed
    /// server are lost, as by a power cut.
    pub lose_unflushed: bool,
    /// Whether the page cache is passed by for the layers.
    pub direct: Direct,
    /// The promises to the clients of a recovered device; absent for a new device.
    pub promised: Option<Promised>,
    /// The boot of a simulated machine; absent: the machine's.
    pub boot: Option<Boot>,
}

/// Almost 4 GiB, in whole blocks.
const LONGEST: u32 = 0xffff_0000;

impl Overlay {
    /// Opens and locks the layer at `path`, the live layer of a disk on `base`, and the layers below.
    /// Takes over the answered and unflushed writes of a killed server of this boot.
    ///
    /// # Errors
    /// `NoBackend` when a layer is missing; `BadBackend` when a layer is damaged, frozen, or of another base;
    /// `InvalidArgument` for an unsuitable base; `Busy` when another server has the layer;
    /// `Unsupported` on a file system without fallocate, or without a tmpfs; `Permission`; `Resources`.
    /// `BadBackend` also when a server of this boot was killed and the folder lacks the server's history.
    pub fn open(base: Native, path: &Path, options: &OverlayOptions) -> Result<Self> {
        let base_modified = check_base(&base)?;
        let blocks = blocks(&base)?;
        if options.create && path.symlink_metadata().is_err() {
            let asked = options.logical_block.or(options.logical_block_of_base);
            let logical_block = sectors::of_new_disk(&base, asked)?;
            let made = Unnamed::make(path, &Birth::new(blocks, logical_block, base_modified))?;
            folders::name(made, &base)?;
        }
        let path = fs::canonicalize(path).map_err(|error| missing(path, &error))?;
        let how = FileOptions {
            direct: options.direct,
            promised: options.promised,
            ..FileOptions::default()
        };
        let (layer, how) = sectors::open(&path, how)?;
        check_live(&layer, (blocks, base_modified))?;
        sectors::check_base(&base, layer.superblock().logical_block)?;
        check_asked(&layer, options.logical_block)?;
        let parents = layer.parents(&how)?;
        let boot = options.boot.clone().map_or_else(Boot::of_machine, Ok).map_err(|error| {
            Error::os(Code::Kernel, "cannot ask the kernel for the boot's id", "read", &error)
        })?;
        let memory = Memory {
            folder: options.history.clone().unwrap_or_else(default_folder),
            boot,
            lose_unflushed: options.lose_unflushed,
        };
        // Of a snapshot whose server was killed: a frozen layer has no use for a history.
        parents
            .last()
            .into_iter()
            .for_each(|below| memory.forget(below.superblock().layer, &below.backing));
        Self::assemble(base, layer, parents, (memory, how))
    }

    fn assemble(
        base: Native,
        layer: Layer,
        parents: Vec<Layer>,
        (memory, how): (Memory, FileOptions),
    ) -> Result<Self> {
        let path = layer.path.clone();
        let number = u32::try_from(parents.len()).unwrap_or(u32::MAX);
        let mut index = Index::new();
        let mut layers = Vec::with_capacity(parents.len() + 1);
        for (number, below) in (0..).zip(parents) {
            let Layer { path, contents, file, .. } = below;
            let id = contents.superblock.layer;
            contents.load(number, &mut index).map_err(|error| unfit(&path, &error))?;
            layers.push((file, id));
        }
        let (own, below) = (layer.superblock().layer, index.clone());
        let awake = Loaded::of(layer, number, index, &memory)?.wake(&memory)?;
        let mut files = vec![awake.file.files()[0]];
        files.extend(layers.iter().map(|(file, _)| file.files()[0]));
        // Fits: there are at most 255 layers.
        let base_files = u16::try_from(files.len()).unwrap_or(u16::MAX);
        files.extend_from_slice(base.files());
        let all: Vec<_> = layers.iter().map(|(file, _)| file).chain([&awake.file]).collect();
        let geometry = geometry(&base, &all, awake.head.superblock().logical_block);
        let is_whole = u64::from(geometry.logical_block) == BLOCK;
        let (slots, fills) = if is_whole { (0, 0) } else { (fills::SLOTS, fills::PAGES) };
        let punches = awake.file.geometry().discard.is_some();
        // Fits: a target has fewer files than a step can name.
        let spare = u16::try_from(files.len()).unwrap_or(u16::MAX);
        let spare = (spare, spare.saturating_add(SPARE));
        let frozen = layers.into_iter().zip(1..);
        let layers = Layers::new(
            frozen.chain([((awake.file, own), 0)]).map(|((file, id), place)| Open {
                file,
                id,
                place,
            }),
            spare,
        );
        let live = Live {
            head: awake.head,
            history: awake.history,
            flights: Flights::default(),
            allocated: awake.allocated,
            draining: Draining::default(),
            flushing: None,
            flushed: 0,
            lost: false,
            slots: (0..slots).collect(),
            backing: awake.backing,
            layers,
            gate: Gate::Open,
            has_snapshots: false,
            merging: false,
            below,
        };
        let pages = Region::new((flush::PAGES + fills) * PAGE).map_err(|error| {
            Error::os(Code::Resources, "cannot make memory for a log", "mmap", &error)
        })?;
        Ok(Self {
            geometry,
            durability: Durability::of(files.len() + usize::from(SPARE)),
            files,
            base_files,
            base_plans: (base.max_steps().max(1), base.geometry().chunk),
            base,
            pages: Arc::new(pages),
            punches,
            live: Mutex::new(live),
            drained: Condvar::new(),
            path,
            memory,
            how,
        })
    }
}

/// Where the history of a layer is looked for.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) folder: PathBuf,
    pub(super) boot: Boot,
    /// See [`OverlayOptions::lose_unflushed`].
    pub(super) lose_unflushed: bool,
}

/// A live layer that this server has opened.
pub(super) struct Awake {
    pub(super) head: Head,
    pub(super) history: History,
    pub(super) allocated: Allocated,
    pub(super) file: File,
    pub(super) backing: fs::File,
}

/// A live layer with the unflushed writes of a killed server; nothing has been written.
pub(super) struct Loaded {
    pub(super) head: Head,
    pub(super) file: File,
    pub(super) backing: fs::File,
    /// The history of the killed server.
    pub(super) history: Option<History>,
    path: PathBuf,
    owner: Owner,
}

impl Loaded {
    /// Reads the live layer's file and the history of a killed server.
    pub(super) fn of(layer: Layer, number: u32, index: Index, memory: &Memory) -> Result<Self> {
        let Layer { path, file, backing, contents } = layer;
        let superblock = contents.superblock;
        settle::allocate(&backing, 0, BLOCK).map_err(|error| match error.raw_os_error() {
            Some(libc::EOPNOTSUPP) => without_fallocate(&path),
            _ => failed(&path, "fallocate", &error),
        })?;
        let owner = Owner::of(superblock.layer, &backing, &memory.boot);
        let owner = owner.map_err(|error| failed(&path, "fstat", &error))?;
        let (history, unflushed) = memory.unflushed(&path, &owner, &superblock)?.unzip();
        let head = contents.load_head(number, index, random(), &unflushed.unwrap_or_default());
        let head = head.map_err(|error| unfit(&path, &error))?;
        Ok(Self { head, file, backing, history, path, owner })
    }

    /// Writes a superblock that names this server's history.
    pub(super) fn wake(self, memory: &Memory) -> Result<Awake> {
        let Self { mut head, file, backing, history, path, owner } = self;
        let in_use = InUse { boot: owner.boot, history: random() };
        let mut history = match history {
            Some(history) => history,
            None => History::new(&memory.folder, &owner, in_use.history)?,
        };
        // A kill leaves either superblock, and a history with the number of both.
        let superblock = settle::next(&head, Some(in_use));
        history
            .expect(in_use.history)
            .and_then(|()| settle::write(&backing, &superblock))
            .and_then(|()| history.settle())
            .map_err(|error| failed(&path, "write", &error))?;
        head.adopt(superblock);
        let space = head.space();
        // A free segment may be a hole, and a segment of the log may have holes.
        let segments = (0..space.segments()).map(|segment| space.has_data(segment));
        let allocated = Allocated::new(segments);
        Ok(Awake { head, history, allocated, file, backing })
    }
}

impl Memory {
    /// Removes the history of a layer, if there is one.
    pub(super) fn forget(&self, layer: Uuid, file: &fs::File) {
        if let Ok(owner) = Owner::of(layer, file, &self.boot) {
            let _missing = fs::remove_file(owner.path(&self.folder));
        }
    }

    /// The history of a server of this boot that has not closed the layer, and the extents of the history.
    /// None after a close, and after a reboot: what was in memory is gone.
    fn unflushed(
        &self,
        path: &Path,
        owner: &Owner,
        superblock: &Superblock,
    ) -> Result<Option<(History, Vec<Extent>)>> {
        let in_use = superblock.in_use.filter(|in_use| in_use.boot == self.boot.id());
        let Some(InUse { history, .. }) = in_use else { return Ok(None) };
        let resumed = History::resume(&self.folder, owner, history)?;
        if resumed.is_some() || self.lose_unflushed {
            return Ok(resumed);
        }
        let message = format!(
            "{} was not closed by its last server, and {} does not hold what that server had answered and \
             not flushed",
            path.display(),
            self.folder.display()
        );
        Err(Error::new(Code::BadBackend, message).hint(
            "name the folder that the last server had with the option history (ublk add overlay --history \
             FOLDER); a copy of a layer has no history: serve and close the original, then copy the file; \
             to serve the disk without these writes, as after a power cut, set loseUnflushed \
             (--lose-unflushed)",
        ))
    }
}

impl Drop for Overlay {
    /// A server that ends in good order flushes, closes the layer, and removes the history.
    fn drop(&mut self) {
        let mut live = self.live();
        let live = &mut *live;
        if live.lost || self.durability.is_lost(live.place()) || self.memory.boot.is_over() {
            return;
        }
        if settle::close(&mut live.head, &live.backing, false).is_ok() {
            // The next server makes a new history in the place of a history that stays.
            let _ = live.history.remove();
        }
    }
}

/// Checks a base. Answers when the files of the base were last modified; of a frozen layer, its identity.
///
/// # Errors
/// `InvalidArgument` for an unsuitable base.
pub(super) fn check_base(base: &Native) -> Result<i64> {
    let refused = |what: &str| {
        let message = format!("{what} cannot be the base of an overlay");
        Err(Error::new(Code::InvalidArgument, message).hint(
            "a file, a block device, a qcow2 image, a frozen layer, or a target made of these can",
        ))
    };
    let geometry = base.geometry();
    if geometry.zoned.is_some() {
        return refused("a zoned target");
    }
    if geometry.integrity.is_some() {
        return refused("a target with integrity");
    }
    if base.elsewhere().is_some() {
        return refused("a handler");
    }
    // An overlay tells its base of no end of a read.
    if base.takes_rounds() {
        return refused("a live layer of an overlay");
    }
    if !base.remotes().is_empty() && geometry.chunk != 0 {
        return refused("a server that takes only short requests");
    }
    if !geometry.chunk.is_multiple_of(BLOCK) {
        return refused("a target whose requests are cut within blocks");
    }
    if base.max_steps() + ROUND > 250 {
        return refused("a target with so many targets below it");
    }
    if let Native::Fixed(fixed) = base {
        return Ok(fixed.identity());
    }
    let mut latest = 0;
    for &fd in base.files() {
        let time = modified(fd).map_err(|error| {
            Error::os(Code::Kernel, "cannot ask for the times of the base", "fstat", &error)
        })?;
        latest = latest.max(time.unwrap_or(0));
    }
    Ok(latest)
}

/// The size of the base.
///
/// # Errors
/// `InvalidArgument` for a size in no whole blocks.
pub(super) fn blocks(base: &Native) -> Result<u64> {
    let size = base.geometry().size;
    blocks_of(size).ok_or_else(|| {
        let message =
            format!("the base has {size} bytes; an overlay needs whole blocks of {BLOCK}");
        Error::new(Code::InvalidArgument, message).hint(match base {
            Native::Qcow2(_) => {
                format!("round it up: qemu-img resize IMAGE {}", size.next_multiple_of(BLOCK))
            }
            _ => format!("round it up: truncate -s %{BLOCK} BASE"),
        })
    })
}

fn missing(path: &Path, error: &std::io::Error) -> Error {
    let failure = failed(path, "stat", error);
    match failure.code {
        Code::NoBackend => failure.hint("set create (ublk add overlay --create) to make it"),
        _ => failure,
    }
}

/// Checks that the layer is live and of this base.
fn check_live(layer: &Layer, (blocks, modified): (u64, i64)) -> Result<()> {
    let (superblock, path) = (layer.superblock(), layer.path.display());
    let refused =
        |message: String, hint: String| Err(Error::new(Code::BadBackend, message).hint(hint));
    if superblock.frozen {
        let message = format!("{path} is frozen: other layers stand on it, or will");
        return refused(message, format!("make a layer on it: ublk overlay fork {path} CHILD"));
    }
    check_same_base(&layer.path, superblock, (blocks, modified))
}

/// Checks that the disk has logical blocks of so many bytes, if these are asked for.
pub(super) fn check_asked(layer: &Layer, asked: Option<u32>) -> Result<()> {
    let found = layer.superblock().logical_block;
    if asked.is_none_or(|asked| asked == found) {
        return Ok(());
    }
    let path = layer.path.display();
    let message = format!("{path} is of a disk with logical blocks of {found} bytes");
    Err(Error::new(Code::InvalidArgument, message).hint(
        "partition tables and file systems on the disk count in these: leave logicalBlockSize (--block-size) out, \
         or make another layer",
    ))
}

/// Checks that the layer at `path` was made for a base of this size and time of modification.
pub(super) fn check_same_base(
    path: &Path,
    superblock: &Superblock,
    (blocks, modified): (u64, i64),
) -> Result<()> {
    let path = path.display();
    let refused =
        |message: String, hint: String| Err(Error::new(Code::BadBackend, message).hint(hint));
    if superblock.blocks != blocks {
        let message = format!(
            "{path} is of a base of {} bytes, and this one has {}",
            superblock.blocks * BLOCK,
            blocks * BLOCK
        );
        return refused(message, "name the base that the layer was made for".into());
    }
    if superblock.base_modified != modified && !superblock.committing {
        let message = format!("the base of {path} was modified since the layer was made");
        let hint = "the layer holds differences from the base as it was: put back that one, with its \
                    time of modification (cp -p)";
        if superblock.frozen {
            return refused(message, hint.into());
        }
        let otherwise =
            format!("where only the time differs: ublk overlay rebase {path} --unsafe --base BASE");
        return refused(message, format!("{hint}; {otherwise}"));
    }
    Ok(())
}

/// The needs of the base and of the layers' files.
pub(super) fn geometry(base: &Native, layers: &[&File], logical_block: u32) -> Geometry {
    let block = u32::try_from(BLOCK).unwrap_or(u32::MAX);
    let all =
        || std::iter::once(base.geometry()).chain(layers.iter().map(|layer| layer.geometry()));
    let live = layers.last().map_or(base.geometry(), |live| live.geometry());
    Geometry {
        logical_block,
        physical_block: live.physical_block.max(block),
        io_min: live.io_min.max(block),
        io_opt: live.io_opt.max(block),
        rotational: all().any(|one| one.rotational),
        volatile_cache: true,
        // A durable write needs the log: the kernel sends a flush after the write.
        fua: false,
        discard: Some(DiscardLimits {
            granularity: block,
            max_discard: LONGEST,
            max_write_zeroes: LONGEST,
        }),
        dma_alignment: all().map(|one| one.dma_alignment).max().unwrap_or(0),
        virt_boundary: all().fold(0, |mask, one| mask | one.virt_boundary),
        segments: all().filter_map(|one| one.segments).reduce(SegmentLimits::and),
        ..Geometry::new(base.geometry().size)
    }
}
