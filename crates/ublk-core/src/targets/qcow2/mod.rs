//! A qcow2 image, with the images below, as the device's contents. Nothing is ever written to an image.
//!
//! The tables of all images are read at open, into one index of sectors: the highest image that has a sector
//! wins, and a read becomes steps on the files of the [chain]. So depth costs a read nothing, and images must
//! not change while the target is open: [locks] tell QEMU.

use std::io;
use std::os::fd::RawFd;
use std::path::Path;
use std::sync::Arc;

use ublk_overlay::extent::Place;
use ublk_overlay::index::Index;
use ublk_qcow2::SECTOR;

use super::file::{Direct, File, Promised};
use super::pieces::{self, Disk, MOST_STEPS};
use super::{
    Durability, Errno, Geometry, Op, Plan, Presentation, Request, SegmentLimits, Step, StepKind,
    Target,
};
use crate::allocation::Allocation;
use crate::error::{Code, Error, Result};

mod chain;
mod extents;
mod image;
mod locks;
mod shared;

pub use chain::{Member, members};
pub(super) use image::is_qcow2;

/// How an image is opened.
#[derive(Clone, Debug, Default)]
pub struct Qcow2Options {
    /// Whether the page cache is passed by.
    pub direct: Direct,
    /// Open the images although a program writes to them, and let programs write: the caller must make sure
    /// that none does.
    pub unlocked: bool,
    /// What the device refuses and the unit of addressing; writes are refused in any case.
    pub asked: Presentation,
    /// The promises to the clients of a recovered device; absent for a new device.
    pub promised: Option<Promised>,
}

/// An image and the images below.
#[derive(Debug)]
pub struct Qcow2 {
    geometry: Geometry,
    /// The places are sectors: those of the disk, and those of the files. Sectors in no extent are zeros.
    index: Arc<Index>,
    /// The lowest image first; a layer in the index is a place here.
    files: Vec<RawFd>,
    durability: Durability,
    max_steps: usize,
    _owners: Vec<File>,
}

impl Qcow2 {
    /// Opens and locks the image at `path` and all images below, and reads the tables.
    ///
    /// # Errors
    /// `NoBackend` when an image is missing; `BadBackend` for an image that is damaged, dirty, compressed,
    /// encrypted, or has a backing file of an unknown format; `Busy` when a program writes to an image;
    /// `InvalidArgument` for a block size that the images cannot have; `Permission`.
    pub fn open(path: &Path, options: &Qcow2Options) -> Result<Self> {
        let chain = chain::open(path, options)?;
        let index = shared::index(&chain)?;
        let (size, cluster) = (chain.size(), chain.cluster());
        let disk = Disk { index: &index, blocks: size / SECTOR, block: SECTOR, below: (1, 0) };
        let cut = disk.cut(MOST_STEPS);
        let unit = extents::unit(&index, size);
        let owners = chain.files(options, unit)?;
        let geometry = geometry(&owners, size, cluster, cut.chunk);
        geometry.validate().map_err(|error| {
            let message = format!("cannot serve {}: {error}", path.display());
            Error::new(Code::BadBackend, message).hint("serve another image")
        })?;
        Ok(Self {
            geometry: geometry.presented(options.asked)?,
            index,
            files: owners.iter().map(|file| file.files()[0]).collect(),
            durability: Durability::of(owners.len()),
            max_steps: cut.most,
            _owners: owners,
        })
    }

    fn plan_read(&self, request: &Request, plan: &mut Plan<'_>) {
        let (from, to) = sectors(request.offset, request.length.into());
        for piece in self.index.pieces(from, to) {
            // Fits: inside of the request.
            let bytes = |sectors: u64| u32::try_from(sectors * SECTOR).unwrap_or(u32::MAX);
            let (at, length) = (bytes(piece.block - from), bytes(piece.count));
            let step = match piece.place {
                Some(Place::At { layer, block }) => Step {
                    kind: StepKind::Read,
                    // Fits: there are at most 200 images.
                    file: u16::try_from(layer).unwrap_or(u16::MAX),
                    offset: block * SECTOR,
                    ..Step::EMPTY
                },
                Some(Place::Zero) | None => Step { kind: StepKind::Zeros, ..Step::EMPTY },
            };
            plan.push(Step { at, length, ..step });
        }
    }
}

/// The sectors of a range in bytes: the first, and the first behind.
fn sectors(offset: u64, length: u64) -> (u64, u64) {
    (offset / SECTOR, (offset + length) / SECTOR)
}

/// The needs of all files.
fn geometry(files: &[File], size: u64, cluster: u64, chunk: u64) -> Geometry {
    let all = || files.iter().map(Target::geometry);
    let most = |of: fn(&Geometry) -> u32, least| all().map(of).fold(least, u32::max);
    let logical_block = most(|one| one.logical_block, 512);
    // Fits: at most 2 MiB.
    let cluster = u32::try_from(cluster).unwrap_or(512).max(logical_block);
    Geometry {
        logical_block,
        physical_block: most(|one| one.physical_block, logical_block),
        io_min: most(|one| one.io_min, logical_block),
        io_opt: most(|one| one.io_opt, cluster),
        read_only: true,
        rotational: all().any(|one| one.rotational),
        dma_alignment: most(|one| one.dma_alignment, 0),
        virt_boundary: all().fold(0, |mask, one| mask | one.virt_boundary),
        segments: all().filter_map(|one| one.segments).reduce(SegmentLimits::and),
        chunk,
        ..Geometry::new(size)
    }
}

impl Target for Qcow2 {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn files(&self) -> &[RawFd] {
        &self.files
    }

    fn durability(&self) -> &Durability {
        &self.durability
    }

    fn layout(&self) -> Option<String> {
        Some(format!("qcow2({} images)", self.files.len()))
    }

    fn max_steps(&self) -> usize {
        self.max_steps
    }

    fn plan(&self, request: &Request, plan: &mut Plan<'_>) -> std::result::Result<(), Errno> {
        match request.op {
            Op::Read => self.plan_read(request, plan),
            // Nothing was written.
            Op::Flush => {}
            _ => return Err(Errno(libc::EROFS)),
        }
        Ok(())
    }

    fn allocation(&self, offset: u64, length: u64) -> io::Result<Allocation> {
        let (length, place) = pieces::first(&self.index, SECTOR, offset, length);
        Ok(match place {
            Some(Place::At { .. }) => Allocation::data(length),
            Some(Place::Zero) | None => Allocation::hole(length),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    /// An image of 32 KiB with clusters of 512 bytes: the header, an L1 table, an L2 table, a cluster.
    fn image() -> Vec<u8> {
        let mut image = vec![0; 2048];
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"QFI\xfb\0\0\0\x02");
        put(20, &9_u32.to_be_bytes());
        put(24, &(32_u64 << 10).to_be_bytes());
        put(36, &1_u32.to_be_bytes());
        put(40, &512_u64.to_be_bytes());
        put(512, &1024_u64.to_be_bytes());
        put(1024 + 8, &1536_u64.to_be_bytes());
        image
    }

    #[test]
    fn targets_on_one_image_share_an_index_until_the_image_changes() {
        let path = std::env::temp_dir().join(format!("ublk-qcow2-{}", std::process::id()));
        fs::write(&path, image()).unwrap();
        let open = || {
            let how = Qcow2Options { direct: Direct::No, ..Qcow2Options::default() };
            Qcow2::open(&path, &how).unwrap()
        };
        let (one, other) = (open(), open());
        assert!(Arc::ptr_eq(&one.index, &other.index));
        let data: Vec<_> = one.index.iter().map(|one| (one.block(), one.place())).collect();
        assert_eq!(data, [(1, Place::At { layer: 0, block: 3 })]);
        let later = fs::metadata(&path).unwrap().modified().unwrap() + Duration::from_nanos(1);
        fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        assert!(!Arc::ptr_eq(&one.index, &open().index));
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn an_image_in_more_pieces_than_memory_should_hold_is_refused() {
        let path = std::env::temp_dir().join(format!("ublk-pieces-{}", std::process::id()));
        // Three clusters, of which the last two are beside each other in the file, too.
        let mut image = image();
        image.resize(4096, 0);
        for (at, place) in [(1024, 3072_u64), (1024 + 8, 2048), (1024 + 16, 2560)] {
            image[at..at + 8].copy_from_slice(&place.to_be_bytes());
        }
        fs::write(&path, image).unwrap();
        let how = Qcow2Options { direct: Direct::No, ..Qcow2Options::default() };
        let chain = chain::open(&path, &how).unwrap();
        assert_eq!(extents::index_of(&chain, 2).unwrap().len(), 2, "the last two are one");
        let error = extents::index_of(&chain, 1).unwrap_err();
        fs::remove_file(&path).unwrap();
        assert_eq!(error.code, Code::BadBackend);
        assert!(error.message.contains("more than 1 pieces"), "{error}");
        assert!(error.hint.unwrap().contains("qemu-img convert -O qcow2"));
    }
}
