//! The races that bit others, each as a script: the other party's operation runs in the middle of
//! a pager call, or on a thread whose progress the counters show. Nothing sleeps.
//!
//! What is left to chance is in `shuttle.rs`, where a checker chooses the interleaving.

#[path = "races/chains.rs"]
mod chains;
#[path = "races/discard.rs"]
mod discard;
#[path = "races/ends.rs"]
mod ends;
#[path = "races/fork.rs"]
mod fork;
#[path = "races/pagers.rs"]
mod pagers;
#[path = "races/wiring.rs"]
mod wiring;

use crate::common::scripted::{Slot, Stage, end_of, frame_of, is_resident, until, word};
use crate::common::{PAGE, anon, at, check, get, pages, put, slots, touch};
use bsdvm::{Access, FaultError, Inherit, MapError, Mapping, Placement, Prot, Sharing, Space};
use bsdvm_sim::Sim;
use std::sync::Barrier;
use std::sync::atomic::Ordering;

type S = Space<'static, Sim<12>>;

/// Shared memory that a child nevertheless gets a copy of: fork copies it at once.
fn shared_but_copied() -> Mapping {
    Mapping {
        sharing: Sharing::Shared,
        ..Mapping::anonymous(Prot::RW)
    }
}

fn map(space: S, first: u64, count: u64, what: Mapping) {
    space
        .map(count * PAGE, Placement::At(at(first)), what)
        .unwrap();
}
