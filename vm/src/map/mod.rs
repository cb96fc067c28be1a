//! Maps: which address means what.
//!
//! A map is an ordered set of entries (`entry.rs`) kept in a tree (`tree.rs`), both plain
//! containers. Each verb has a file; `edit.rs` is the frame that they share: reserve, lock, clip,
//! change, merge, unlock, settle.
//!
//! | file | verb |
//! |---|---|
//! | `insert.rs` | map: place, insert, coalesce, replace |
//! | `remove.rs` | remove |
//! | `protect.rs` | protect, lower the maximum |
//! | `inherit.rs` | inherit |
//! | `advise.rs` | advise |
//! | `discard.rs` | give contents up |
//! | `hint.rs` | where a new mapping may go |
//! | `residency.rs` | which pages are in memory, and which on swap |
//! | `move_.rs` | move, extend |
//! | `wire.rs` | wire and unwire for the user |
//! | `clean.rs` | write dirty pages |
//! | `stack.rs` | stacks and their growth |
//! | `page_table.rs` | virtual page tables |
//! | `submap.rs` | hand a range to another map |
//! | `lookup.rs` | look at entries |
//!
//! Locks: [`MapState`] is guarded by the map's lock, rank 20. Faults take it for reading and keep
//! it until the translation is entered; verbs take it for writing.

mod advise;
mod clean;
mod discard;
mod edit;
pub(crate) mod entry;
mod hint;
mod inherit;
mod insert;
mod lookup;
mod move_;
mod page_table;
mod protect;
mod remove;
mod residency;
mod stack;
mod submap;
pub(crate) mod tree;
mod wire;

use crate::Vm;
use crate::slab::{Handle, Owner};
pub use advise::Advice;
use bsdvm_machine::sync::atomic::{AtomicU64, Ordering};
use bsdvm_machine::{Channel, Machine, VirtAddr, VirtRange};
pub(crate) use edit::{Edit, Need};
pub use entry::{Behavior, Inherit, Sharing};
pub(crate) use entry::{Entry, EntryHandle, Flags, Kind, with_loads};
pub use hint::Randomize;
pub use insert::{MapError, Mapping, MappingBacking as Backing, Placement};
pub use lookup::EntryInfo;
pub(crate) use page_table::LEVELS;
pub use page_table::TableEntry;
pub use stack::GrowthLimits;
use tree::Tree;

/// What the lock of a map guards.
pub(crate) struct MapState {
    pub(crate) range: VirtRange,
    pub(crate) tree: Tree,
    pub(crate) owner: Owner,
    /// Bytes in entries.
    pub(crate) bytes: u64,
    /// Everything mapped from now on is wired (W04).
    pub(crate) wire_future: bool,
    /// A fork is under way with the map unlocked: nobody changes it or faults on it.
    pub(crate) frozen: bool,
    /// The space has ended: nothing can be mapped.
    pub(crate) exiting: bool,
    /// How far stacks may grow.
    pub(crate) limits: GrowthLimits,
}

impl MapState {
    /// The entry that contains `va`.
    #[inline]
    pub(crate) fn find<M: Machine>(&self, vm: &Vm<M>, va: VirtAddr) -> Option<EntryHandle> {
        let found = self.tree.floor(&vm.map_nodes, va.0)?;
        (va.0 < found.end).then(|| Handle::from_raw(found.id))?
    }

    /// The entry that contains `va`, or the first one above it.
    pub(crate) fn find_at_or_above<M: Machine>(
        &self,
        vm: &Vm<M>,
        va: VirtAddr,
    ) -> Option<EntryHandle> {
        match self.tree.floor(&vm.map_nodes, va.0) {
            Some(found) if va.0 < found.end => Handle::from_raw(found.id),
            Some(found) => self.get(vm, Handle::from_raw(found.id)?).next,
            None => Handle::from_raw(self.tree.first(&vm.map_nodes)?.id),
        }
    }

    /// The entry below `va`: the last one that starts below it.
    pub(crate) fn find_below<M: Machine>(&self, vm: &Vm<M>, va: VirtAddr) -> Option<EntryHandle> {
        let below = va.0.checked_sub(1)?;
        Handle::from_raw(self.tree.floor(&vm.map_nodes, below)?.id)
    }

    #[inline]
    pub(crate) fn get<'a, M: Machine>(&'a self, vm: &'a Vm<M>, entry: EntryHandle) -> &'a Entry {
        vm.entries.get(&self.owner, entry)
    }

    pub(crate) fn get_mut<'a, M: Machine>(
        &'a mut self,
        vm: &'a Vm<M>,
        entry: EntryHandle,
    ) -> &'a mut Entry {
        vm.entries.get_mut(&mut self.owner, entry)
    }
}

/// The version stamp of a map (M17): bumped by every change, so that whoever unlocked the map can
/// tell whether what it learned still holds.
pub(crate) struct Stamp(AtomicU64);

impl Stamp {
    pub(crate) const fn new() -> Stamp {
        Stamp(AtomicU64::new(0))
    }

    pub(crate) fn bump(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn read(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// The channel for those who wait for a map: for the end of a transition or of a fork.
pub(crate) fn map_channel(space: crate::space::SpaceHandle) -> Channel {
    Channel(0x4d00_0000_0000_0000 | u64::from(space.raw()))
}
