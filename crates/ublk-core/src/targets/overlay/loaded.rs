//! A live layer on its way from the file to a server: read with the unflushed writes of a killed server, then
//! taken by a new one.

use std::fs;
use std::path::{Path, PathBuf};

use ublk_overlay::extent::{BLOCK, Extent};
use ublk_overlay::head::Head;
use ublk_overlay::index::Index;
use ublk_overlay::superblock::{InUse, Superblock};
use uuid::Uuid;

use super::super::Boot;
use super::super::file::File;
use super::chain::{Layer, failed, unfit};
use super::history::{History, Owner};
use super::make::without_fallocate;
use super::settle::{self, random};
use super::unused::Allocated;
use crate::error::{Code, Error, Result};

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
