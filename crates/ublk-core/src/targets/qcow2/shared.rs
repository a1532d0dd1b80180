//! Targets on the same images share an index.

use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use ublk_overlay::index::Index;

use super::super::overlay::modified_of;
use super::chain::Chain;
use super::extents;
use super::image::failed;
use crate::error::Result;

/// Of a file: device, number, length, and the time of modification.
type State = (u64, u64, u64, i64);

/// The indexes of this process, as long as a target has them.
static KNOWN: Mutex<Vec<(Vec<State>, Weak<Index>)>> = Mutex::new(Vec::new());

/// The index of the chain: one that another target has of the same images, or a new one.
pub(super) fn index(chain: &Chain) -> Result<Arc<Index>> {
    // A block device has no time by which a change is seen.
    let Some(states) = states(chain)? else { return extents::index(chain).map(Arc::new) };
    let known = |all: &[(Vec<State>, Weak<Index>)]| {
        all.iter().find(|(of, _)| *of == states).and_then(|(_, index)| index.upgrade())
    };
    let lock = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let found = known(&lock());
    if let Some(index) = found {
        return Ok(index);
    }
    // Others may look meanwhile.
    let made = Arc::new(extents::index(chain)?);
    let mut all = lock();
    if let Some(index) = known(&all) {
        return Ok(index);
    }
    all.retain(|(_, index)| index.strong_count() > 0);
    all.push((states, Arc::downgrade(&made)));
    Ok(made)
}

/// None if one of the images is no regular file.
fn states(chain: &Chain) -> Result<Option<Vec<State>>> {
    let mut states = Vec::with_capacity(chain.images.len());
    for image in &chain.images {
        let found = image.backing.metadata();
        let found = found.map_err(|error| failed(&image.path, "fstat", &error))?;
        if !found.is_file() {
            return Ok(None);
        }
        states.push((found.dev(), found.ino(), image.length, modified_of(&found)));
    }
    Ok(Some(states))
}
