//! Merging the frozen layers of a running disk into one.
//!
//! The merged layer is made like that of a disk without a server ([`flatten_frozen`]), and takes the name and
//! the UUID of the highest frozen layer: whatever ends the work, the next server finds the same disk. The
//! running server then looks up blocks in the merged layer, a few extents after another: the old files hold
//! the same contents, so that a request may read either file. The server closes the old files once no request
//! can know their places.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use ublk_overlay::extent::{BLOCK_SHIFT, Extent, Place};
use ublk_overlay::index::Index;
use ublk_overlay::superblock::Parent;
use uuid::Uuid;

use super::super::file::FileOptions;
use super::super::{FlattenOptions, Frozen, Merged, Progress, Queues};
use super::Overlay;
use super::chain::{Layer, failed, folder, unfit};
use super::offline::merge::{Flattened, flatten_frozen, remove_unused};
use crate::error::{Code, Error, Result};

/// Extents that get their new places at a time: requests wait for as long.
const AT_ONCE: usize = 64;
/// How often the oldest request is looked for.
const LOOK: Duration = Duration::from_millis(2);

impl Overlay {
    /// Merges the frozen layers of the disk, as there are now, into one, which takes the name and the UUID of
    /// the highest of these. Requests go on meanwhile. The live layer, what snapshots freeze in the
    /// meantime, and a layer on which others stand, with those below, stay as they are. Does nothing with fewer
    /// than two other layers. At any moment the disk has the same contents, whatever fails.
    ///
    /// # Errors
    /// `Busy` while another merge of the disk is under way; `Closed` when a thread that serves the disk is
    /// gone; `Resources` on a full file system, and when this server has no place for another file;
    /// `BadBackend` for a layer that was replaced; `ECANCELED` of the progress. The disk goes on as before, or
    /// on the merged layer.
    pub fn flatten_below(
        &self,
        options: &FlattenOptions,
        queues: &dyn Queues,
        progress: &Progress,
    ) -> Result<Merged> {
        let Some(mut work) = Work::begin(self)? else { return Ok(Merged::default()) };
        let Flattened { below, left } = flatten_frozen(&work.path, work.identity(), progress)?;
        work.leave(&left);
        if work.old.len() < 2 {
            return Ok(Merged::default());
        }
        work.go_over(queues)?;
        let drained = work.drain(options.limit);
        if drained {
            work.close(queues)?;
        }
        remove_unused(below, options.prunes && drained)
    }

    /// What the frozen layers take, and would take as one.
    pub(super) fn look_at_frozen(&self) -> io::Result<Frozen> {
        let (files, below) = {
            let live = self.live();
            let own = live.head.layer();
            let frozen = live.layers.iter().filter(|&(number, _)| number != own);
            let files = frozen.map(|(_, open)| open.file.backing()).collect::<Vec<_>>();
            (files, live.below.clone())
        };
        let mut found = Frozen { layers: 0, allocated: 0, stored: 0 };
        for file in files {
            found.layers += 1;
            found.allocated += file?.metadata()?.blocks() * 512;
        }
        let stored = below.iter().filter(|extent| extent.layer().is_some());
        found.stored = stored.map(|extent| u64::from(extent.count()) << BLOCK_SHIFT).sum();
        Ok(found)
    }
}

/// A merge under way; another can begin once this is dropped.
struct Work<'a> {
    overlay: &'a Overlay,
    /// The highest frozen layer.
    parent: Parent,
    path: PathBuf,
    /// The numbers of the frozen layers, in order.
    old: Vec<u32>,
    /// The number of the merged layer, and the place of the file.
    number: u32,
    place: u16,
}

impl<'a> Work<'a> {
    /// None: there is nothing to merge.
    fn begin(overlay: &'a Overlay) -> Result<Option<Self>> {
        let path = overlay.path.display();
        let mut live = overlay.live();
        if live.merging {
            let message = format!("the layers of {path} are being merged");
            return Err(Error::new(Code::Busy, message).hint("wait for the end of that merge"));
        }
        if live.flights.is_deserted() {
            let message = format!("{path} has lost a thread that serves it");
            return Err(Error::new(Code::Closed, message).hint("end the server and serve it again"));
        }
        let own = live.head.layer();
        let numbers = live.layers.iter().map(|(number, _)| number);
        let old: Vec<_> = numbers.filter(|&number| number != own).collect();
        let Some(parent) = live.head.superblock().parent.filter(|_| old.len() > 1) else {
            return Ok(None);
        };
        let Some((number, place)) = live.layers.reserve(0) else {
            let message = format!("the server of {path} has no place for another file");
            return Err(Error::new(Code::Resources, message)
                .hint("merge while the disk is not served: ublk overlay flatten"));
        };
        live.merging = true;
        let path = folder(&overlay.path).join(OsStr::from_bytes(parent.file.bytes()));
        Ok(Some(Self { overlay, parent, path, old, number, place }))
    }

    /// These layers are not merged.
    fn leave(&mut self, left: &[Uuid]) {
        let live = self.overlay.live();
        self.old
            .retain(|&number| live.layers.get(number).is_some_and(|open| !left.contains(&open.id)));
    }

    /// The identity of the highest frozen layer, and of the merged layer.
    fn identity(&self) -> (Uuid, u64) {
        (self.parent.layer, self.parent.generation)
    }

    /// Requests find blocks in the merged layer from now on.
    fn go_over(&self, queues: &dyn Queues) -> Result<()> {
        let how = FileOptions { read_only: true, ..self.overlay.how.clone() };
        let Layer { file, contents, .. } = Layer::open(&self.path, &how)?;
        let found = contents.superblock;
        if (found.layer, found.generation) != self.identity() {
            let message = format!("{} was replaced by another layer", self.path.display());
            return Err(Error::new(Code::BadBackend, message).hint("give the file its name back"));
        }
        let mut index = Index::new();
        contents.load(self.number, &mut index).map_err(|error| unfit(&self.path, &error))?;
        let backing = file.backing().map_err(|error| failed(&self.path, "dup", &error))?;
        queues.add_file(self.place, backing.as_fd())?;
        self.overlay.live().layers.fill(self.number, found.layer, file);
        let stored: Vec<Extent> =
            index.iter().filter(|extent| extent.place() != Place::Zero).collect();
        for some in stored.chunks(AT_ONCE) {
            let mut live = self.overlay.live();
            some.iter().for_each(|&extent| live.head.take_over(extent, |layer| self.is_old(layer)));
        }
        // A look of its own: an extent that was missed would be read from a closed file.
        let now = self.overlay.live().head.index().clone();
        match now.iter().filter_map(Extent::layer).any(|layer| self.is_old(layer)) {
            false => Ok(()),
            true => Err(Error::new(
                Code::Internal,
                format!("{} lacks blocks of the layers below", self.path.display()),
            )),
        }
    }

    fn is_old(&self, layer: u32) -> bool {
        self.old.binary_search(&layer).is_ok()
    }

    /// Waits until no request can know the old files. False: some do not end.
    fn drain(&self, limit: Duration) -> bool {
        let mark = self.overlay.live().flights.now();
        let begin = Instant::now();
        while self.overlay.live().flights.oldest().is_none_or(|oldest| oldest <= mark) {
            if begin.elapsed() > limit {
                return false;
            }
            thread::sleep(LOOK);
        }
        true
    }

    /// Closes the files of the old layers, here and in the queues.
    fn close(&self, queues: &dyn Queues) -> Result<()> {
        let nothing = fs::File::open("/dev/null");
        let nothing = nothing
            .map_err(|error| Error::os(Code::Resources, "cannot open /dev/null", "open", &error))?;
        for &number in &self.old {
            let place = self.overlay.live().layers.place(number);
            queues.add_file(place, nothing.as_fd())?;
            let closed = self.overlay.live().layers.close(number, &nothing);
            closed.map_err(|error| failed(&self.path, "dup3", &error))?;
        }
        Ok(())
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        let mut live = self.overlay.live();
        live.layers.cancel(self.number);
        live.merging = false;
    }
}
