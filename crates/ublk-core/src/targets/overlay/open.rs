//! Opening a disk: base, layers, and the unflushed writes of a killed server.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};

use ublk_overlay::extent::BLOCK;
use ublk_overlay::index::Index;
use ublk_overlay::superblock::PAGE;

use super::super::file::{Direct, File, FileOptions, Promised};
use super::super::native::Native;
use super::super::{Boot, DiscardLimits, Durability, Geometry, SegmentLimits, Target};
use super::chain::{Layer, failed, unfit};
use super::checks::{blocks, check_asked, check_base, check_live};
use super::flights::Flights;
use super::history::default_folder;
use super::layers::{Layers, Open};
use super::loaded::{Loaded, Memory};
use super::make::{Birth, Unnamed};
use super::settle;
use super::unused::Draining;
use super::{Gate, Live, Overlay, SPARE, fills, flush, folders, sectors};
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

fn missing(path: &Path, error: &std::io::Error) -> Error {
    let failure = failed(path, "stat", error);
    match failure.code {
        Code::NoBackend => failure.hint("set create (ublk add overlay --create) to make it"),
        _ => failure,
    }
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
