//! Checks of a layer's file, and the return of unused space.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use ublk_overlay::extent::{BLOCK, Place};
use ublk_overlay::head::Head;
use ublk_overlay::index::Index;
use ublk_overlay::space::Run;
use ublk_overlay::superblock::{PAGE, SUPERBLOCKS, Superblock};

use super::super::chain::{Layer, failed, unfit};
use super::super::checks::{blocks, check_base, check_same_base};
use super::super::settle::random;
use super::super::verbs::{committing, reading};
use crate::error::{Code, Error, Result};
use crate::targets::Progress;
use crate::targets::file::FileOptions;
use crate::targets::native::Native;

/// The findings of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// The checked layers, the highest first.
    pub layers: Vec<PathBuf>,
    /// The problems: each with the file, and with the remedy.
    pub problems: Vec<(PathBuf, String)>,
    /// Bytes that the file of the highest layer takes and nothing uses; up to a segment (1 MiB) may be missing
    /// here where the log's last segment has holes.
    pub unused: u64,
    /// Bytes given back.
    pub reclaimed: u64,
}

/// Checks the disk of the layer at `path`: superblocks and log of each layer, extents outside of the file or on each
/// other, and the layers below; with `base`, whether the layer was made for that base. `repairs`: gives the unused
/// space of the highest layer's file back, if the layer has no problem.
///
/// # Errors
/// `Busy` when a server has the layer; `NoBackend` when there is no file at `path`; `Permission`.
pub fn check(
    path: &Path,
    base: Option<&Native>,
    repairs: bool,
    progress: &Progress,
) -> Result<Check> {
    let path = fs::canonicalize(path).map_err(|error| failed(path, "stat", &error))?;
    let how = if repairs { FileOptions::default() } else { reading() };
    let mut check = Check::default();
    let Some(highest) = check.of(&path, Layer::open(&path, &how))? else { return Ok(check) };
    let below = check.of(&path, highest.parents(&reading()))?.unwrap_or_default();
    if highest.superblock().in_use.is_some() {
        check.add(
            &path,
            "was not closed by its last server: serve the disk again and end that server",
        );
    }
    if highest.superblock().committing {
        let error = committing(&path);
        check.add_error(&path, &error);
    }
    if let Some(base) = base {
        let same = check_base(base).and_then(|modified| {
            check_same_base(&path, highest.superblock(), (blocks(base)?, modified))
        });
        check.of(&path, same)?;
    }
    let io = |error: io::Error| failed(&path, "read", &error);
    let layers: Vec<_> = std::iter::once(highest).chain(below.into_iter().rev()).collect();
    let lengths = layers.iter().map(|layer| Ok(layer.backing.metadata()?.len()));
    progress.begin(lengths.sum::<io::Result<u64>>().map_err(io)?);
    for (number, layer) in layers.into_iter().enumerate() {
        let file = layer.backing.try_clone().map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        if let Some(used) = check.layer(layer)?
            && number == 0
        {
            check.space(&file, &used, repairs).map_err(io)?;
        }
        progress.advance(length).map_err(io)?;
    }
    Ok(check)
}

impl Check {
    fn add(&mut self, path: &Path, what: impl Into<String>) {
        self.problems.push((path.into(), what.into()));
    }

    fn add_error(&mut self, path: &Path, error: &Error) {
        let hint = error.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
        self.add(path, format!("{}{hint}", error.message));
    }

    /// Counts an error of the contents as a problem.
    ///
    /// # Errors
    /// All others: nothing is known then.
    fn of<T>(&mut self, path: &Path, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error)
                if matches!(error.code, Code::BadBackend | Code::NoBackend | Code::Unsupported) =>
            {
                self.add_error(path, &error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Checks the superblocks and the log. Answers the runs of the file that are used, if the layer has no problem.
    fn layer(&mut self, layer: Layer) -> Result<Option<Vec<Run>>> {
        let Layer { path, backing, contents, .. } = layer;
        self.layers.push(path.clone());
        let known = self.problems.len();
        let superblocks = other_superblock(&backing, &contents.superblock);
        let sound = superblocks.map_err(|error| failed(&path, "read", &error))?;
        if !sound {
            self.add(&path, "one of the two superblocks is damaged; the other one counts, and the next server replaces the damaged one");
        }
        let loaded = contents.load_head(0, Index::new(), random(), &[]);
        let loaded = loaded.map_err(|error| unfit(&path, &error));
        let Some(head) = self.of(&path, loaded)? else { return Ok(None) };
        let mut used = runs(&head);
        used.sort_unstable_by_key(|run| run.block);
        for pair in used.windows(2) {
            if pair[0].block + u64::from(pair[0].count) > pair[1].block {
                self.add(&path, format!("block {} of the file belongs to two ranges of the disk; take the file from a backup", pair[1].block));
            }
        }
        Ok((self.problems.len() == known).then_some(used))
    }

    /// Counts unused space, and gives the space back.
    fn space(&mut self, file: &File, used: &[Run], repairs: bool) -> io::Result<()> {
        let before = file.metadata()?;
        let used_bytes: u64 = used.iter().map(|run| u64::from(run.count) * BLOCK).sum();
        self.unused = (before.blocks() * 512).saturating_sub(used_bytes);
        if !repairs || !self.problems.is_empty() {
            return Ok(());
        }
        let mut at = 0;
        let end = before.len().div_ceil(BLOCK);
        for (from, to) in
            used.iter().map(|run| (run.block, run.block + u64::from(run.count))).chain([(end, end)])
        {
            if at < from {
                punch(file, at * BLOCK, (from - at) * BLOCK)?;
            }
            at = at.max(to);
        }
        file.sync_all()?;
        self.reclaimed = (before.blocks() * 512).saturating_sub(file.metadata()?.blocks() * 512);
        self.unused = self.unused.saturating_sub(self.reclaimed);
        Ok(())
    }
}

/// Whether the older superblock is valid, or was never written.
fn other_superblock(file: &File, newest: &Superblock) -> io::Result<bool> {
    let mut page = [0; PAGE];
    file.read_exact_at(&mut page, (newest.place() + 1) % SUPERBLOCKS * BLOCK)?;
    Ok(page == [0; PAGE] || Superblock::parse(&page).is_ok())
}

/// Superblocks, log and data of a layer that is alone in an index.
fn runs(head: &Head) -> Vec<Run> {
    let segment = head.space().segment_blocks();
    let count = u32::try_from(segment).unwrap_or(u32::MAX);
    let log = head.log_segments().map(|number| Run { block: u64::from(number) * segment, count });
    let data = head.index().iter().filter_map(|extent| match extent.place() {
        Place::Zero => None,
        Place::At { block, .. } => Some(Run { block, count: extent.count() }),
    });
    let superblocks = Run { block: 0, count: u32::try_from(SUPERBLOCKS).unwrap_or(u32::MAX) };
    std::iter::once(superblocks).chain(log).chain(data).collect()
}

fn punch(file: &File, offset: u64, length: u64) -> io::Result<()> {
    let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    let length = libc::off_t::try_from(length).map_err(io::Error::other)?;
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: fallocate of an own descriptor.
    match unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
