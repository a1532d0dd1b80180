//! Verbs that read or rewrite the contents of a disk without a server.
//!
//! Each verb locks the files, refuses a layer that was not closed, and works in an order that a kill or a
//! power cut may end anywhere: new contents go into a file without a name, become durable, and take the
//! place of the old file by a rename.

mod base;
mod bases;
mod changes;
mod check;
mod copy;
mod disk;
mod export;
mod family;
mod into_base;
pub(super) mod kill;
pub(super) mod merge;
mod pipe;
mod rebase;
mod stream;
mod tree;

use crate::targets::Progress;
pub use changes::{receive, send};
pub use check::{Check, check};
pub use export::{Export, export};
pub use into_base::commit_into_base;
pub use merge::{commit, flatten};
pub use rebase::{Rebased, rebase};
pub use tree::{Branch, check_no_base, tree};
