//! The sectors of all images of a chain in one index.

use std::os::unix::fs::FileExt;

use ublk_overlay::extent::{Extent, MAX_COUNT, Place};
use ublk_overlay::index::Index;
use ublk_qcow2::runs::{self, Run, runs};
use ublk_qcow2::{LARGEST, SECTOR, Unfit};

use super::chain::Chain;
use super::image::{Image, unfit};
use crate::error::{Code, Error, Result};

/// The largest number of extents of an index, so that no image takes all memory: 800 MiB. A disk of 2 TiB in which no two
/// clusters of 64 KiB are beside each other has as many.
const MOST: usize = 1 << 25;

/// Reads the tables of all images.
///
/// # Errors
/// `BadBackend` for damaged images, and for images in too many pieces.
pub(super) fn index(chain: &Chain) -> Result<Index> {
    index_of(chain, MOST)
}

pub(super) fn index_of(chain: &Chain, most: usize) -> Result<Index> {
    let mut index = Index::new();
    // An image hides what is behind its end in those below.
    let mut visible: Vec<u64> = Vec::new();
    for image in &chain.images {
        let size = image.size() / SECTOR;
        visible.push(visible.last().map_or(size, |&above| above.min(size)));
    }
    let lowest_first = chain.images.iter().zip(visible).rev();
    for (layer, (image, visible)) in (0..).zip(lowest_first) {
        add(image, layer, visible, (&mut index, most))?;
    }
    Ok(index)
}

/// Adds what an image has of the first sectors of the disk.
fn add(image: &Image, layer: u32, visible: u64, (index, most): (&mut Index, usize)) -> Result<()> {
    let mut put = |run: Run| {
        put(run, layer, visible, index);
        match index.len() > most {
            true => Err(Unfit::Unsupported(format!("more than {most} pieces, with those below"))),
            false => Ok(()),
        }
    };
    let refused = |why: Unfit| unfit(&image.path, &why);
    match &image.header {
        Some(header) => {
            let read = |offset, bytes: &mut [u8]| image.backing.read_exact_at(bytes, offset);
            runs(header, image.length, read, put).map_err(refused)
        }
        None if image.length > LARGEST => {
            let message = format!("{} is larger than 512 TiB", image.path.display());
            Err(Error::new(Code::BadBackend, message).hint("serve it by targets.file"))
        }
        None => put(Run { sector: 0, count: image.size() / SECTOR, place: runs::Place::At(0) })
            .map_err(refused),
    }
}

/// Puts a run into the index, as extents.
fn put(run: Run, layer: u32, visible: u64, index: &mut Index) {
    let mut at = run.sector;
    let end = (run.sector + run.count).min(visible);
    while at < end {
        let count = u32::try_from(end - at).unwrap_or(MAX_COUNT).min(MAX_COUNT);
        let place = match run.place {
            runs::Place::Zeros => Place::Zero,
            runs::Place::At(byte) => Place::At { layer, block: byte / SECTOR + (at - run.sector) },
        };
        index.set(Extent::new(at, count, place), drop);
        at += u64::from(count);
    }
}

/// The largest power of two, from 512 to 4096 bytes, of which all pieces begin and end at multiples.
pub(super) fn unit(index: &Index, size: u64) -> u32 {
    let of = |extent: Extent| match extent.place() {
        Place::Zero => extent.block() | extent.end(),
        Place::At { block, .. } => extent.block() | extent.end() | block,
    };
    let bits = index.iter().map(of).fold(size / SECTOR, |bits, one| bits | one);
    512 << bits.trailing_zeros().min(3)
}
