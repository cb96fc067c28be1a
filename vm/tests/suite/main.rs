//! The tests of the core, but for those that a checker runs (`shuttle.rs`, `loom.rs`, `miri.rs`): one
//! program, so that the core is compiled for them once.

#[path = "../common/mod.rs"]
mod common;

mod advice;
mod chains;
mod charges;
mod drawings;
mod early;
mod kinds;
mod kmem;
mod lives;
mod maps;
mod model;
mod moves;
mod objects;
mod open;
mod paging;
mod races;
mod show;
mod spaces;
mod submaps;
mod swap;
mod sweep;
mod tables;
mod trace;
mod transitions;
mod verbs;
mod wiring;
mod zeroes;
