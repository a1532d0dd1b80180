//! Images that `qemu-img` has made; the tests fail where qemu-utils is missing.
//!
//! One test at a time: a child that another thread starts holds the locks of all files until it runs its program.

mod chains;
mod damage;
mod guests;
mod refusals;
mod tools;
